"""The adapter to the API server: what it sends, what it makes of answers, and the record over it."""

import asyncio
import hashlib

import pytest

from cluster.operator_stand import a_simulation, client, install_kind, now_ms, until
from trafficsim_api import names
from trafficsim_api.crd import crd
from trafficsim_api.errors import Unavailable
from trafficsim_api.layout import Layout
from trafficsim_api.phases import Phase
from trafficsim_api.statistics import Answer, zeros
from trafficsim_api.status import Status, Users
from trafficsim_operator import keys
from trafficsim_operator.actions import Happening
from trafficsim_operator.kube import (
    CONFIG_MAPS,
    EVENTS,
    SECRETS,
    SIMULATIONS,
    Changed,
    Forbidden,
    Gone,
    KubeApi,
    Unacceptable,
    default_namespace,
    load_configuration,
)
from trafficsim_operator.store import Conflict, NotKept
from trafficsim_operator.store.kubernetes import KubernetesRecord

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane):
    install_kind(control_plane)


@pytest.fixture
async def api(control_plane):
    async with client(control_plane) as found:
        yield found


@pytest.fixture
def record(api):
    return KubernetesRecord(api, identity="test", now_ms=now_ms)


def a_map(namespace, name="things", **data):
    return {"metadata": {"name": name, "namespace": namespace, "labels": {"app": "test"}}, "data": data}


async def test_errors_are_told_by_kind(api, control_plane, namespace):
    await api.create(CONFIG_MAPS, a_map(namespace))
    with pytest.raises(Changed, match="already exists"):
        await api.create(CONFIG_MAPS, a_map(namespace))
    with pytest.raises(Gone, match="nowhere"):
        await api.create(CONFIG_MAPS, a_map("nowhere"))
    with pytest.raises(Unacceptable, match="Invalid value"):
        await api.create(CONFIG_MAPS, a_map(namespace, "Not A Name"))
    nobody = await load_configuration(str(control_plane.user("nobody")))
    async with KubeApi(nobody) as other:
        with pytest.raises(Forbidden, match='User "nobody" cannot list'):
            await other.list(CONFIG_MAPS, namespace)


async def test_every_character_can_be_applied(api, namespace):
    """Of an image's name, say, which the status repeats: YAML reads some otherwise than JSON, or not at all."""
    text = '\U0001f600 a\nb\r\x85c\u2028d\u2029 \x00\x1b\x7f\x9f \ufeff\ufffe\uffff "q" \\ud83d'
    await api.apply(CONFIG_MAPS, a_map(namespace, text=text, half="a\ud83db"), "trafficsim")
    assert {"text": text, "half": "a\ufffdb"} == (await api.get(CONFIG_MAPS, namespace, "things"))["data"]


async def test_an_api_server_that_is_away_is_told_as_such(control_plane, namespace):
    configuration = await load_configuration(str(control_plane.kubeconfig))
    configuration.host = "https://127.0.0.1:9"
    heard = []
    async with KubeApi(configuration, lambda *call: heard.append(call[:3])) as other:
        with pytest.raises(Unavailable, match="the API server does not answer"):
            await other.get(CONFIG_MAPS, namespace, "things")
    assert [("GET", "configmaps", 0)] == heard


async def test_no_way_to_a_cluster_is_told(tmp_path):
    with pytest.raises(Unavailable, match="no way to a cluster"):
        await load_configuration(str(tmp_path / "missing"))


def test_the_namespace_of_the_context(control_plane):
    assert "default" == default_namespace(str(control_plane.kubeconfig))


async def test_the_first_operator_makes_the_key_and_the_others_take_it(api, namespace):
    """Three at once end with one key, whose public half is what runners get."""
    found = await asyncio.gather(*(keys.load_or_create(api, namespace) for _ in range(3)))
    [kid] = {entry.signer.kid for entry in found}
    assert [{kid}] * 3 == [set(entry.public) for entry in found]
    assert kid == (await keys.load_or_create(api, namespace)).signer.kid
    secret = await api.get(SECRETS, namespace, keys.SECRET)
    await api.merge(SECRETS, namespace, keys.SECRET, {"data": {"key.pem": "bm90aGluZw=="}}, "somebody")
    with pytest.raises(Unavailable, match="holds no readable"):
        await keys.load_or_create(api, namespace)
    assert "Opaque" == secret["type"]


