"""When the operator calls itself unhealthy, and what its page says."""

import asyncio

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trafficsim_api import names
from trafficsim_api.errors import Unavailable
from trafficsim_api.phases import Phase
from trafficsim_api.status import Status, Users
from trafficsim_operator.actions import Happening
from trafficsim_operator.fleet.runners import Signer
from trafficsim_operator.handlers import Key, Watched
from trafficsim_operator.main import _Parts, _resync
from trafficsim_operator.observability import Health, Metrics, ObservedRunners, serve
from trafficsim_operator.queue import KeyedQueue
from trafficsim_operator.settings import Settings
from trafficsim_operator.store import Document
from trafficsim_operator.testing.ports import free_ports

KEY = Key("shop", "web")
BODY = {"metadata": {"uid": "u1", "generation": 2}}

NAMED = {"metadata": BODY["metadata"] | {"namespace": "shop", "name": "web"}}


async def nothing(key):
    return None


def a_health(queue=None, watched=None, listed=True):
    return Health(
        queue=queue or KeyedQueue(work=nothing, draw=lambda: 0.0),
        watched=watched or Watched(),
        stuck_s=120,
        behind_s=150,
        listed=lambda: listed,
    )


async def test_all_is_well():
    assert "" == a_health().problem()


@pytest.mark.looptime
async def test_a_dead_watch_is_noticed():
    """The API server answers and has what the watch has not delivered, for longer than two lists."""
    watched = Watched()
    now = asyncio.get_running_loop().time()
    watched.compare({KEY: BODY}, now)
    await asyncio.sleep(149)
    assert "" == a_health(watched=watched).problem()
    await asyncio.sleep(2)
    assert "the watch has been missing something for 151s" == a_health(watched=watched).problem()
    watched.changed(KEY, BODY)
    assert "" == a_health(watched=watched).problem()


@pytest.mark.looptime
async def test_an_api_server_that_is_away_makes_nobody_unhealthy():
    """What the watch missed just before is counted anew once there is a list again."""
    watched = Watched()
    now = asyncio.get_running_loop().time
    watched.compare({KEY: BODY}, now())
    await asyncio.sleep(60)
    watched.unlisted()
    await asyncio.sleep(600)
    assert "" == a_health(watched=watched).problem()
    watched.compare({KEY: BODY}, now())
    await asyncio.sleep(149)
    assert "" == a_health(watched=watched).problem()
    await asyncio.sleep(2)
    assert "the watch has been missing something for 151s" == a_health(watched=watched).problem()


@pytest.mark.looptime
async def test_a_resync_without_a_list_forgets_what_the_watch_missed():
    """A change is seen by the list and not by the watch; then both are away, for an hour."""
    watched, metrics, answers = Watched(), Metrics(), [(NAMED,)]

    class Api:
        async def list(self, *_):
            if not answers:
                raise Unavailable("away")
            return answers.pop()

    parts = _Parts(
        settings=Settings.from_env({"TRAFFICSIM_RESYNC": "60"}),
        api=Api(),
        world=None,
        runners=ObservedRunners(signer=Signer(kid="k", key=Ed25519PrivateKey.generate())),
        queue=KeyedQueue(work=nothing, draw=lambda: 0.0),
        watched=watched,
        metrics=metrics,
    )
    task = asyncio.create_task(_resync(parts))
    await asyncio.sleep(1)
    assert [KEY] == list(watched.behind_since)
    await asyncio.sleep(3600)
    assert "" == a_health(watched=watched).problem()
    assert b'trafficsim_simulations{phase="Pending"} 1.0' in metrics.text()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.looptime
async def test_a_look_that_hangs_is_noticed():
    async def hang(key):
        await asyncio.sleep(10_000)

    queue = KeyedQueue(work=hang, draw=lambda: 0.0, limit_s=100_000)
    queue.add(KEY)
    task = asyncio.create_task(queue.serve(1))
    await asyncio.sleep(121)
    assert "a look has been going on for 121s" == a_health(queue=queue).problem()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
