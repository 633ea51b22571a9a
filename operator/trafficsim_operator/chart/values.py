"""
What may be set in the chart; values.yaml, values.schema.json and the table in the chart's README are written from it.

A field's docstring is its comment. Helm parses the values itself; the models only say what there is.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, WithJsonSchema

from trafficsim_api.model import Model
from trafficsim_api.policy import DEFAULT, RUNNER_REPOSITORY, Policy
from trafficsim_operator.settings import Settings

__all__ = ["Values"]

OPERATOR_REPOSITORY: Final = "trafficsim/operator"
_SETTINGS: Final = Settings()

Repository = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-zA-Z0-9._:/-]*$", max_length=255)]
Tag = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$", max_length=128)]
Digest = Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64})?$")]
Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Port = Annotated[int, Field(ge=1, le=65535)]
Interval = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(ms|s|m|h)$")]
Quantity = Annotated[
    str, WithJsonSchema({"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?([EPTGMk]i?|Ki|m)?$"})
]
Texts = Annotated[dict[str, str], WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}})]
# What Kubernetes has a schema of: it is not written down a second time here.
Objects = Annotated[tuple[dict[str, Any], ...], WithJsonSchema({"type": "array", "items": {"type": "object"}})]


class Image(Model):
    """An image by its repository, and a tag or digest."""

    repository: Repository
    """With the registry in front, where it is not the cluster's default."""
    tag: Tag = ""
    """Absent: the chart's appVersion."""
    digest: Digest = ""
    """Such as `sha256:…`; goes before the tag."""


class PulledImage(Image):
    """An image of a container of ours."""

    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the kubelet pulls it."""


class Runner(Model):
    """Runners."""

    image: Image = Image(repository=RUNNER_REPOSITORY)
    """The image of runners whose `spec.runner` names none. Pulled from a registry that asks who you are, simulations
    name `imagePullSecrets` in `spec.runner`."""


class Logs(Model):
    """The operator's log on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written."""
    format: Literal["json", "text"] = "json"
    """How a line looks."""


class Crds(Model):
    """The CustomResourceDefinition."""

    install: bool = True
    """Install and upgrade it with the release; `helm uninstall` keeps it, and with it every simulation. With
    `rbac.scope: namespaced` nothing of the whole cluster is installed: there it is an administrator's whatever stands
    here."""


class Rbac(Model):
    """What the operator may do, and where."""

    create: bool = True
    """Make its roles and their bindings; without, they are yours to make."""
    scope: Literal["cluster", "namespaced"] = "cluster"
    """`cluster`: simulations of every namespace are served, by a ClusterRole. `namespaced`: those of `namespaces`
    alone, by a Role in each, and nothing is asked of or installed for the whole cluster."""
    namespaces: tuple[Namespace, ...] = ()
    """The namespaces served with scope `namespaced`; empty: the release's own."""


class ServiceAccount(Model):
    """Whom the operator is to the API server."""

    create: bool = True
    """Make it; without, `name` has to be there."""
    name: Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)] = ""
    """Absent: the operator's name."""
    annotations: Texts = Field(default_factory=dict)
    """Annotations of it."""


class PolicyValues(Model):
    """What simulations may do."""

    default: Policy = DEFAULT.model_copy(update={"images": ("{{ .Values.runner.image.repository }}",)})
    """The policy document, as docs/resource.md has it. Lists are replaced as a whole, `null` takes a limit away. What
    stands in double braces is a template."""


class Amounts(Model):
    """CPU and memory."""

    cpu: Quantity = ""
    """Cores, such as 100m or 2."""
    memory: Quantity = ""
    """Bytes, such as 256Mi."""


class Resources(Model):
    """What one replica is given; docs/operator.md has what simulations cost it."""

    requests: Amounts = Amounts(cpu="100m", memory="128Mi")
    """What is set aside for it."""
    limits: Amounts = Amounts(cpu="1", memory="512Mi")
    """What it gets at most."""


