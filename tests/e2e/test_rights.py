"""
Who may do what: an operator with a Role in one namespace, runners that obey nobody else, users without an operator.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from e2e import pods
from e2e.story_stand import (
    LABEL,
    OPERATOR,
    OPERATORS,
    Place,
    Release,
    Shop,
    Simulation,
    a_namespace,
    a_release,
    a_shop,
    a_simulation,
    eventually,
    verdict,
)
from trafficsim_api import __version__
from trafficsim_api.crd import crd
from trafficsim_api.protocol import PORT, Acknowledgement, Assignment, Envelope, sign
from trafficsim_operator.keys import SECRET
from trafficsim_operator.testing.node import Cluster

pytestmark = [pytest.mark.node, pytest.mark.stories, pytest.mark.timeout(400, func_only=True)]

USERS: Final = 20
# Without NetworkPolicies: a stranger is to reach runners here, and to be refused by themselves.
NAMESPACED: Final = {"rbac": {"scope": "namespaced"}, "networkPolicy": {"enabled": False}}
# Run in a pod of another namespace: puts each body to its runner, and prints the statuses of the answers.
PUT: Final = """\
import json, sys, urllib.error, urllib.request

statuses = []
for url, body in json.load(sys.stdin):
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, body.encode(), method="PUT"), timeout=5)
    except urllib.error.HTTPError as error:
        answer = error
    statuses.append(answer.status)
print(json.dumps(statuses))
"""


@pytest.fixture(scope="module")
def release(imaged: Cluster) -> Iterator[Release]:
    """The operator of one namespace; the kind was installed by whoever administers the cluster."""
    imaged.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=crd())
    with a_namespace(imaged) as namespace, a_release(imaged, namespace, NAMESPACED) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_forbidden(release: Release) -> Iterator[None]:
    """The Role is enough, whatever the operators do."""
    yield
    assert [] == forbidden(release)


@pytest.fixture(scope="module")
def shop(release: Release) -> Shop:
    return a_shop(release)


@pytest.fixture
def running(shop: Shop) -> Iterator[Simulation]:
    """Twenty users at work on two runners."""
    simulation = a_simulation(shop, users=USERS, duration="1h", scaling={"minRunners": 2, "maxRunners": 2})
    simulation.apply()
    simulation.phase("Running", 120)
    simulation.all_at_work(USERS, 60)
    yield simulation
    shop.kubectl("delete", "tsim", simulation.name, "--ignore-not-found")
    eventually(simulation.left, lambda left: not left, 90, "nothing is left")


@pytest.fixture
def stranger(imaged: Cluster) -> Iterator[Place]:
    """A namespace of somebody else's, with a pod that has Python."""
    with a_namespace(imaged) as namespace:
        place = Place(node=imaged, namespace=namespace)
        spec = pods.pod(image=f"trafficsim/demo:{__version__}", memory="128Mi")
        place.kubectl("apply", "-f", "-", stdin=pods.deployment("stranger", 1, spec))
        place.kubectl("rollout", "status", "deployment/stranger", "--timeout=90s")
        yield place


def forbidden(release: Release) -> list[str]:
    """Return whatever the operators were not allowed to do, by their logs and their metrics."""
    said = [line for log in release.logs().values() for line in log.splitlines()]
    counted = [line for page in release.metrics().values() for line in page.splitlines()]
    return [line for line in said if re.search(r"\b403\b|[Ff]orbidden", line)] + [
        line for line in counted if re.search(r'^trafficsim_api_calls_total\{.*status="403"', line)
    ]


