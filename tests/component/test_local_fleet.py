"""The local fleet: the contract of fleets, and what is true of processes only."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from component.fleet_contract import OTHER, REVISION, FleetContract, FleetStand, a_template, states
from trafficsim_api.document import load_spec
from trafficsim_api.policy import LOCAL_DEFAULT
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_operator.actions import EnsureRevision
from trafficsim_operator.fleet import Owner
from trafficsim_operator.fleet.local import LocalFleet
from trafficsim_operator.fleet.workspace import workspace
from trafficsim_operator.keys import keys_of
from trafficsim_operator.observed import RunnerState

pytestmark = pytest.mark.component

OWNER = Owner(namespace="local", name="shop", uid="7b0c3c1e-0000-4000-8000-000000000001")
SIGNING = keys_of(Ed25519PrivateKey.generate())
STRANGER = Owner(namespace="local", name="shop", uid="7b0c3c1e-0000-4000-8000-000000000002")

# A runner for tests of the fleet: ready while the file `unready` is not there, deaf to SIGTERM on request.
RUNNER = """
import http.server, os, pathlib, signal, sys
if os.environ.get("FAULT") == "start":
    print('{"message": "TRAFFICSIM_KEYS is not what it should be"}')
    raise SystemExit(3)
if os.environ.get("FAULT") == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
state = pathlib.Path(os.environ["TRAFFICSIM_STATE"])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = repr(sorted((k, v) for k, v in os.environ.items())).encode() if self.path == "/env" else b""
        self.send_response(503 if (state / "unready").exists() else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
host, port = os.environ["TRAFFICSIM_LISTEN"].split(":")
http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
"""
FAKE = "registry.example.com/fake:1"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def fake_runner(tmp_path: Path) -> Path:
    package = tmp_path / "fake" / "trafficsim_runner"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(textwrap.dedent(RUNNER))
    return package.parent


@pytest.fixture
async def local_fleet(tmp_path: Path, fake_runner: Path) -> AsyncIterator[LocalFleet]:
    keys = tmp_path / "keys"
    keys.mkdir()
    for kid, pem in SIGNING.public.items():
        (keys / f"{kid}.pem").write_text(pem)
    fleet = LocalFleet(
        directory=tmp_path / "run",
        keys=keys,
        environ=os.environ,
        now_ms=now_ms,
        images={FAKE: fake_runner},
        base=tmp_path,
    )
    yield fleet
    await fleet.aclose(at_once=True)


def pids(fleet: LocalFleet) -> dict[str, int]:
    return {
        process.name: process.process.pid for revision in fleet._revisions.values() for process in revision.processes
    }


@pytest.fixture
def fleet_stand(local_fleet: LocalFleet) -> FleetStand:
    async def kill(name: str) -> None:
        os.kill(pids(local_fleet)[name], signal.SIGKILL)

    return FleetStand(fleet=local_fleet, owner=OWNER, stranger=STRANGER, kill=kill, signer=SIGNING.signer)


class TestLocalFleet(FleetContract):
    """The real runner as processes."""


async def fake(stand: FleetStand, replicas: int, **env: str) -> None:
    variables = tuple({"name": name, "value": value} for name, value in env.items())
    await stand.ensure(replicas, template=a_template(image=FAKE, env=variables))


async def test_a_killed_runner_is_gone_and_its_cause_told(fleet_stand: FleetStand, local_fleet: LocalFleet) -> None:
    """Gone for good: the replacement has another name and another UID."""
    await fake(fleet_stand, 1)
    before = (await fleet_stand.ready(1)).runners[0]
    await fleet_stand.kill(before.name)
    after = await fleet_stand.until(lambda seen: seen is not None and before.name not in [r.name for r in seen.runners])
    assert f"{before.name} killed by SIGKILL" == after.runners[0].cause
    assert [f"{before.name} killed by SIGKILL"] == local_fleet.losses
    await fleet_stand.ready(1)


async def test_a_runner_that_cannot_start_is_tried_less_and_less_often(
    fleet_stand: FleetStand, local_fleet: LocalFleet
) -> None:
    await fake(fleet_stand, 1, FAULT="start")
    seen = await fleet_stand.until(lambda seen: seen is not None and bool(seen.problem) and not seen.runners)
    assert seen.problem.endswith("exited with 3: TRAFFICSIM_KEYS is not what it should be")
    assert 2 == len(local_fleet.losses)  # the second try came at once, the third comes after a second


async def test_ready_then_not(fleet_stand: FleetStand, local_fleet: LocalFleet, tmp_path: Path) -> None:
    """A runner that was ready and is no more is unready, not starting: it is drained or ill."""
    await fake(fleet_stand, 1)
    name = (await fleet_stand.ready(1)).runners[0].name
    (tmp_path / "run" / name / "state" / "unready").touch()
    await fleet_stand.until(lambda seen: states(seen) == [RunnerState.UNREADY])


async def test_a_deaf_runner_is_killed_when_patience_ends(
    fleet_stand: FleetStand, local_fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficsim_operator.fleet.local._DRAIN_S", 0.3)
    await fake(fleet_stand, 1, FAULT="deaf")
    pid = pids(local_fleet)[(await fleet_stand.ready(1)).runners[0].name]
    await fake(fleet_stand, 0, FAULT="deaf")
    assert [RunnerState.LEAVING] == states(await fleet_stand.seen())
    await fleet_stand.until(lambda seen: states(seen) == [])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_closing_ends_everything(fleet_stand: FleetStand, local_fleet: LocalFleet, tmp_path: Path) -> None:
    await fake(fleet_stand, 2)
    await fleet_stand.ready(2)
    running = pids(local_fleet)
    await local_fleet.aclose()
    for pid in running.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert [] == list((tmp_path / "run").iterdir())


async def test_an_unmapped_image_is_the_current_environment(
    fleet_stand: FleetStand, caplog: pytest.LogCaptureFixture
) -> None:
    action = EnsureRevision(
        revision=OTHER, template=a_template(image="registry.example.com/other:2"), replicas=0, reason="test"
    )
    await fleet_stand.fleet.apply(OWNER, action)
    assert "image is not mapped: the runners run in the current environment" in caplog.text


async def test_a_runner_gets_the_variables_of_its_template(fleet_stand: FleetStand, tmp_path: Path) -> None:
    await fake(fleet_stand, 1, COLOUR="blue")
    address = (await fleet_stand.ready(1)).runners[0].address
    assert address is not None
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /env HTTP/1.0\r\n\r\n")
    found = dict(eval((await reader.read()).partition(b"\r\n\r\n")[2]))
    writer.close()
    await writer.wait_closed()
    assert "blue" == found["COLOUR"]
    assert (OWNER.uid, REVISION) == (found["TRAFFICSIM_SIMULATION_UID"], found["TRAFFICSIM_REVISION"])
    assert ("500", str(256 * 2**20)) == (found["TRAFFICSIM_CPU"], found["TRAFFICSIM_MEMORY"])


PARENT = """
import asyncio, pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from component.test_local_fleet import *
async def main():
    fleet = LocalFleet(directory=pathlib.Path(sys.argv[2]), keys=pathlib.Path(sys.argv[2]), environ=os.environ,
                       now_ms=now_ms, images={FAKE: pathlib.Path(sys.argv[3])})
    await fleet.apply(OWNER, EnsureRevision(revision=REVISION, template=a_template(image=FAKE), replicas=1, reason=""))
    print(*pids(fleet).values(), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_runners_die_with_a_killed_parent(tmp_path: Path, fake_runner: Path) -> None:
    """Even SIGKILL of the parent leaves no load behind."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(Path(__file__).parents[1]), str(tmp_path / "run"), str(fake_runner),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
            await asyncio.sleep(0.02)


def a_spec(url: str, **tls: object) -> TrafficSimulationSpec:
    target = {"url": url, **({"tls": {"caFrom": tls}} if tls else {})}
    body = {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop"},
        "spec": {"target": target, "archetypes": [{"name": "one", "flow": [{"request": {"get": "/"}}]}]},
    }
    return load_spec(body).spec


async def test_the_targets_addresses(local_fleet: LocalFleet) -> None:
    facts, pem, problem = await local_fleet.look_up(OWNER, a_spec("http://127.0.0.1:8080"), LOCAL_DEFAULT)
    assert ("127.0.0.1", 8080, ("127.0.0.1",), "") == (facts.host, facts.port, facts.addresses, facts.problem)
    assert (None, "") == (pem, problem)


async def test_a_host_without_an_address(local_fleet: LocalFleet) -> None:
    facts, _, _ = await local_fleet.look_up(OWNER, a_spec("http://no-such-host.invalid"), LOCAL_DEFAULT)
    assert facts.problem.startswith("no-such-host.invalid ")
    assert () == facts.addresses


CERTIFICATE = trustme.CA().cert_pem.bytes().decode()
GARBAGE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


async def test_certificates_by_path_are_relative_to_the_file(local_fleet: LocalFleet, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    _, pem, problem = await local_fleet.look_up(OWNER, a_spec("https://127.0.0.1", path="ca.pem"), LOCAL_DEFAULT)
    assert (CERTIFICATE, "") == (pem, problem)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"configMap": "ca"}, "configMap: there is none outside a cluster"),
        ({"path": "missing.pem"}, "path: "),
        ({"path": "empty.pem"}, "holds no certificates in PEM form"),
        ({"path": "garbage.pem"}, "holds no certificates in PEM form"),
    ],
    ids=["a ConfigMap", "no file", "no certificates", "garbage"],
)
async def test_certificates_that_lead_nowhere(
    local_fleet: LocalFleet, tmp_path: Path, given: dict[str, str], problem: str
) -> None:
    (tmp_path / "empty.pem").touch()
    (tmp_path / "garbage.pem").write_text(GARBAGE)
    _, pem, found = await local_fleet.look_up(OWNER, a_spec("https://127.0.0.1", **given), LOCAL_DEFAULT)
    assert pem is None
    assert problem in found


def test_a_workspace_goes_with_its_run_and_the_dead_are_swept() -> None:
    with workspace() as first:
        abandoned = first.parent / "trafficsim-run-abandoned"
        abandoned.mkdir()
        (abandoned / "lock").touch()
        with workspace() as second:
            assert first.is_dir()
            assert second.is_dir()
            assert not abandoned.exists()
    assert not first.exists()
    assert not second.exists()
