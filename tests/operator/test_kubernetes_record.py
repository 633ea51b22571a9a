"""The record in a cluster, over an API server of a few lines: events and totals."""

import asyncio
import base64
import gzip
from datetime import datetime

import pytest

from trafficsim_api import names
from trafficsim_api.errors import Unavailable
from trafficsim_api.layout import Layout
from trafficsim_api.statistics import Answer, zeros
from trafficsim_operator.actions import Happening
from trafficsim_operator.kube import CONFIG_MAPS, Changed, Forbidden, Unacceptable
from trafficsim_operator.store import Document, NotKept
from trafficsim_operator.store.kubernetes import KubernetesRecord

DOCUMENT = Document(namespace="shop", name="web", uid="u1", generation=1, version="1", body={})
HAPPENINGS = tuple(Happening(reason=names.Event.PHASE, message=f"{number}") for number in range(5))


class FakeApi:
    """Holds one ConfigMap; takes *seconds* to create something, or never does."""

    def __init__(self, *, seconds=0.0, refuses=()):
        self.seconds, self.refuses = seconds, refuses
        self.created, self.binary = [], {}

    async def create(self, resource, body):
        if resource is CONFIG_MAPS:
            self.binary = dict(body["binaryData"])
            return
        await asyncio.sleep(self.seconds)
        if body["note"] in self.refuses:
            raise Unavailable("no")
        self.created.append(body)

    async def get(self, resource, namespace, name):
        return {"binaryData": dict(self.binary)} if self.binary else None

    async def merge(self, resource, namespace, name, patch, manager):
        merged = self.binary | patch["binaryData"]
        self.binary = {key: value for key, value in merged.items() if value is not None}


def a_record(api, told=None):
    heard = [] if told is None else told
    return KubernetesRecord(
        api, identity="test", now_ms=lambda: 1_700_000_000_000, told=lambda h, through: heard.append(through)
    )


def an_answer(runner="r", run=1):
    layout = Layout(actions=(("list", "read"),))
    return Answer(
        runner=runner, boot="b", run=run, layout=layout, sequence=1, first=1, total=zeros(layout),
        warmup=zeros(layout), extremes=(), windows=(),
    ).encode()  # fmt: skip


def packed(data):
    return base64.b64encode(gzip.compress(data)).decode()


@pytest.mark.looptime
async def test_events_are_told_at_the_same_time_and_shown_in_order():
    api = FakeApi(seconds=1.5)
    began = asyncio.get_running_loop().time()
    await a_record(api).tell(DOCUMENT, HAPPENINGS)
    assert 1.5 == asyncio.get_running_loop().time() - began
    shown = sorted(api.created, key=lambda event: datetime.fromisoformat(event["eventTime"]))
    assert [happening.message for happening in HAPPENINGS] == [event["note"] for event in shown]


@pytest.mark.looptime
async def test_events_hold_nothing_up():
    """However many there are, and however long the API server would take."""
    told = []
    began = asyncio.get_running_loop().time()
    await a_record(FakeApi(seconds=60), told).tell(DOCUMENT, HAPPENINGS)
    assert 2 == asyncio.get_running_loop().time() - began
    assert [False] * 5 == told


async def test_one_event_that_fails_keeps_no_other_back():
    told = []
    api = FakeApi(refuses=("1",))
    await a_record(api, told).tell(DOCUMENT, HAPPENINGS)
    assert (4, [False, True, True, True, True]) == (len(api.created), sorted(told))


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(packed(b"nonsense"), id="no answer"),
        pytest.param("bm90IGd6aXA=", id="not zipped"),
        pytest.param(packed(an_answer())[:60], id="cut"),
        pytest.param(base64.b64encode(gzip.compress(an_answer())[:12] + b"\xff" * 40).decode(), id="broken inside"),
        pytest.param("%", id="not base 64"),
        pytest.param(packed(bytes((32 << 20) + 1)), id="swollen"),
        pytest.param(packed(an_answer(run=0)), id="of an earlier run"),
    ],
)
async def test_totals_that_cannot_be_read_make_room(spoilt):
    """What somebody spoilt must not keep the account of a runner that ends from being kept."""
    api = FakeApi()
    record = a_record(api)
    await record.keep_totals(DOCUMENT, "runner-1", an_answer("runner-1"))
    api.binary["spoilt"] = spoilt
    await record.keep_totals(DOCUMENT, "runner-2", an_answer("runner-2"))
    assert {"runner-1": an_answer("runner-1"), "runner-2": an_answer("runner-2")} == await record.totals(DOCUMENT)
    assert {"runner-1", "runner-2"} == set(api.binary)


async def test_an_earlier_runs_total_takes_no_later_one_out():
    """An operator that was stopped for a whole run, and goes on: what was kept meanwhile stays."""
    record = a_record(FakeApi())
    await record.keep_totals(DOCUMENT, "runner-2", an_answer("runner-2", run=2))
    await record.keep_totals(DOCUMENT, "runner-1", an_answer("runner-1", run=1))
    assert an_answer("runner-2", run=2) == (await record.totals(DOCUMENT))["runner-2"]


class ContestedApi(FakeApi):
    """Somebody else makes the ConfigMap between our look and our write; or nobody may."""

    def __init__(self, error, theirs=None):
        super().__init__()
        self.error, self.theirs = error, theirs

    async def create(self, resource, body):
        self.binary = dict(self.theirs or {})
        raise self.error


async def test_of_two_that_end_at_once_both_are_kept():
    """Who comes second adds its own to the first one's."""
    api = ContestedApi(Changed("already exists"), {"runner-1": packed(an_answer("runner-1"))})
    record = a_record(api)
    await record.keep_totals(DOCUMENT, "runner-2", an_answer("runner-2"))
    assert {"runner-1", "runner-2"} == set(await record.totals(DOCUMENT))


@pytest.mark.parametrize("error", [Forbidden("a quota"), Unacceptable("a webhook")])
async def test_what_may_not_be_kept_is_told_from_what_failed_for_now(error):
    """Trying again soon would be in vain: whoever asked says so, and in which words."""
    with pytest.raises(NotKept, match=str(error)):
        await a_record(ContestedApi(error)).keep_totals(DOCUMENT, "runner-1", an_answer("runner-1"))
    with pytest.raises(Unavailable) as raised:
        await a_record(ContestedApi(Unavailable("500"))).keep_totals(DOCUMENT, "runner-1", an_answer("runner-1"))
    assert not isinstance(raised.value, NotKept)


async def test_totals_that_cannot_be_read_are_named():
    """What somebody spoilt is a share that is missing, and that is said of it by whoever reads it back."""
    api = FakeApi()
    record = a_record(api)
    await record.keep_totals(DOCUMENT, "runner-1", an_answer("runner-1"))
    api.binary["spoilt"] = "%"
    assert {"runner-1": an_answer("runner-1"), "spoilt": b""} == await record.totals(DOCUMENT)
