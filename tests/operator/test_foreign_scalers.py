"""Who else scales, by what the API server keeps of an object's writers."""

from typing import Any

import pytest

from trafficsim_operator.fleet.scalers import foreign_scaler


def an_entry(manager: str, *, subresource: str = "scale", field: str = "replicas") -> dict[str, Any]:
    """Build an entry as an autoscaler's write through `scale` leaves it."""
    entry: dict[str, Any] = {"manager": manager, "subresource": subresource, "fieldsV1": {"f:spec": {f"f:{field}": {}}}}
    return entry | {"operation": "Update"}


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        pytest.param([an_entry("kube-controller-manager")], "kube-controller-manager", id="a HorizontalPodAutoscaler"),
        pytest.param([an_entry("keda", field="users")], "", id="of another field"),
        pytest.param([an_entry("kubectl")], "", id="kubectl scale, a person"),
        pytest.param([an_entry("trafficsim-scale")], "", id="we"),
        pytest.param([an_entry("ci", subresource="")], "", id="an edit of the object: drift, put right"),
        pytest.param([an_entry("keda"), an_entry("hpa")], "hpa, keda", id="two of them"),
        pytest.param([{"manager": "x", "subresource": "scale", "fieldsV1": None}, 5], "", id="what nobody writes"),
        pytest.param(5, "", id="no list"),
        pytest.param(None, "", id="nothing"),
    ],
)
def test_who_scales(entries: Any, name: str) -> None:
    """Who wrote through `scale`, neither we nor a person."""
    assert name == foreign_scaler({"metadata": {"managedFields": entries}}, "replicas")
    assert foreign_scaler({}, "replicas") == ""