class NetworkPolicies(Model):
    """NetworkPolicies, which hold where the cluster's network enforces them."""

    enabled: bool = True
    """Make them: the operator reaches DNS, the API server and runners' control port; runners are reached by the
    operator alone."""
    dns_ports: tuple[Port, ...] = (53, 5353)
    """Ports of DNS: where the network's rules count after a Service's address was replaced, that of its pods, which is
    5353 on OpenShift."""
    api_server_ports: tuple[Port, ...] = (443, 6443)
    """Ports of the API server, as the Service `kubernetes` has it and as its endpoints do."""
    readers: Objects = ()
    """Who may read the operator's pages and metrics, and with `metrics.podMonitor` those of runners: peers as in `from`
    of a NetworkPolicy, such as `[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]`."""
    runner_namespaces: tuple[Namespace, ...] = ()
    """Namespaces where runners get one; empty: those served with `rbac.scope: namespaced`, else none, since the chart
    can't know where simulations will be."""
    runner_egress: Objects = ({},)
    """Where runners may connect to, as in `egress` of a NetworkPolicy: anywhere, since targets are the policy
    document's business. `[]` leaves it to the namespace's own NetworkPolicies."""


class Monitor(Model):
    """A monitor of the Prometheus operator."""

    enabled: bool = False
    """Make it; its kind has to be there."""
    interval: Interval = "30s"
    """How often metrics are read."""
    labels: Texts = Field(default_factory=dict)
    """Labels by which Prometheus finds it."""


class Monitors(Model):
    """Metrics for Prometheus, by way of its operator."""

    service_monitor: Monitor = Monitor()
    """Of the operator's replicas."""
    pod_monitor: Monitor = Monitor(interval="15s")
    """Of runners, wherever they are served; with the labels of simulation and revision."""


class Secret(Model):
    """A Secret of the release's namespace."""

    name: str
    """Its name."""


class Values(Model):
    """Values of the chart trafficsim."""

    replicas: Annotated[int, Field(ge=1, le=9)] = 2
    """Replicas of the operator: one works, the others stand by and take over within seconds."""
    image: PulledImage = PulledImage(repository=OPERATOR_REPOSITORY)
    """The operator's image."""
    image_pull_secrets: tuple[Secret, ...] = ()
    """Secrets for the operator's image, such as `[{name: registry}]`."""
    runner: Runner = Runner()
    policy: PolicyValues = PolicyValues()
    crds: Crds = Crds()
    rbac: Rbac = Rbac()
    service_account: ServiceAccount = ServiceAccount()
    network_policy: NetworkPolicies = NetworkPolicies()
    metrics: Monitors = Monitors()
    logs: Logs = Logs()
    workers: Annotated[int, Field(ge=1, le=256)] = _SETTINGS.workers
    """Simulations looked at in parallel."""
    resync_seconds: Annotated[int, Field(ge=1, le=86_400)] = _SETTINGS.resync_s
    """Seconds until every simulation is looked at again, whatever happens."""
    resources: Resources = Resources()
    run_as_user: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = 65532
    """The user the operator runs as, never root; `null`: the platform chooses one, as OpenShift does."""
    node_selector: Texts = Field(default_factory=dict)
    """Labels that the operator's nodes must have."""
    tolerations: Objects = ()
    """Taints that the operator's pods bear."""
    affinity: Annotated[dict[str, Any], WithJsonSchema({"type": "object"})] = Field(default_factory=dict)
    """Where the operator's pods go beside that; they are spread over nodes and zones in any case."""
    priority_class_name: str = ""
    """The PriorityClass of the operator's pods."""
    pod_labels: Texts = Field(default_factory=dict)
    """More labels of the operator's pods."""
    pod_annotations: Texts = Field(default_factory=dict)
    """Annotations of the operator's pods."""
    fullname_override: Annotated[str, StringConstraints(pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", max_length=50)] = ""
    """The name of what is installed; absent: the release's name, with `-operator` behind it."""
