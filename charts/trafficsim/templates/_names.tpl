{{/* The name of all that is installed, and of the Lease: `trafficsim-operator` for a release called trafficsim. */}}
{{- define "trafficsim.name" -}}
{{- $release := trimSuffix "-operator" .Release.Name -}}
{{- $whole := contains "trafficsim" $release | ternary $release (printf "%s-trafficsim" $release) -}}
{{- .Values.fullnameOverride | default (printf "%s-operator" (trunc 41 $whole | trimSuffix "-")) -}}
{{- end }}

{{- define "trafficsim.accountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "trafficsim.name" .) -}}
{{- else -}}
{{- required "serviceAccount.name: needed with serviceAccount.create=false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* What selects the operator's pods; of a release, so that two of them don't select each other's. */}}
{{- define "trafficsim.selector" -}}
app.kubernetes.io/name: trafficsim-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "trafficsim.labels" -}}
{{ include "trafficsim.selector" . }}
{{ include "trafficsim.commonLabels" . }}
{{- end }}

{{- define "trafficsim.commonLabels" -}}
app.kubernetes.io/part-of: trafficsim
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selects runners, in whatever namespace: the operator labels them so, and nobody's own labels can change it. */}}
{{- define "trafficsim.runnerSelector" -}}
app.kubernetes.io/managed-by: trafficsim
app.kubernetes.io/name: trafficsim-runner
{{- end }}

{{/* An image reference: (list image root). */}}
{{- define "trafficsim.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1).Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The namespaces served with scope namespaced, separated by commas. */}}
{{- define "trafficsim.served" -}}
{{- if eq .Values.rbac.scope "namespaced" -}}
{{- .Values.rbac.namespaces | default (list .Release.Namespace) | uniq | join "," -}}
{{- end -}}
{{- end }}

{{/* As `restricted` of the Pod Security Standards asks for. */}}
{{- define "trafficsim.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "trafficsim.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What the schema can't say. */}}
{{- define "trafficsim.check" -}}
{{- if and .Values.rbac.namespaces (ne .Values.rbac.scope "namespaced") }}
{{- fail "rbac.namespaces: belongs to rbac.scope=namespaced; with scope cluster every namespace is served" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.readers) }}
{{- range $name := list "serviceMonitor" "podMonitor" }}
{{- if (index $.Values.metrics $name).enabled }}
{{- fail (printf "metrics.%s: nobody could read the metrics; name Prometheus in networkPolicy.readers" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
