"""How long users may be quiet and be well: time-outs and pauses of their flows."""

from typing import Any

import pytest

from trafficsim_api.document import load_spec
from trafficsim_api.protocol import Load
from trafficsim_operator.plan.silence import quiet_ms

GET = {"request": {"get": "/"}}


def a_load(*flows: list[dict[str, Any]], **timeouts: str) -> Load:
    """Build a load of users who do *flows*, each another one."""
    archetypes = [{"name": f"a{number}", "flow": flow} for number, flow in enumerate(flows)]
    target = {"url": "http://shop", "timeouts": timeouts}
    body = {"apiVersion": "trafficsim.io/v1alpha1", "kind": "TrafficSimulation", "metadata": {"name": "shop"},
            "spec": {"target": target, "archetypes": archetypes}}  # fmt: skip
    spec = load_spec(body).spec
    return Load(target=spec.target, archetypes=spec.archetypes)


def think(**form: str) -> dict[str, Any]:
    return {"think": form}


QUICK = {"connect": "100ms", "request": "2s"}


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        pytest.param(a_load([GET, think(constant="500ms")]), 31_500, id="the time-outs unless told otherwise"),
        pytest.param(a_load([GET, think(constant="20ms")], **QUICK), 10_000, id="never less than ten seconds"),
        pytest.param(a_load([GET], [GET, think(min="1s", max="1m")], **QUICK), 62_100, id="the slowest kind of user"),
        pytest.param(a_load([GET, think(median="2s", p95="20s")], **QUICK), 22_100, id="a log-normal one by its p95"),
        pytest.param(
            a_load([GET, {"repeat": {"times": 3, "flow": [GET, think(constant="15s")]}}], **QUICK),
            17_100,
            id="in a nested flow, the longest single one",
        ),
    ],
)
def test_how_long_users_may_be_quiet(load: Load, expected: int) -> None:
    """max(10 s, connect + request + the longest pause)."""
    assert expected == quiet_ms(load)
