"""The operator's process: how it begins, what it says about itself, how it ends, with no more rights than it states."""

import asyncio
import json
import re
import subprocess
import sys

import pytest

from cluster.operator_process import an_operator
from cluster.operator_stand import a_simulation, client, install_kind, until
from trafficsim_operator.kube import LEASES, SIMULATIONS, Resource

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", autouse=True)
def kind(control_plane):
    install_kind(control_plane)


async def status_of(api, namespace, name="shop"):
    found = await api.get(SIMULATIONS, namespace, name)
    return (found or {}).get("status") or {}


def refused(status):
    return any(c["type"] == "Accepted" and c["status"] == "False" for c in status.get("conditions", ()))


@pytest.mark.parametrize("whole_cluster", [False, True], ids=["a Role is enough for namespaces", "the whole cluster"])
async def test_it_serves_with_the_rights_it_states(control_plane, namespace, tmp_path, whole_cluster):
    """A simulation is answered, the page tells about it, and SIGTERM is a clean end; nothing was forbidden."""
    async with (
        client(control_plane) as api,
        an_operator(
            control_plane, namespace, tmp_path, whole_cluster=whole_cluster, lease="trafficsim-operator"
        ) as operator,
    ):
        await operator.start()
        await api.create(SIMULATIONS, a_simulation(namespace, users=600))
        status = await until(lambda: status_of(api, namespace), refused, 20, "it is refused")
        message = next(c["message"] for c in status["conditions"] if c["type"] == "Accepted")
        assert "users" in message
        assert "maxUsers" in message, "the refusal prints the policy that would allow it"
        assert 200 == await operator.status("/healthz")
        page = await operator.text("/metrics")
        for line in (
            'trafficsim_reconciles_total{result="done"}',
            'trafficsim_simulations{phase="Failed"}',
            'trafficsim_events_total{reason="Refused",result="published"}',
            "trafficsim_queue_depth 0.0",
            "trafficsim_watch_behind_seconds 0.0",
            "trafficsim_operator_leader 1.0",
        ):
            assert line in page
        assert 0 == operator.stop()
        lease = await api.get(LEASES, namespace, "trafficsim-operator")
        assert "" == lease["spec"].get("holderIdentity", ""), "it gave the Lease up"
        assert [] == operator.errors()
        denied = [line for line in operator.log.read_text().splitlines() if re.search(r": 403 |[Ff]orbidden", line)]
        # Over the whole cluster it also meets the namespaces of other tests on their way out.
        assert [] == [line for line in denied if "being terminated" not in line]


async def test_it_writes_nothing_of_its_own_onto_the_resource(control_plane, namespace, tmp_path):
    """No annotations, no finalizers, no spec: the only other manager is the one of the status."""
    async with client(control_plane) as api, an_operator(control_plane, namespace, tmp_path) as operator:
        before = await api.create(SIMULATIONS, a_simulation(namespace, users=600))
        await operator.start()
        await until(lambda: status_of(api, namespace), refused, 20, "it is answered")
        after = await api.get(SIMULATIONS, namespace, "shop")
        assert before["spec"] == after["spec"]
        assert set(after["metadata"]) == set(before["metadata"])
        status = [e for e in after["metadata"]["managedFields"] if "f:status" in e["fieldsV1"]]
        assert [("trafficsim-status", "status")] == [(e["manager"], e.get("subresource")) for e in status]


async def test_a_steady_simulation_is_left_alone(control_plane, namespace, tmp_path):
    """Nothing changes, so nothing is written: own writes wake nobody."""
    async with client(control_plane) as api, an_operator(control_plane, namespace, tmp_path) as operator:
        operator.environ["TRAFFICSIM_RESYNC"] = "1"
        await operator.start()
        await api.create(SIMULATIONS, a_simulation(namespace, users=600))
        await until(lambda: status_of(api, namespace), refused, 20, "it is answered")
        before = (await api.get(SIMULATIONS, namespace, "shop"))["metadata"]["resourceVersion"]

        async def looks():
            page = await operator.text("/metrics")
            return sum(float(x.split()[-1]) for x in page.splitlines() if x.startswith("trafficsim_reconciles_total"))

        first = await looks()
        await until(looks, lambda count: count >= first + 3, 20, "it was looked at three more times")
        assert before == (await api.get(SIMULATIONS, namespace, "shop"))["metadata"]["resourceVersion"]


async def test_an_unreadable_policy_ends_it_with_the_field(control_plane, namespace, tmp_path):
    async with an_operator(control_plane, namespace, tmp_path, policy={"maxUsers": "many"}) as operator:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "trafficsim_operator"],
            env=operator.environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert 3 == done.returncode
    assert "maxUsers" in done.stderr
    assert "Traceback" not in done.stderr


async def test_without_the_kind_it_says_so(control_plane, namespace, tmp_path):
    """A cluster without the CRD: one clear sentence, exit 3."""
    crds = Resource(group="apiextensions.k8s.io", plural="customresourcedefinitions", kind="CustomResourceDefinition")
    name = f"{SIMULATIONS.plural}.{SIMULATIONS.group}"
    async with client(control_plane) as api, an_operator(control_plane, namespace, tmp_path) as operator:
        found = await api._call("GET", crds, crds.path(None, name))
        await api.delete(crds, "", name, found["metadata"]["uid"])
        try:
            await until(lambda: api.served(SIMULATIONS), lambda served: not served, 30, "the kind is gone")
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "trafficsim_operator", "--namespace", namespace],
                env=operator.environ,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        finally:
            await asyncio.to_thread(install_kind, control_plane)
    assert 3 == done.returncode
    assert "install the CustomResourceDefinition first" in done.stderr


async def test_an_api_server_that_goes_away_and_comes_back(control_plane, namespace, tmp_path):
    """It waits without ending, says that it is healthy (a restart would not help), and goes on."""
    async with client(control_plane) as api, an_operator(control_plane, namespace, tmp_path) as operator:
        operator.environ["TRAFFICSIM_RESYNC"] = "2"
        await operator.start()
        states = []

        def while_down():
            process = operator.process
            states.append(process.poll())

        await asyncio.to_thread(control_plane.restart_apiserver, while_down)
        assert [None] == states
        assert 200 == await operator.status("/healthz")
        await api.create(SIMULATIONS, a_simulation(namespace, users=600))
        await until(lambda: status_of(api, namespace), refused, 30, "it is answered after the outage")
        assert 200 == await operator.status("/healthz")
        logged = [json.loads(x) for x in operator.log.read_text().splitlines() if x.startswith("{")]
        assert not [entry for entry in logged if "exc_info" in entry and "trafficsim_operator" in entry["exc_info"]]