async def test_status_is_written_whole_and_only_onto_what_was_read(api, record, namespace):
    """Two that read the same version: one writes, the other is told."""
    await api.create(SIMULATIONS, a_simulation(namespace))
    document = await record.read(namespace, "shop")
    assert (namespace, "shop", 1, False) == (
        document.namespace, document.name, document.generation, document.deleted,
    )  # fmt: skip
    await record.write(document, Status(phase=Phase.RUNNING, users=Users(active=7), message="on its way"))
    with pytest.raises(Conflict):
        await record.write(document, Status(phase=Phase.FAILED))
    again = await record.read(namespace, "shop")
    assert ("Running", 7) == (again.body["status"]["phase"], again.body["status"]["users"]["active"])
    await record.write(again, Status(phase=Phase.DRAINING))
    last = await record.read(namespace, "shop")
    assert ("Draining", "") == (last.body["status"]["phase"], last.body["status"]["message"])
    assert 1 == last.generation


async def test_the_spec_and_its_metadata_stay_the_users(api, record, namespace):
    """Writing status touches nothing that `kubectl diff` would show."""
    await api.create(SIMULATIONS, a_simulation(namespace))
    before = await record.read(namespace, "shop")
    await record.write(before, Status(phase=Phase.RUNNING))
    after = await record.read(namespace, "shop")
    assert before.body["spec"] == after.body["spec"]
    assert "annotations" not in after.body["metadata"]
    assert "finalizers" not in after.body["metadata"]


async def test_a_resource_made_anew_is_not_written_for_the_old_one(api, record, namespace):
    await api.create(SIMULATIONS, a_simulation(namespace))
    old = await record.read(namespace, "shop")
    await api.delete(SIMULATIONS, namespace, "shop", old.uid)
    assert await record.read(namespace, "shop") is None
    with pytest.raises(Conflict):
        await record.write(old, Status())
    await api.create(SIMULATIONS, a_simulation(namespace))
    with pytest.raises(Conflict):
        await record.write(old, Status())


async def test_events_are_the_simulations(api, record, namespace):
    await api.create(SIMULATIONS, a_simulation(namespace))
    document = await record.read(namespace, "shop")
    happening = Happening(reason=names.Event.REFUSED, message="x" * 3000, warning=True)
    await record.tell(document, (happening,))
    [event] = await api.list(EVENTS, namespace)
    assert (document.uid, "Refused", "Warning", 1000) == (
        event["regarding"]["uid"], event["reason"], event["type"], len(event["note"]),
    )  # fmt: skip


async def test_an_event_that_cannot_be_published_is_counted_not_raised(api, namespace):
    told = []
    record = KubernetesRecord(api, identity="test", now_ms=now_ms, told=lambda *call: told.append(call[1]))
    await api.create(SIMULATIONS, a_simulation(namespace))
    document = await record.read(namespace, "shop")
    record._identity = ""
    await record.tell(document, (Happening(reason=names.Event.PHASE, message="x"),))
    assert [False] == told


def an_answer(runner: str, run: int = 1, gauges: int = 0) -> bytes:
    """Return the last answer of a runner, the longer the more gauges it has."""
    layout = Layout(actions=(("list", "read"),))
    noise = {hashlib.sha256(str(number).encode()).hexdigest(): number for number in range(gauges)}
    return Answer(
        runner=runner, boot="b", run=run, layout=layout, sequence=1, first=1, total=zeros(layout),
        warmup=zeros(layout), extremes=(), windows=(), gauges=noise,
    ).encode()  # fmt: skip


async def a_document(api, record, namespace):
    await api.create(SIMULATIONS, a_simulation(namespace))
    return await record.read(namespace, "shop")


async def test_only_who_may_writes(api, namespace):
    """A guarded client reads whenever; what it may not write is not even sent."""
    may = [False]
    guarded = api.guarded(lambda: may[0])
    made = await api.create(CONFIG_MAPS, a_map(namespace, a="1"))
    uid = made["metadata"]["uid"]
    for write in (
        guarded.apply(CONFIG_MAPS, a_map(namespace, a="2"), "trafficsim"),
        guarded.create(CONFIG_MAPS, a_map(namespace, name="more")),
        guarded.merge(CONFIG_MAPS, namespace, "things", {"data": {"a": "2"}}, "trafficsim"),
        guarded.replace(CONFIG_MAPS, made, "trafficsim"),
        guarded.delete(CONFIG_MAPS, namespace, "things", uid),
    ):
        with pytest.raises(Unavailable, match="not sent, this operator does not hold the Lease"):
            await write
    assert made == await guarded.get(CONFIG_MAPS, namespace, "things")
    assert await guarded.list(CONFIG_MAPS, namespace, {"app": "test"})
    may[0] = True
    await guarded.delete(CONFIG_MAPS, namespace, "things", uid)
    assert await api.get(CONFIG_MAPS, namespace, "things") is None


