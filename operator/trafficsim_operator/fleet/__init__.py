"""
Fleets: where runners live. `KubernetesFleet` has a Deployment per revision, `LocalFleet` runner subprocesses.

Both are driven by the same reconcile; the contract between them and it is the Fleet protocol here and the Record
protocol in store/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from trafficsim_api.policy import Policy
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_operator.actions import EnsureRevision, RemoveRevision, Retire
from trafficsim_operator.observed import RevisionSeen, RowsSeen, TargetFacts

__all__ = ["Fleet", "Owner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The simulation that objects belong to."""

    namespace: str
    name: str
    uid: str


class Fleet(Protocol):
    """Where runners live. Every call has a deadline of its own; Unavailable says that the world does not answer."""

    image: str
    """The image of a runner whose spec names none."""
    cores: int | None
    """The cores that all runners share, None when each has its own."""

    async def observe(self, owner: Owner) -> Mapping[str, RevisionSeen]:
        """Return every revision that exists, with its runners; acknowledgements are asked of the runners themselves."""
        ...

    async def apply(self, owner: Owner, action: EnsureRevision | Retire | RemoveRevision) -> None:
        """Carry out one action; absolute, so a repeat is harmless."""
        ...

    async def look_up(
        self, owner: Owner, spec: TrafficSimulationSpec, policy: Policy
    ) -> tuple[TargetFacts, str | None, str]:
        """Return what the target's URL means here, the PEM of target.tls.caFrom (None: none given), and its problem."""
        ...

    async def rows(self, owner: Owner, spec: TrafficSimulationSpec) -> Mapping[str, RowsSeen]:
        """Return the rows of each feeder of *spec*, as far as they can be read from here."""
        ...
