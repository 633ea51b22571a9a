"""
The policy document: what a simulation may do, read from a file or a ConfigMap. The shipped default is DEFAULT.

```yaml
targets:
  - service: own                      # Services with a selector in the simulation's own namespace
  - {host: shop.example.com, ports: [443]}
  - {cidr: 10.0.0.0/8, ports: [8080]} # no ports: every port
verbs: [get, head, post]              # absent: all
images: [registry.example.com/trafficsim/runner]   # repositories, not tags; absent: any
maxUsers: 500
maxRunners: 4
maxDuration: 1h                       # so a duration is needed
maxConnections: 1000                  # open connections per runner
maxConcurrency: 50000                 # requests in flight per runner
```

Link-local and metadata addresses need an entry of their own: a `cidr` that lies wholly within them.
"""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from trafficsim_api.resource import Model
from trafficsim_api.units import Duration

__all__ = ["DEFAULT", "LOCAL_DEFAULT", "Policy", "PolicyTarget"]

RUNNER_REPOSITORY: Final = "trafficsim/runner"

Verb = Literal["get", "head", "post", "put", "patch", "delete", "options"]


class PolicyTarget(Model):
    """One kind of target that may be hit; exactly one of service, host, cidr."""

    service: Literal["own"] | None = None
    """`own`: a Service with a selector in the simulation's own namespace."""
    host: Annotated[str, StringConstraints(min_length=1, max_length=253, to_lower=True)] | None = None
    """A host by its name, as the URL has it."""
    cidr: str | None = None
    """A network: every address that the target resolves to must lie in an allowed one."""
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()
    """Empty: every port."""

    @field_validator("cidr")
    @classmethod
    def _network(cls, cidr: str | None) -> str | None:
        if cidr is not None:
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                raise PydanticCustomError("cidr", "a network such as 10.0.0.0/8 is needed") from error
        return cidr

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.service, self.host, self.cidr)) != 1:
            raise PydanticCustomError("one", "exactly one of service, host, cidr is needed")
        return self


class Policy(Model):
    """What simulations may do; an absent field sets no limit."""

    targets: tuple[PolicyTarget, ...] = ()
    """What may be hit; nothing when the list is empty."""
    verbs: tuple[Verb, ...] | None = None
    """The verbs that may be used; absent: all."""
    images: tuple[str, ...] | None = None
    """Repositories of runner images, not tags; absent: any."""
    max_users: Annotated[int, Field(ge=0)] | None = None
    """The most users of a simulation."""
    max_runners: Annotated[int, Field(ge=1)] | None = None
    """The most runners of a simulation."""
    max_duration: Duration | None = None
    """The longest run; with it a duration is needed."""
    max_connections: Annotated[int, Field(ge=1, le=50_000)] = 1000
    """Open connections per runner."""
    max_concurrency: Annotated[int, Field(ge=1, le=50_000)] = 50_000
    """Requests in flight per runner; while it uses more than 80% of its CPU flows wait to begin from 60% of them on."""


DEFAULT: Final = Policy(
    targets=(PolicyTarget(service="own"),),
    images=(RUNNER_REPOSITORY,),
    max_users=500,
    max_runners=4,
    max_duration=timedelta(hours=1),
)

_PRIVATE: Final = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")

LOCAL_DEFAULT: Final = Policy(targets=tuple(PolicyTarget(cidr=network) for network in _PRIVATE))
