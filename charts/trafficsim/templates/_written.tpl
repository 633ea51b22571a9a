{{- /* Written by `python -m trafficsim_operator.chart` from manifests/rbac.py and the protocol; edit those. */}}
{{- define "trafficsim.simulationRules" -}}
- apiGroups:
  - trafficsim.io
  resources:
  - trafficsimulations
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - trafficsim.io
  resources:
  - trafficsimulations/status
  verbs:
  - patch
- apiGroups:
  - trafficsim.io
  resources:
  - trafficsimulations/finalizers
  verbs:
  - update
- apiGroups:
  - apps
  resources:
  - deployments
  verbs:
  - get
  - list
  - watch
  - create
  - patch
  - update
  - delete
- apiGroups:
  - apps
  resources:
  - replicasets
  verbs:
  - list
- apiGroups:
  - ''
  resources:
  - pods
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - ''
  resources:
  - configmaps
  verbs:
  - get
  - create
  - patch
- apiGroups:
  - ''
  resources:
  - services
  verbs:
  - get
- apiGroups:
  - discovery.k8s.io
  resources:
  - endpointslices
  verbs:
  - list
- apiGroups:
  - events.k8s.io
  resources:
  - events
  verbs:
  - create
{{- end }}

{{- define "trafficsim.ownRules" -}}
- apiGroups:
  - ''
  resources:
  - secrets
  verbs:
  - create
- apiGroups:
  - ''
  resources:
  - secrets
  verbs:
  - get
  - update
  resourceNames:
  - trafficsim-signing-key
- apiGroups:
  - coordination.k8s.io
  resources:
  - leases
  verbs:
  - create
- apiGroups:
  - coordination.k8s.io
  resources:
  - leases
  verbs:
  - get
  - update
  resourceNames:
  - '{{ include "trafficsim.name" . }}'
{{- end }}

{{- define "trafficsim.controlPort" -}}
9646
{{- end }}
