"""Feeders in a document: what is refused, and where it says so."""

from typing import Any

import pytest

from trafficsim_api.document import load_spec
from trafficsim_api.errors import SpecError
from trafficsim_api.resource import TrafficSimulation

ROWS = [{"user": "ann", "pass": 1}, {"user": "bob", "pass": "2"}]


def a_simulation(request: dict[str, Any] | None = None, *, users: int = 2, **feeder: Any) -> TrafficSimulation:
    """Read a document with one feeder, and one request that looks it up."""
    full = {"name": "accounts", "from": {"inline": ROWS}} | feeder
    spec = {
        "target": {"url": "http://shop"},
        "users": users,
        "data": [full],
        "archetypes": [{"name": "a", "flow": [{"request": request or {"get": "/{{ data.accounts.user }}"}}]}],
    }
    document = {"apiVersion": "trafficsim.io/v1alpha1", "kind": "TrafficSimulation", "metadata": {"name": "shop"}}
    return load_spec(document | {"spec": spec})


def problems(error: SpecError) -> list[str]:
    """Return the problems as lines."""
    return [str(problem) for problem in error.problems]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson"])
def test_sources(suffix: str) -> None:
    """Inline rows, a key of a ConfigMap, a file; circular unless told otherwise."""
    (feeder,) = a_simulation().spec.data
    assert "circular" == feeder.mode
    assert (("ann", "1"), ("bob", "2")) == feeder.from_.table.rows
    (feeder,) = a_simulation(**{"from": {"configMap": {"name": "m", "key": f"a.{suffix}"}}}).spec.data
    assert feeder.from_.config_map is not None
    assert "path" in a_simulation(**{"from": {"path": f"rows/a.{suffix}"}}).spec.data[0].from_.model_fields_set


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param({"name": "a-b"}, "data[0].name: a name of letters", id="name"),
        pytest.param({"mode": "random"}, "data[0].mode: one of unique, shuffled, circular is needed", id="mode"),
        pytest.param(
            {"mode": "unique", "users": 3},
            "data[0]: unique needs a row for each user: 2 rows are too few for 3 users", id="too-few",
        ),
        pytest.param({"from": {}}, "data[0].from: exactly one of inline, configMap, path is needed", id="no-source"),
        pytest.param(
            {"from": {"inline": ROWS, "path": "a.csv"}}, "not inline and path together", id="two-sources"
        ),
        pytest.param({"from": {"path": "a.txt"}}, "data[0].from.path: a name that ends in .csv", id="suffix-of-path"),
        pytest.param(
            {"from": {"configMap": {"name": "m", "key": "a"}}}, "data[0].from.configMap.key: a name that ends in",
            id="suffix-of-key",
        ),
        pytest.param({"from": {"inline": []}}, "data[0].from.inline: at least 1 entry is needed", id="no-rows"),
        pytest.param(
            {"from": {"inline": [*ROWS, {"user": "cid"}]}}, "data[0].from.inline: row 3: the column pass is missing",
            id="column-missing",
        ),
        pytest.param(
            {"from": {"inline": [{"first name": "x"}]}}, "row 1: 'first name' is no column's name", id="column-name"
        ),
        pytest.param(
            {"from": {"inline": [{"user": "x" * 2000} for _ in range(40)]}},
            "data[0].from.inline: at most 64 KiB are allowed", id="large",
        ),
        pytest.param(
            {"request": {"get": "/", "headers": {"x": "{{data.users.name}}"}}},
            "archetypes[0].flow[0].request.headers: there is no data users", id="unknown-feeder",
        ),
        pytest.param(
            {"request": {"post": "/", "json": {"deep": ["{{data.accounts.mail}}"]}}},
            "archetypes[0].flow[0].request.json: data accounts has no column mail, only user, pass",
            id="unknown-column",
        ),
        pytest.param({"request": {"get": "/{{data.accounts}}"}}, "{{data.accounts}} is not a template", id="no-column"),
    ],
)  # fmt: skip
def test_refusals(change: dict[str, Any], problem: str) -> None:
    """Each names its field, in the user's words."""
    with pytest.raises(SpecError) as refused:
        a_simulation(**change)
    assert any(problem in line for line in problems(refused.value)), problems(refused.value)


def test_a_feeder_that_nobody_looks_up_is_no_mistake() -> None:
    """Flows come and go while one writes them."""
    assert a_simulation({"get": "/"}).spec.data


def test_setup_has_no_user() -> None:
    """What is done once per run takes nobody's row."""
    document = a_simulation().model_dump(mode="json", by_alias=True, exclude_none=True)
    document["spec"]["setup"] = {"flow": [{"request": {"get": "/{{data.accounts.user}}"}}]}
    with pytest.raises(SpecError, match=r"setup.flow\[0\].request.get: {{data.accounts.user}} belongs to a user"):
        load_spec(document)
