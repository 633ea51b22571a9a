"""What a runner does once: a task walks its flow against a real server, by itself and never again."""

import json
import signal

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from supervised.running import REAL, Running, a_load, until
from targets.scripted import Certificate, Route, Scripted
from trafficsim_api.protocol import Load, Task
from trafficsim_api.sealed import public_of, reader_of, unseal
from trafficsim_api.statistics import total

pytestmark = pytest.mark.timeout(60)

READER = reader_of(Ed25519PrivateKey.generate())
LOGIN = {
    "action": "login",
    "request": {"post": "/login", "json": {"key": "{{env.SECRET}}"}},
    "save": {"token": "json.token", "kind": "header.content-type"},
}


@pytest.fixture
def target(tmp_path):
    routes = [
        Route(path="/login", body='{"token":"t-1"}'),
        Route(path="/make", method="POST", statuses=(201,)),
        Route(path="/slow", delay_s=30.0),
        Route(path="/down", statuses=(503,)),
        Route(path="/by/*"),
    ]
    with Scripted(routes, lines=tmp_path / "lines") as server:
        yield server


@pytest.fixture
def runner(tmp_path):
    with Running(tmp_path / "runner", REAL, SECRET="s") as running:
        yield running


def a_task(*flow, kind="setup", timeout_ms=20_000, run=1):
    """Build a task that does *flow*."""
    fields = {"kind": kind, "id": f"{run}-{kind}", "flow": flow, "timeoutMs": timeout_ms, "reader": public_of(READER)}
    return Task.model_validate_json(json.dumps(fields))


def ended(runner, within_s=20):
    """Return the report of the task once it has ended."""
    found = until(lambda: runner.acknowledgement().task, lambda task: task and task.state != "running", within_s)
    assert found is not None
    return found


def test_a_task_is_walked_once_and_its_values_come_sealed(runner, target):
    """Requests, pauses, loops and choices in order; the values are for the operator's key alone."""
    task = a_task(
        LOGIN,
        {"think": {"constant": "10ms"}},
        {"repeat": {"times": 3, "flow": [{"request": {"post": "/make", "headers": {"x-user": "{{token}}"}}}]}},
        {"choose": [{"weight": 0, "flow": [{"request": {"get": "/down"}}]}, {"flow": [{"request": {"get": "/by/a"}}]}]},
    )
    runner.assign(0, load=a_load(target.url), task=task)
    report = ended(runner)
    assert ("done", "", 5, 0, 2) == (report.state, report.message, report.requests, report.failed, report.saved)
    assert {"token": "t-1", "kind": "application/json"} == unseal(report.sealed, READER, "sim-1/1-setup")
    assert "t-1" not in runner.call("/v1/acknowledgement")[1].decode()
    assert "t-1" not in (runner.directory / "log").read_text()
    runner.assign(0, load=a_load(target.url), task=task)
    assert 3 == target.log.count(path="/make", user="t-1")
    assert 5 == target.log.received - target.log.count(path="/")
    runner.assign(0, load=a_load(target.url))
    assert "" == runner.acknowledgement().task.sealed
    assert 0 == total(runner.statistics().layout, runner.statistics().total, "sent"), "no part of the numbers judged"


def test_users_begin_with_the_values(runner, target):
    """What setup saved stands in every user's requests."""
    flow = [{"request": {"get": "/by/{{token}}"}}, {"think": {"constant": "20ms"}}]
    fields = {"target": {"url": target.url}, "archetypes": [{"name": "a", "flow": flow}], "saved": {"token": "t 1/é"}}
    runner.assign(6, load=Load.model_validate_json(json.dumps(fields)))
    until(lambda: target.log.count(path="/by/t%201/%C3%A9"), lambda count: count >= 12)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"request": {"get": "/down"}}, "GET /down was answered 503, which was not expected"),
        (
            {"request": {"get": "/by/a"}, "expect": {"status": 201}},
            "GET /by/a was answered 200, which was not expected",
        ),
        ({"request": {"get": "/by/a"}, "save": {"x": "json.no"}}, "GET /by/a was answered 200 without json.no"),
        (
            {"request": {"get": "/by/a"}, "expect": {"body": "other"}},
            "GET /by/a was answered 200, not with the header, JSON or text expected",
        ),
        ({"request": {"get": "/by/{{env.NOT_THERE}}"}}, "GET /by/{{env.NOT_THERE}}: a template could not be filled"),
        ({"request": {"get": "/slow"}}, "it was not done within 1s; it was at GET /slow"),
    ],
)
def test_the_first_fault_ends_it(runner, target, step, message):
    """Nothing after it is sent, and the action and the cause are named."""
    task = a_task({"request": {"post": "/make"}}, step, {"request": {"get": "/by/end"}}, timeout_ms=1000)
    runner.assign(0, load=a_load(target.url), task=task)
    report = ended(runner)
    assert ("failed", message) == (report.state, report.message)
    assert "" == report.sealed
    assert (1, 0) == (target.log.count(path="/make"), target.log.count(path="/by/end"))


