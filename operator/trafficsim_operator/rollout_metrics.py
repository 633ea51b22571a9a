"""
What the operator says about rollouts: how those that are in progress stand, and how those that are over ended.

| outcome | the attempt |
|---|---|
| promoted | the new version has all users, and is stable |
| rolled_back | the new version failed, or the one before was taken back by the fast way |
| aborted | by command, or the spec asks for the stable version again |
| superseded | the spec asks for a third version, or the simulation ended first |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from trafficsim_api.names import Reason
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import ColourFigures, ColourStatus, RolloutStatus
from trafficsim_operator.handlers import Key

__all__ = ["OUTCOMES", "RolloutMetrics", "outcome_of"]

OUTCOMES: Final = ("promoted", "rolled_back", "aborted", "superseded")
_P = RolloutPhase
_FORWARD: Final = frozenset({_P.PREPARING, _P.SHIFTING, _P.ANALYZING})
_IN_PROGRESS: Final = _FORWARD | {_P.PROMOTING, _P.ABORTING, _P.SUPERSEDING}
_BY_HAND: Final = frozenset({Reason.ABORTED, Reason.WITHDRAWN})


def outcome_of(before: str, after: RolloutStatus) -> str:
    """Return how the attempt ends that was in phase *before* on record, "" when it does not end with this write."""
    if before not in _FORWARD or after.phase in _FORWARD - {_P.PREPARING} or after.phase == before:
        return ""
    match after.phase:
        case _P.PROMOTING | _P.RETIRING:
            return "rolled_back" if after.fast else "promoted"
        case _P.ABORTING | _P.REJECTED | _P.STABLE if after.reason != Reason.SIMULATION_ENDED:
            return "aborted" if after.reason in _BY_HAND else "rolled_back"
        case _:
            return "superseded"


class RolloutMetrics:
    """Gauges of the rollouts in progress, by simulation and colour, and a count of those that ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"trafficsim_rollout_{name}", text, ["namespace", "name", *labels], registry=registry)

        self._ended = Counter("trafficsim_rollouts", "Rollouts that ended, by outcome.", ["outcome"], registry=registry)
        for outcome in OUTCOMES:
            self._ended.labels(outcome)
        self._step = gauge("step", "The rollout's step, counted from 1.")
        self._paused = gauge("paused", "Whether the rollout is paused.")
        self._users = gauge("users", "Users of either version.", "colour")
        self._weight = gauge("weight", "Either version's share of the users.", "colour")
        self._requests = gauge("requests", "Requests of the newest window.", "colour")
        self._error_rate = gauge("error_rate", "Failed requests of all, in the newest window.", "colour")
        self._success = gauge("success", "Checks passed of all, in the newest window.", "colour")
        self._p95 = gauge("p95_seconds", "95th percentile of the response time in the newest window.", "colour")

    def wrote(self, before: Mapping[str, Any], after: RolloutStatus | None) -> None:
        """Count what ends by a status write; *before* is the rollout that was on record."""
        if after is not None and (outcome := outcome_of(str(before.get("phase", "")), after)):
            self._ended.labels(outcome).inc()

    def tell(self, rollouts: Iterable[tuple[Key, RolloutStatus]]) -> None:
        """Set the gauges to how *rollouts* stand; those of others vanish."""
        for gauge in (
            self._step, self._paused, self._users, self._weight, self._requests, self._error_rate, self._success,
            self._p95,
        ):  # fmt: skip
            gauge.clear()
        for key, rollout in rollouts:
            if rollout.phase in _IN_PROGRESS:
                self._tell(key, rollout)

    def _tell(self, key: Key, rollout: RolloutStatus) -> None:
        self._step.labels(key.namespace, key.name).set(rollout.step + 1)
        self._paused.labels(key.namespace, key.name).set(rollout.pause is not None)
        both = rollout.blue.users + rollout.green.users
        newest = rollout.windows[-1] if rollout.windows else None
        colours: tuple[tuple[str, ColourStatus, ColourFigures | None], ...] = (
            ("blue", rollout.blue, newest.blue if newest else None),
            ("green", rollout.green, newest.green if newest else None),
        )
        for colour, status, figures in colours:
            labels = (key.namespace, key.name, colour)
            self._users.labels(*labels).set(status.users)
            self._weight.labels(*labels).set(status.users / both if both else 0.0)
            if figures is not None:
                self._requests.labels(*labels).set(figures.requests)
                for gauge, text in (
                    (self._error_rate, figures.error_rate), (self._success, figures.success), (self._p95, figures.p95),
                ):  # fmt: skip
                    if text:
                        gauge.labels(*labels).set(_value(text))


def _value(text: str) -> float:
    """Return a figure as the status has it in its base unit: 9.1% → 0.091, 120ms → 0.12, 1.2s → 1.2."""
    for unit, size in (("%", 100), ("ms", 1000), ("s", 1)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) / size
    raise ValueError(f"{text} has no unit")