def test_a_role_is_enough(release: Release, shop: Shop) -> None:
    """A run passes, the next one is deleted; no right was missing, and none over the whole cluster was given."""
    bound = release.node.kubectl("get", "clusterroles,clusterrolebindings", "-l", OPERATORS, "-o", "json")
    assert [] == bound["items"]
    account = f"--as=system:serviceaccount:{release.namespace}:{OPERATOR}"
    assert "no" == release.node.kubectl("auth", "can-i", "list", "tsim", "-A", account, check=False).split()[0]

    simulation = a_simulation(shop, users=USERS, duration="20s", thresholds=[{"rule": "error_rate < 1%"}])
    simulation.apply()
    finished = simulation.phase("Completed", 180)
    assert "Passed" == verdict(finished)[0], verdict(finished)
    simulation.apply(users=USERS // 2, duration="30m", runRequest="again")
    simulation.all_at_work(USERS // 2, 120)
    simulation.place.kubectl("delete", "tsim", simulation.name)
    eventually(simulation.left, lambda left: not left, 90, "nothing is left")
    assert any('status="200"' in page for page in release.metrics().values()), "calls are counted by their status"


def test_another_namespace_is_left_alone(release: Release, stranger: Place) -> None:
    """Its simulations are none of this operator's business."""
    simulation = a_simulation(stranger, "other")
    simulation.apply()
    here = a_simulation(release, "here", target={"url": "http://192.0.2.1"})
    here.apply()
    here.until(lambda status: bool(status.get("conditions")), 30, "ours is answered")
    assert {} == simulation.status()
    for one in (simulation, here):
        one.place.kubectl("delete", "tsim", one.name)


def test_runners_obey_nobody_else(release: Release, running: Simulation, stranger: Place) -> None:
    """
    Unsigned, signed by another key, and what the operator itself has signed, sent once more: to another runner, or when
    its time is over.
    """
    key = operators_key(release)
    [kid] = known_keys(running)
    before = acknowledged(running)
    (one, held), (other, _) = before.items()
    fresh = an_assignment(held, epoch=held.epoch + 1)
    attempts = [
        (other, "no assignment at all", 422),
        (one, forged(fresh, kid), 403),
        (one, sign(fresh, "unknown", key).model_dump_json(), 403),
        (other, sign(fresh, kid, key).model_dump_json(), 403),
        (one, sign(an_assignment(held, epoch=held.epoch - 1), kid, key).model_dump_json(), 409),
    ]
    urls = [[f"http://{address}:{PORT}/v1/assignment", body] for address, body, _ in attempts]
    said = stranger.kubectl(
        "exec", "-i", "deployment/stranger", "--", "/opt/trafficsim/bin/python", "-P", "-c", PUT, stdin=json.dumps(urls)
    )
    assert [status for *_, status in attempts] == json.loads(said)
    assert {a: (ack.places, ack.users) for a, ack in before.items()} == {
        a: (ack.places, ack.users) for a, ack in acknowledged(running).items()
    }
    assert USERS == running.at_work()


def operators_key(release: Release) -> Ed25519PrivateKey:
    """Return the key that the operator signs with, as only an administrator may read it."""
    secret = release.kubectl("get", "secret", SECRET, "-o", "json")
    key = load_pem_private_key(base64.b64decode(secret["data"]["key.pem"]), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def known_keys(simulation: Simulation) -> list[str]:
    """Return the names of the keys that the runners trust."""
    maps = simulation.place.listed("configmaps", f"{LABEL}={simulation.name}")
    return [entry.removesuffix(".pem") for found in maps for entry in found["data"] if entry.endswith(".pem")]


def acknowledged(simulation: Simulation) -> dict[str, Acknowledgement]:
    """Return what each runner holds, by address."""
    found = {}
    for pod in simulation.pods():
        address = pod["status"]["podIP"]
        answer = simulation.place.ask(address, PORT, "/v1/acknowledgement")
        found[address] = Acknowledgement.model_validate_json(answer)
    return found


def an_assignment(held: Acknowledgement, *, epoch: int) -> Assignment:
    """Return an assignment that would send all users of the runner that holds *held* home."""
    load: dict[str, Any] = {
        "target": {"url": f"http://shop:{PORT}"},
        "archetypes": [{"name": "visitor", "flow": [{"request": {"get": "/"}}]}],
    }
    document = {
        "simulation": held.simulation, "run": held.run, "runner": held.runner, "revision": held.revision,
        "epoch": epoch, "users": held.users, "places": [], "processes": held.processes, "start_at_ms": held.start_at_ms,
        "warm_up_ms": 0, "end_ms": held.clock_ms + 3_600_000, "load": load, "limits": {"targets": []},
    }  # fmt: skip
    return Assignment.model_validate_json(json.dumps(document))


def forged(assignment: Assignment, kid: str) -> str:
    """Return it as signed by a key of somebody else's, under the name of the operator's."""
    envelope: Envelope = sign(assignment, kid, Ed25519PrivateKey.generate())
    return envelope.model_dump_json()


def test_the_load_can_be_stopped_without_an_operator(release: Release, shop: Shop, running: Simulation) -> None:
    """Deleting the Deployments is enough: their pods drain and go, and nobody makes new ones."""
    release.kubectl("scale", f"deployment/{OPERATOR}", "--replicas=0")
    eventually(lambda: release.listed("pods", OPERATORS), lambda found: not found, 60, "no operator is there")
    try:
        assert USERS == running.at_work(), "they go on by themselves"
        running.place.kubectl("delete", "deploy", "-l", f"{LABEL}={running.name}")
        eventually(running.pods, lambda found: not found, 60, "no runner is there")
        eventually(shop.connected, lambda found: not found, 60, "nobody is connected")
        assert shop.quiet_for(3)
        assert 0 == shop.account()["abandoned"], "they drained"
    finally:
        release.kubectl("scale", f"deployment/{OPERATOR}", "--replicas=2")
        release.kubectl("rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s")