async def page():
    """Return what stands at a path of a served operator, with its metrics and health to be changed."""
    metrics, watched = Metrics(), Watched()
    runners = ObservedRunners(signer=Signer(kid="k", key=Ed25519PrivateKey.generate()))
    [port] = free_ports(1)
    server = await serve(metrics, a_health(watched=watched), runners, "127.0.0.1", port)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        yield metrics, watched, runners, http
    await runners.aclose()
    await server.cleanup()


async def test_health_and_readiness_are_told(page):
    _, watched, _, http = page
    assert (200, 200) == ((await http.get("/healthz")).status_code, (await http.get("/readyz")).status_code)
    watched.compare({KEY: BODY}, asyncio.get_running_loop().time() - 1000)
    answer = await http.get("/healthz")
    assert 500 == answer.status_code
    assert "missing something" in answer.text


async def test_what_is_counted_stands_on_the_page(page):
    metrics, _, _, http = page
    document = Document(namespace="shop", name="web", uid="u1", generation=1, version="1", body={})
    metrics.wrote(document, Status(phase=Phase.RUNNING, users=Users(active=1200)))
    metrics.looked(KEY, 0.1, None)
    metrics.looked(KEY, 0.1, Unavailable("away"))
    metrics.looked(KEY, 0.1, RuntimeError("bug"))
    metrics.called("GET", "pods", 200, 0.01)
    metrics.called("GET", "pods", 0, 3.0)
    metrics.told(Happening(reason=names.Event.FINISHED, message=""), True)
    metrics.renewed(True)
    metrics.renewed(False)
    text = (await http.get("/metrics")).text
    for line in (
        'trafficsim_reconciles_total{result="done"} 1.0',
        'trafficsim_reconciles_total{result="unavailable"} 1.0',
        'trafficsim_reconciles_total{result="error"} 1.0',
        'trafficsim_api_calls_total{method="GET",resource="pods",status="none"} 1.0',
        'trafficsim_events_total{reason="Finished",result="published"} 1.0',
        'trafficsim_lease_renewals_total{result="renewed"} 1.0',
        'trafficsim_lease_renewals_total{result="failed"} 1.0',
        "trafficsim_operator_leader 1.0",
        'trafficsim_simulations{phase="Running"} 1.0',
        "trafficsim_users_active 1200.0",
    ):
        assert line in text
    metrics.listed({})
    assert "trafficsim_users_active 0.0" in (await http.get("/metrics")).text


async def test_after_a_restart_the_list_tells_the_phases(page):
    """A simulation that nothing changes on is written to rarely; what this process wrote is newer than the list."""
    metrics, _, _, http = page
    document = Document(namespace="shop", name="web", uid="u1", generation=1, version="1", body={})
    metrics.wrote(document, Status(phase=Phase.RUNNING, users=Users(active=1000)))
    metrics.listed(
        {
            KEY: BODY | {"status": {"phase": "Starting", "users": {"active": 1}}},
            Key("shop", "old"): BODY | {"status": {"phase": "Running", "users": {"active": 30}}},
            Key("shop", "new"): BODY,
            Key("shop", "spoilt"): BODY | {"status": {"phase": "Bogus"}},
        }
    )
    text = (await http.get("/metrics")).text
    for line in (
        'trafficsim_simulations{phase="Running"} 2.0',
        'trafficsim_simulations{phase="Pending"} 2.0',
        "trafficsim_users_active 1030.0",
    ):
        assert line in text


async def test_silent_runners_are_counted_until_they_are_gone(page):
    _, _, runners, http = page
    with pytest.raises(Unavailable):
        await runners.acknowledgement("127.0.0.1:9")
    assert "trafficsim_runners_unreachable 1.0" in (await http.get("/metrics")).text
    await runners.forget_idle(60)
    assert {"127.0.0.1:9"} == runners.silent
    await runners.forget_idle(-1)
    assert "trafficsim_runners_unreachable 0.0" in (await http.get("/metrics")).text
    assert {} == runners.asked
