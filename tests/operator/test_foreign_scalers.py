"""Who else scales, by what the API server keeps of an object's writers."""

from typing import Any

import pytest

from trafficsim_operator.fleet.scalers import foreign_scaler
from trafficsim_operator.observed import ForeignScaler

WROTE_MS = 1_700_000_000_000


def an_entry(manager: str, *, subresource: str = "scale", field: str = "replicas", **more: Any) -> dict[str, Any]:
    """Build an entry as an autoscaler's write through `scale` leaves it."""
    entry = {"manager": manager, "subresource": subresource, "fieldsV1": {"f:spec": {f"f:{field}": {}}}}
    return entry | {"operation": "Update", "time": "2023-11-14T22:13:20Z"} | more


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        pytest.param([an_entry("kube-controller-manager")], "kube-controller-manager", id="a HorizontalPodAutoscaler"),
        pytest.param([an_entry("keda", field="users")], None, id="of another field"),
        pytest.param([an_entry("kubectl")], None, id="kubectl scale, a person"),
        pytest.param([an_entry("trafficsim-scale")], None, id="we"),
        pytest.param([an_entry("ci", subresource="")], None, id="an edit of the object: drift, put right"),
        pytest.param(
            [an_entry("old", time="2023-11-14T22:13:19Z"), an_entry("new")], "new", id="the newest of several"
        ),
        pytest.param([{"manager": "x", "subresource": "scale", "fieldsV1": None}, 5], None, id="what nobody writes"),
        pytest.param(5, None, id="no list"),
        pytest.param(None, None, id="nothing"),
    ],
)
def test_who_scales(entries: Any, name: str | None) -> None:
    """Who wrote through `scale`, neither we nor a person."""
    found = foreign_scaler({"metadata": {"managedFields": entries}}, "replicas")
    assert name == (found.name if found is not None else None)


def test_when_it_wrote() -> None:
    """To the second, as the API server keeps it; 0 where it does not say."""
    for time, expected in (("2023-11-14T22:13:20Z", WROTE_MS), ("soon", 0), (None, 0)):
        at = an_entry("hpa", time=time)
        found = foreign_scaler({"metadata": {"managedFields": [at]}}, "replicas")
        assert ForeignScaler(name="hpa", wrote_ms=expected) == found
    assert foreign_scaler({}, "replicas") is None
