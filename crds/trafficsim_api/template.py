"""The runners' template, `spec.runner`: any change of it is a new revision."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from trafficsim_api.model import Model, Scalar, StringMap, fault
from trafficsim_api.units import CPU, Memory

__all__ = ["EnvVar", "ImagePullSecret", "Quantities", "Resources", "Runner", "Toleration"]

ENV_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
IMAGE: Final = r"^[^\s]+$"


class Quantities(Model):
    """CPU and memory."""

    cpu: CPU | None = None
    """Cores: 2, 0.5 or 500m; absent in both: 2."""
    memory: Memory | None = None
    """Bytes: 512Mi or 1Gi; absent in both: 1Gi."""


class Resources(Model):
    """CPU and memory of a runner; requests and limits are made equal."""

    requests: Quantities | None = None
    limits: Quantities | None = None

    @model_validator(mode="after")
    def _equal(self) -> Self:
        for name in ("cpu", "memory"):
            request = getattr(self.requests, name, None)
            limit = getattr(self.limits, name, None)
            if request is not None and limit is not None and request != limit:
                raise fault(f"requests.{name}", f"must be equal to limits.{name}")
        if not 50 <= self.cpu <= 64_000:
            raise fault("limits.cpu", "from 50m to 64 is needed")
        if not 64 * 2**20 <= self.memory <= 256 * 2**30:
            raise fault("limits.memory", "from 64Mi to 256Gi is needed")
        return self

    @property
    def cpu(self) -> int:
        """Return the CPU of a runner in millicores; default 2 cores."""
        return next((q.cpu for q in (self.limits, self.requests) if q and q.cpu is not None), 2000)

    @property
    def memory(self) -> int:
        """Return the memory of a runner in bytes; default 1Gi."""
        return next((q.memory for q in (self.limits, self.requests) if q and q.memory is not None), 2**30)


MAX_BYTES: Final = 4096


class EnvVar(Model):
    """A literal environment variable of the runners."""

    name: Annotated[str, StringConstraints(pattern=ENV_NAME, max_length=128)]
    """The name; what begins with TRAFFICSIM_ is ours."""
    value: Scalar = ""
    """The value, as it stands."""


class ImagePullSecret(Model):
    """The name of a pull secret in the simulation's namespace."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Its name."""


class Toleration(Model):
    """A toleration, as in a pod."""

    key: Annotated[str, StringConstraints(max_length=316)] | None = None
    """The taint it tolerates; absent with Exists: every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """How the taint is compared; absent: Equal."""
    value: Annotated[str, StringConstraints(max_length=63)] | None = None
    """The value of the taint, for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The effect of the taint; absent: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a NoExecute taint is tolerated; absent: for ever."""


class Runner(Model):
    """The runners' template. Any change of it is a new revision."""

    image: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=IMAGE)] | None = None
    """Absent: the installation's, pinned when the run starts."""
    resources: Resources = Resources()
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], Field(max_length=8)] = ()
    service_account_name: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    """Its token is not mounted."""
    node_selector: StringMap | None = None
    """Labels a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    priority_class_name: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    """The priority class of the pods."""
    labels: StringMap | None = None
    """More labels of the pods."""
    annotations: StringMap | None = None
    """Annotations of the pods."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names: set[str] = set()
        for index, name in enumerate(variable.name for variable in self.env):
            if name.startswith("TRAFFICSIM_") or name in ("POD_IP", "POD_NAME"):
                raise fault(f"env[{index}].name", f"{name} is set by trafficsim")
            if name in names:
                raise fault(f"env[{index}].name", f"{name} is given twice")
            names.add(name)
        # The template is kept in the status, which has 16 KiB for everything.
        if len(self.model_dump_json(exclude_defaults=True)) > MAX_BYTES:
            raise fault("", f"at most {MAX_BYTES} bytes of env, labels, annotations and the rest are possible")
        return self
