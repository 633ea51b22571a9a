"""What the operator says about scaling: runners wanted and why, how busy they are, and forecasts against what came."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import ValidationError

from trafficsim_api.scaling import ScalingReason
from trafficsim_api.status import ScalingStatus
from trafficsim_operator.handlers import Key

__all__ = ["ScalingMetrics"]


class ScalingMetrics:
    """Gauges of the simulations whose run is on, and a count of the decisions that changed runners."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"trafficsim_scaling_{name}", text, ["namespace", "name", *labels], registry=registry)

        self._decisions = Counter(
            "trafficsim_scaling_decisions", "Changes of the runners wanted, by direction and reason.",
            ["direction", "reason"], registry=registry,
        )  # fmt: skip
        for direction in ("up", "down"):
            for reason in ScalingReason:
                self._decisions.labels(direction, reason.value)
        self._wanted = gauge("wanted_runners", "Runners that a version is to have.", "version")
        self._needed = gauge("needed_runners", "Runners that a version's users take now.", "version")
        self._utilisation = gauge("utilisation_ratio", "How busy its runners are, on the average.", "version")
        self._carried = gauge("users_per_runner", "Users that a runner carries at the target utilisation.", "version")
        self._forecast = gauge("forecast_users", "Users that the newest forecast says.")
        self._error = gauge("forecast_error_ratio", "Mean error of the newest forecasts.")
        self._off = gauge("forecast_off", "Whether nothing is done by forecasts, since they are too far off.")

    def wrote(self, before: Mapping[str, Any], after: ScalingStatus | None) -> None:
        """Count what a status write decided; *before* is `status.scaling` as it was on record."""
        known = _wanted_in(before)
        for version in after.versions if after is not None else ():
            more = version.wanted - known.get(version.revision, version.wanted)
            if more:
                self._decisions.labels("up" if more > 0 else "down", version.reason.value).inc()

    def tell(self, simulations: Iterable[tuple[Key, ScalingStatus]]) -> None:
        """Set the gauges to how *simulations* stand; those of others vanish."""
        for gauge in (
            self._wanted, self._needed, self._utilisation, self._carried, self._forecast, self._error, self._off,
        ):  # fmt: skip
            gauge.clear()
        for key, scaling in simulations:
            for version in scaling.versions:
                labels = (key.namespace, key.name, version.revision)
                self._wanted.labels(*labels).set(version.wanted)
                self._needed.labels(*labels).set(version.needed)
                self._utilisation.labels(*labels).set(version.utilisation / 100)
                if version.users_per_runner:
                    self._carried.labels(*labels).set(version.users_per_runner)
            place, forecast = (key.namespace, key.name), scaling.forecast
            if forecast.at is not None:
                self._forecast.labels(*place).set(forecast.users)
                self._off.labels(*place).set(forecast.off)
            if forecast.error is not None:
                self._error.labels(*place).set(forecast.error / 100)


def _wanted_in(scaling: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the runners wanted by revision in *scaling* as it stands on record; nothing where it can't be read."""
    try:
        found = ScalingStatus.model_validate_json(json.dumps(dict(scaling)))
    except ValidationError:
        return {}
    return {version.revision: version.wanted for version in found.versions}