async def test_what_has_changed_is_not_deleted_by_its_version(api, namespace):
    made = await api.create(CONFIG_MAPS, a_map(namespace, a="1"))
    now = await api.merge(CONFIG_MAPS, namespace, "things", {"data": {"a": "2"}}, "somebody")
    for meta, is_left in ((made["metadata"], True), (now["metadata"], False)):
        await api.delete(CONFIG_MAPS, namespace, "things", meta["uid"], meta["resourceVersion"])
        assert is_left is (await api.get(CONFIG_MAPS, namespace, "things") is not None)


async def test_totals_of_ended_runners_are_kept_beside_the_resource(api, record, namespace):
    """Kept one by one or all at once, they are read back as they were, and go with the resource."""
    document = await a_document(api, record, namespace)
    assert {} == await record.totals(document)
    answers = {f"runner-{number}": an_answer(f"runner-{number}") for number in range(3)}
    await record.keep_totals(document, "runner-0", answers["runner-0"])
    await asyncio.gather(*(record.keep_totals(document, name, answers[name]) for name in ("runner-1", "runner-2")))
    assert answers == await record.totals(document)
    found = await api.get(CONFIG_MAPS, namespace, names.totals_name("shop", document.uid))
    assert [document.uid] == [owner["uid"] for owner in found["metadata"]["ownerReferences"]]


async def test_totals_have_a_limit(api, record, namespace, monkeypatch):
    """What does not fit is refused; what an earlier run left makes room."""
    monkeypatch.setattr("trafficsim_operator.store.kubernetes._MAX_TOTALS", 4000)
    document = await a_document(api, record, namespace)
    await record.keep_totals(document, "runner-1", an_answer("runner-1", gauges=50))
    with pytest.raises(NotKept, match="no room"):
        await record.keep_totals(document, "runner-2", an_answer("runner-2", gauges=50))
    assert {"runner-1"} == set(await record.totals(document))
    await record.keep_totals(document, "runner-3", an_answer("runner-3", run=2, gauges=50))
    assert {"runner-3"} == set(await record.totals(document))


async def test_a_crd_that_is_older_than_the_operator(api, control_plane, namespace, record, caplog):
    """Fields the cluster does not know are left out and said; everything else is written."""
    older = crd()
    [version] = older["spec"]["versions"]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    del status["strategy"], status["users"]["properties"]["placed"]
    document = await a_document(api, record, namespace)
    try:
        await asyncio.to_thread(install_kind, control_plane, older)
        written = Status(phase=Phase.RUNNING, strategy="x", users=Users(active=7, placed=7))

        async def write():
            await record.write(await record.read(namespace, "shop"), written)
            found = await record.read(namespace, "shop")
            return found.body["status"]

        found = await until(write, lambda status: "strategy" not in status, 20, "the older schema is in force")
        assert ("Running", 7) == (found["phase"], found["users"]["active"])
        assert "placed" not in found["users"]
        assert "the CRD is older than the operator" in caplog.text
    finally:
        await asyncio.to_thread(install_kind, control_plane)
    assert document.uid


async def test_what_setup_saved_is_kept_beside_the_resource(api, record, namespace):
    """The newest run's, as it was sealed; it goes with the resource."""
    document = await a_document(api, record, namespace)
    assert await record.saved(document, "1-setup") is None
    await record.keep_saved(document, "1-setup", "c2VhbGVk")
    await record.keep_saved(document, "1-setup", "c2VhbGVk")
    assert "c2VhbGVk" == await record.saved(document, "1-setup")
    await record.keep_saved(document, "2-setup", "b3RoZXI=")
    assert (None, "b3RoZXI=") == (await record.saved(document, "1-setup"), await record.saved(document, "2-setup"))
    found = await api.get(CONFIG_MAPS, namespace, names.saved_name("shop", document.uid))
    assert [document.uid] == [owner["uid"] for owner in found["metadata"]["ownerReferences"]]