def test_a_refused_connection_is_named(runner):
    """The kind of failure is the users'."""
    runner.assign(0, load=a_load("http://127.1.0.8:1"), task=a_task({"action": "in", "request": {"get": "/"}}))
    report = ended(runner)
    assert ("failed", "in failed: network_refused", 0) == (report.state, report.message, report.requests)


def test_a_task_taken_back_is_broken_off(runner, target):
    """An assignment without it ends it at once; the users' are not hindered."""
    runner.assign(0, load=a_load(target.url), task=a_task({"request": {"get": "/slow"}}))
    until(lambda: target.log.count(path="/slow"))
    runner.assign(0, load=a_load(target.url), retire=True)
    report = ended(runner)
    assert ("failed", "broken off: the run was ended in its midst", 1) == (
        report.state,
        report.message,
        report.requests,
    )
    runner.assign(0, load=a_load(target.url), retire=True, task=a_task(LOGIN, kind="teardown"))
    until(lambda: runner.acknowledgement().task, lambda task: task.id == "1-teardown" and task.state == "done")


def test_a_restart_never_begins_it_again(runner, target):
    """Killed in its midst it has failed; the same assignment changes nothing."""
    task = a_task({"request": {"get": "/slow"}})
    runner.assign(0, load=a_load(target.url), task=task)
    until(lambda: target.log.count(path="/slow"))
    runner.signal(signal.SIGKILL)
    runner.ended()
    runner.start()
    report = ended(runner)
    assert ("failed", "the runner was started anew in its midst: what it had done is not known") == (
        report.state,
        report.message,
    )
    runner.assign(0, load=a_load(target.url), task=task)
    assert "failed" == ended(runner).state
    assert 1 == target.log.count(path="/slow")


def test_a_restart_keeps_what_was_done(runner, target):
    """The operator that has not heard the end yet still gets the values, and the next run does it anew."""
    runner.assign(0, load=a_load(target.url), task=a_task(LOGIN))
    ended(runner)
    runner.signal(signal.SIGKILL)
    runner.ended()
    runner.start()
    assert {"token": "t-1", "kind": "application/json"} == unseal(ended(runner).sealed, READER, "sim-1/1-setup")
    assert 1 == target.log.count(path="/login")
    runner.assign(0, load=a_load(target.url), run=2, task=a_task(LOGIN, run=2))
    until(lambda: runner.acknowledgement().task, lambda found: found.id == "2-setup" and found.state == "done")
    assert 2 == target.log.count(path="/login")


def test_a_target_with_a_name_and_tls(runner, tmp_path):
    """The name is looked up and verified as for users; without the certificate the kind of failure says so."""
    ca = trustme.CA()
    leaf = ca.issue_cert("localhost")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    certificate = Certificate(chain=tmp_path / "chain.pem", key=tmp_path / "key.pem")
    with Scripted([Route(path="/*")], tls=certificate) as server:
        load = a_load(f"https://localhost:{server.port}").model_copy(update={"ca": ca.cert_pem.bytes().decode()})
        runner.assign(0, load=load, task=a_task({"request": {"get": "/a"}}, {"request": {"get": "/b"}}))
        assert ("done", "", 2) == ((found := ended(runner)).state, found.message, found.requests)
        load = load.model_copy(update={"ca": trustme.CA().cert_pem.bytes().decode()})
        runner.assign(0, load=load, run=2, task=a_task({"action": "in", "request": {"get": "/a"}}, run=2))
        found = until(
            lambda: runner.acknowledgement().task, lambda task: task.id == "2-setup" and task.state != "running"
        )
        assert "in failed: network_tls" == found.message


def test_a_verb_that_policy_forbids_is_not_sent(runner, target):
    """The limits are the users'."""
    assignment = runner.assignment(0, load=a_load(target.url), task=a_task({"request": {"post": "/make"}}))
    limits = assignment.limits.model_copy(update={"verbs": ("get",)})
    runner.put(assignment.model_copy(update={"limits": limits}))
    assert "the policy does not allow POST" == ended(runner).message
    assert 0 == target.log.count(path="/make")
