"""Rows in a ConfigMap of a real API server: awaited, read, read again, and what the kind takes."""

import base64

import pytest

from cluster.operator_stand import a_simulation, client, install_kind, now_ms
from trafficsim_api.document import load_spec
from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.kubernetes import KubernetesFleet
from trafficsim_operator.kube import CONFIG_MAPS, SIMULATIONS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

FLOW = [{"request": {"get": "/{{data.accounts.user}}"}}]


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane):
    install_kind(control_plane)


class Clock:
    """A clock that is only moved."""

    def __init__(self):
        self.ms = now_ms()

    def __call__(self):
        return self.ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def api(control_plane):
    async with client(control_plane) as found:
        yield found


def a_document(namespace):
    data = [{"name": "accounts", "from": {"configMap": {"name": "shop", "key": "accounts.csv"}}}]
    return a_simulation(namespace, data=data, archetypes=[{"name": "a", "flow": FLOW}])


@pytest.fixture
async def look(api, namespace, clock):
    owner = Owner(namespace=namespace, name="shop", uid="7b0c3c1e-0000-4000-8000-000000000001")
    fleet = KubernetesFleet(api, image="i", keys={}, now_ms=clock)
    spec = load_spec(a_document(namespace)).spec

    async def rows():
        return (await fleet.rows(owner, spec))["accounts"]

    return rows


def a_map(namespace, **content):
    return {"metadata": {"name": "shop", "namespace": namespace}, **content}


async def test_it_is_awaited_read_and_read_again(api, kube, namespace, clock, look):
    """Absent, then without the key, then with rows; a change is seen ten seconds later at most."""
    found = await look()
    assert (True, f"configMap: there is no ConfigMap shop in namespace {namespace}") == (found.absent, found.problem)
    await api.create(CONFIG_MAPS, a_map(namespace, data={"other.csv": "a\n1\n"}))
    found = await look()
    assert (True, "configMap: ConfigMap shop has no key accounts.csv") == (found.absent, found.problem)
    await kube("patch", "configmap", "shop", "-p", '{"data": {"accounts.csv": "user\\nann\\nbob\\n"}}')
    first = await look()
    assert (("user",), 2, "") == (first.columns, first.count, first.problem)
    await kube("patch", "configmap", "shop", "-p", '{"data": {"accounts.csv": "user\\ncid\\n"}}')
    assert first == await look()
    clock.ms += 10_000
    second = await look()
    assert (1, True) == (second.count, second.digest != first.digest)
    clock.ms += 10_000
    await kube("delete", "configmap", "shop")
    assert (await look()).absent


async def test_what_is_wrong_in_it_is_said_with_its_line(api, namespace, look):
    """Also what came in as binary data, as `kubectl create configmap --from-file` makes of text that is not UTF-8."""
    packed = base64.b64encode(b"user\n\xff\n").decode()
    await api.create(CONFIG_MAPS, a_map(namespace, binaryData={"accounts.csv": packed}))
    found = await look()
    assert (False, "configMap: shop, key accounts.csv: UTF-8 text is needed: byte 5 is not") == (
        found.absent, found.problem,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param({"inline": [{"user": "ann"}, {"user": 7}]}, "created", id="inline"),
        pytest.param({"path": "/data/accounts.jsonl"}, "created", id="path"),
        pytest.param({"configMap": {"name": "shop", "key": "accounts.csv"}}, "created", id="config-map"),
        pytest.param({"path": "a.csv", "inline": [{"a": "b"}]}, "exactly one of inline, configMap, path", id="two"),
        pytest.param({}, "exactly one of inline, configMap, path", id="none"),
        pytest.param({"path": "accounts.txt"}, "spec.data[0].from.path", id="suffix"),
    ],
)
async def test_what_the_kind_takes(kube, namespace, source, words):
    """The API server says no to what it can see is wrong, before anybody looks."""
    document = _with(a_document(namespace), source)
    answer = await kube("create", "-f", "-", stdin=document, check=False)
    assert words in answer


async def test_two_feeders_of_one_name(kube, namespace):
    """Feeders are told apart by their names."""
    document = a_document(namespace)
    document["spec"]["data"] *= 2
    assert "Duplicate value" in await kube("create", "-f", "-", stdin=document, check=False)


async def test_rows_stay_as_they_are_written(api, namespace):
    """The API server keeps inline rows, whole numbers too."""
    rows = [{"user": "ann", "pin": "0123"}, {"user": "bob", "pin": 4}]
    made = await api.create(SIMULATIONS, _with(a_document(namespace), {"inline": rows}))
    assert rows == made["spec"]["data"][0]["from"]["inline"]
    assert (("0123", "ann"), ("4", "bob")) == load_spec(made).spec.data[0].from_.table.rows, "its keys come sorted"


def _with(document, source):
    document["spec"]["data"][0]["from"] = source
    return document
