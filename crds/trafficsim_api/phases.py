"""
The phases of a simulation: the transition table, and what each phase says in the standard conditions.

| phase | Ready | Reconciling | Stalled |
|---|---|---|---|
| Pending, Preflight, Starting, Draining | False | True | False |
| Running, Suspended, Completed (any verdict) | True | False | False |
| Failed (reason Refused when policy or schema refused it) | False | False | True |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

__all__ = ["TRANSITIONS", "WAITING", "Phase", "Verdict", "standard_conditions"]


class Phase(StrEnum):
    """Where a simulation stands."""

    PENDING = "Pending"
    PREFLIGHT = "Preflight"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    DRAINING = "Draining"
    COMPLETED = "Completed"
    FAILED = "Failed"


class Verdict(StrEnum):
    """How a finished run is judged; never silence."""

    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"


WAITING: Final = frozenset({Phase.PENDING, Phase.PREFLIGHT, Phase.STARTING, Phase.DRAINING})

TRANSITIONS: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.PENDING: frozenset({Phase.PREFLIGHT, Phase.SUSPENDED, Phase.DRAINING, Phase.FAILED}),
    Phase.PREFLIGHT: frozenset({Phase.STARTING, Phase.SUSPENDED, Phase.DRAINING, Phase.FAILED}),
    Phase.STARTING: frozenset({Phase.RUNNING, Phase.SUSPENDED, Phase.DRAINING, Phase.FAILED}),
    Phase.RUNNING: frozenset({Phase.SUSPENDED, Phase.DRAINING, Phase.FAILED}),
    Phase.SUSPENDED: frozenset({Phase.PENDING, Phase.STARTING, Phase.DRAINING, Phase.FAILED}),
    Phase.DRAINING: frozenset({Phase.COMPLETED, Phase.FAILED}),
    Phase.COMPLETED: frozenset({Phase.PENDING, Phase.FAILED}),
    Phase.FAILED: frozenset({Phase.PENDING}),
}


def standard_conditions(phase: Phase) -> tuple[bool, bool, bool]:
    """Return (Ready, Reconciling, Stalled) of *phase*."""
    if phase is Phase.FAILED:
        return False, False, True
    return (False, True, False) if phase in WAITING else (True, False, False)
