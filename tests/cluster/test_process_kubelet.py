"""The process node does to a pod what a real node would."""

import asyncio
import json
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from cluster.operator_stand import a_node
from trafficsim_operator.testing import Image

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

PROGRAM = Image(argv=(sys.executable, str(Path(__file__).with_name("pod_program.py"))))
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
READINESS = {
    "httpGet": {"path": "/ready", "port": "http"},
    "periodSeconds": 1,
    "timeoutSeconds": 5,
    "failureThreshold": 1,
}


@pytest.fixture
async def kubelet(control_plane, namespace, tmp_path):
    async with a_node(control_plane, namespace, tmp_path, {"program": PROGRAM}) as node:
        yield node


def a_container(**changes):
    container = {
        "name": "main",
        "image": "program",
        "env": [POD_IP],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": READINESS,
        "resources": {"limits": {"cpu": "1", "memory": "128Mi"}, "requests": {"cpu": "1", "memory": "128Mi"}},
    }
    return container | changes


def with_env(**values):
    return [POD_IP, *({"name": name, "value": value} for name, value in values.items())]


def a_pod(name="pod", *, volumes=(), grace=5, restart="Always", container=None, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"revision": "abc"}},
        "spec": {
            "containers": [container or a_container()],
            "volumes": list(volumes),
            "terminationGracePeriodSeconds": grace,
            "restartPolicy": restart,
            "automountServiceAccountToken": False,
            **spec,
        },
    }


async def eventually(claim, within=20.0):
    """Return what *claim* gives once it is true; it may be a coroutine function and may not find its object yet."""
    deadline = time.monotonic() + within
    while True:
        try:
            value = claim()
            value = await value if asyncio.iscoroutine(value) else value
        except (LookupError, AssertionError, aiohttp.ClientError):
            value = None
        if value:
            return value
        assert time.monotonic() < deadline, f"not true within {within} s"
        await asyncio.sleep(0.05)


async def status(kube, name="pod"):
    return (await kube("get", "pod", name, "-o", "json"))["status"]


async def container_status(kube, name="pod"):
    return (await status(kube, name))["containerStatuses"][0]


def is_ready(pod_status):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod_status.get("conditions", ()))


async def ready(kube, name="pod"):
    async def claim():
        found = await status(kube, name)
        return is_ready(found) and found

    return await eventually(claim)


async def ask(kubelet, path, name="pod"):
    async with aiohttp.ClientSession() as session, session.get(f"http://{kubelet.address(name)}:8080{path}") as answer:
        return await answer.text()


async def start(kube, pod):
    await kube("apply", "-f", "-", stdin=pod)
    return await ready(kube, pod["metadata"]["name"])


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def cgroups_of(pid):
    """Return the directories of the cgroups that were made for *pid*, version 1 or 2."""
    groups = [line.rpartition(":")[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    ours = {group for group in groups if "trafficsim" in group}
    roots = ("/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/memory")
    return [path for root in roots for group in ours if (path := Path(root + group)).exists()]


async def test_a_deployment_rolls_out_and_scales(kubelet, kube):
    """Three replicas become available on three addresses; scaled to one, two of them end."""
    template = a_pod()
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": template["spec"]
                | {
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": {"app": "web"}},
                        }
                    ],
                    "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}],
                },
            },
        },
    }
    await kube("apply", "-f", "-", stdin=deployment)
    await kube("rollout", "status", "deployment/web", "--timeout=30s")
    pods = (await kube("get", "pods", "-o", "json"))["items"]
    assert 3 == len({pod["status"]["podIP"] for pod in pods})
    assert all(pod["status"]["podIP"].startswith("127.1.") for pod in pods)
    await kube("scale", "deployment/web", "--replicas=1")
    await eventually(lambda: len(kubelet.pods()) == 1)
    assert 1 == (await kube("get", "deployment", "web", "-o", "json"))["status"]["readyReplicas"]


async def test_environment_arguments_and_downward_api(kubelet, kube):
    """The process sees what the spec says: literals, $(NAME), fields of the pod, limits by divisor; nothing else."""

    def field(name, path):
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    def resource(name, what, divisor="0"):
        return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": what, "divisor": divisor}}}

    env = [
        POD_IP,
        {"name": "GREETING", "value": "hello"},
        {"name": "TEXT", "value": "$(GREETING) $$(GREETING) $(UNKNOWN)"},
        field("NAME", "metadata.name"),
        field("NAMESPACE", "metadata.namespace"),
        field("UID", "metadata.uid"),
        field("NODE", "spec.nodeName"),
        field("REVISION", "metadata.labels['revision']"),
        resource("CPU", "limits.cpu"),
        resource("MILLICPU", "limits.cpu", "1m"),
        resource("MEMORY", "limits.memory"),
    ]
    resources = {"limits": {"cpu": "1500m", "memory": "128Mi", "ephemeral-storage": "10Gi"}}
    pod = a_pod(container=a_container(env=env, args=["--say", "$(GREETING)"], resources=resources))
    await start(kube, pod)
    seen = json.loads(await ask(kubelet, "/"))
    meta = (await kube("get", "pod", "pod", "-o", "json"))["metadata"]
    expected = {
        "TEXT": "hello $(GREETING) $(UNKNOWN)",
        "NAME": "pod",
        "NAMESPACE": meta["namespace"],
        "UID": meta["uid"],
        "NODE": kubelet.node,
        "REVISION": "abc",
        "CPU": "2",
        "MILLICPU": "1500",
        "MEMORY": str(128 * 2**20),
        "POD_IP": kubelet.address("pod"),
    }
    assert expected == {name: seen["env"][name] for name in expected}
    assert ["--say", "hello"] == seen["argv"][1:]
    assert "PYTEST_CURRENT_TEST" not in seen["env"]


async def test_readiness_follows_the_probe(kubelet, kube):
    """A pod whose probe fails is Running and not Ready, and its process goes on."""
    await start(kube, a_pod())
    pid = kubelet.pid("pod")
    await ask(kubelet, "/unready")

    async def unready():
        return not is_ready(await status(kube))

    await eventually(unready)
    assert "Running" == (await status(kube))["phase"]
    assert pid == kubelet.pid("pod")


async def test_liveness_restarts_what_no_longer_answers(kubelet, kube):
    """A held process fails its liveness probe, is killed after its grace, and runs again."""
    liveness = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}
    await start(kube, a_pod(grace=1, container=a_container(livenessProbe=liveness)))
    first = kubelet.pid("pod")
    kubelet.stop_answering("pod")

    async def again():
        return (await container_status(kube))["restartCount"] == 1 and is_ready(await status(kube))

    await eventually(again)
    assert first != kubelet.pid("pod")
    assert 137 == (await container_status(kube))["lastState"]["terminated"]["exitCode"]


async def test_a_held_pod_goes_on(kubelet, kube):
    """stop_answering makes a pod unready, cont makes it ready again, in the same process."""
    probe = READINESS | {"timeoutSeconds": 1}
    await start(kube, a_pod(container=a_container(readinessProbe=probe)))
    pid = kubelet.pid("pod")
    kubelet.stop_answering("pod", everything=True)

    async def unready():
        return not is_ready(await status(kube))

    await eventually(unready)
    kubelet.cont("pod")
    await ready(kube)
    assert pid == kubelet.pid("pod")


async def test_running_out_of_memory_is_named(kubelet, kube):
    """A process killed for want of memory ends as OOMKilled with exit code 137, and runs again."""
    await start(kube, a_pod(container=a_container(resources={"limits": {"cpu": "1", "memory": "64Mi"}})))
    with pytest.raises(aiohttp.ClientError):
        await ask(kubelet, "/eat")

    async def named():
        return (await container_status(kube)).get("lastState", {}).get("terminated")

    last = await eventually(named)
    assert ("OOMKilled", 137) == (last["reason"], last["exitCode"])
    await ready(kube)


async def test_cpu_is_limited(kubelet, kube):
    """A pod with a fifth of a core gets no more than that of a busy second."""
    resources = {"limits": {"cpu": "200m", "memory": "128Mi"}}
    await start(kube, a_pod(container=a_container(resources=resources)))
    before = kubelet.usage("pod")
    began = time.monotonic()
    await ask(kubelet, "/burn")
    took, after = time.monotonic() - began, kubelet.usage("pod")
    assert (after.cpu_seconds - before.cpu_seconds) / took < 0.3
    assert after.throttled_periods > before.throttled_periods


async def test_a_configmap_reaches_the_process_and_follows_its_changes(kubelet, kube):
    """A mounted ConfigMap is there at the start, under its translated path, and changes within a second."""
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "one"}}
    container = a_container(
        env=with_env(FILE="/etc/app/key"),
        args=["--config=/etc/app/key"],
        volumeMounts=[{"name": "settings", "mountPath": "/etc/app"}],
    )
    volume = {"name": "settings", "configMap": {"name": "settings"}}
    await kube("apply", "-f", "-", stdin=a_pod(container=container, volumes=[volume]))

    async def waits():
        waiting = (await container_status(kube))["state"]["waiting"]
        return 'configmap "settings" not found' in waiting.get("message", "")

    await eventually(waits)
    await kube("apply", "-f", "-", stdin=document)
    await ready(kube)
    seen = json.loads(await ask(kubelet, "/"))
    file = seen["env"]["FILE"]
    assert f"--config={file}" == seen["argv"][1]
    assert "one" == await ask(kubelet, f"/file{file}")
    await kube("apply", "-f", "-", stdin=document | {"data": {"key": "two", "other": "x"}})

    async def changed():
        return await ask(kubelet, f"/file{file}") == "two"

    await eventually(changed, within=1.0)
    assert "x" == await ask(kubelet, f"/file{file.removesuffix('key')}other")


async def test_a_restart_keeps_emptydirs(kubelet, kube):
    """A killed container runs again in the same pod: same address, same files, also those in memory."""
    container = a_container(
        env=with_env(STATE="/state", CHILD="yes"), volumeMounts=[{"name": "state", "mountPath": "/state"}]
    )
    await start(kube, a_pod(container=container, volumes=[{"name": "state", "emptyDir": {"medium": "Memory"}}]))
    pids = kubelet.pids("pod")
    state = json.loads(await ask(kubelet, "/"))["env"]["STATE"]
    assert state.startswith("/dev/shm/")
    kubelet.kill("pod")

    async def again():
        return (await container_status(kube))["restartCount"] == 1 and is_ready(await status(kube))

    await eventually(again)
    assert "xx" == await ask(kubelet, f"/file{state}/starts")
    assert 2 == len(pids)
    assert not any(alive(pid) for pid in pids)
    assert "Error" == (await container_status(kube))["lastState"]["terminated"]["reason"]


async def test_an_unknown_image_waits_until_it_is_known(kubelet, kube):
    """A pod whose image the node does not know says so, and runs once the image is there."""
    await kube("apply", "-f", "-", stdin=a_pod(container=a_container(image="elsewhere:1")))

    async def backs_off():
        return (await container_status(kube))["state"]["waiting"]["reason"] == "ImagePullBackOff"

    await eventually(backs_off)
    assert "Pending" == (await status(kube))["phase"]
    kubelet.images["elsewhere:1"] = PROGRAM
    await ready(kube)


async def test_a_program_that_cannot_start_is_named(kubelet, kube):
    """A command that does not exist is a StartError, and backs off."""
    await kube("apply", "-f", "-", stdin=a_pod(container=a_container(command=["/does/not/exist"])))

    async def named():
        found = await container_status(kube)
        return found["restartCount"] >= 2 and found["lastState"]["terminated"]

    last = await eventually(named)
    assert ("StartError", 128) == (last["reason"], last["exitCode"])
    assert "exec /does/not/exist: No such file" in kubelet.logs("pod")


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
async def test_a_pod_that_does_not_restart_ends(kubelet, kube, code, phase):
    """With restartPolicy Never the exit code decides the phase."""
    await kube("apply", "-f", "-", stdin=a_pod(restart="Never", container=a_container(args=["--exit", str(code)])))

    async def ended():
        return (await status(kube))["phase"] == phase

    await eventually(ended)
    assert code == (await container_status(kube))["state"]["terminated"]["exitCode"]


async def test_a_pod_nobody_can_run_says_why(kubelet, kube):
    """A volume kind that a process cannot have is an event and a waiting reason, never silence."""
    await kube(
        "apply", "-f", "-", stdin=a_pod(volumes=[{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}])
    )

    async def told():
        events = (await kube("get", "events", "-o", "json"))["items"]
        return [e["message"] for e in events if e["reason"] == "FailedMount"]

    assert "persistentVolumeClaim is not supported" in (await eventually(told))[0]
    await kube("delete", "pod", "pod", "--wait=true", "--timeout=10s")


async def test_grace_is_honoured(kubelet, kube):
    """A process may use its grace; the pod is there, terminating, until it has left by itself."""
    await start(kube, a_pod(grace=20, container=a_container(env=with_env(LEAVES_AFTER="1"))))
    began = time.monotonic()
    await kube("delete", "pod", "pod", "--wait=true", "--timeout=15s")
    assert 0.9 < time.monotonic() - began < 10
    assert kubelet.logs("pod").endswith("asked to leave\nleft\n")


async def test_grace_ends(kubelet, kube):
    """A process that does not leave in its grace is killed."""
    await start(kube, a_pod(grace=1, container=a_container(env=with_env(LEAVES_AFTER="60"))))
    began = time.monotonic()
    await kube("delete", "pod", "pod", "--wait=true", "--timeout=15s")
    assert 0.9 < time.monotonic() - began < 8
    assert "left" not in kubelet.logs("pod").splitlines()


async def test_a_deleted_pod_leaves_nothing(kubelet, kube, tmp_path):
    """No process, no worker, no cgroup, no directory, and its address is free again."""
    container = a_container(
        env=with_env(STATE="/state", CHILD="yes"), volumeMounts=[{"name": "state", "mountPath": "/state"}]
    )
    await start(kube, a_pod(container=container, volumes=[{"name": "state", "emptyDir": {"medium": "Memory"}}]))
    pids, state = kubelet.pids("pod"), Path(json.loads(await ask(kubelet, "/"))["env"]["STATE"])
    directories = cgroups_of(pids[0])
    assert directories
    await kube("delete", "pod", "pod", "--wait=true", "--timeout=15s")
    await eventually(lambda: not kubelet.pods())
    assert not any(alive(pid) for pid in pids)
    assert [] == [path for path in (state, *directories, *(tmp_path / "pods").iterdir()) if path.exists()]


async def test_a_pod_that_does_not_fit_waits_for_room(kubelet, kube):
    """Requests beyond the node's capacity are Unschedulable until another pod leaves."""
    large = {"requests": {"cpu": "40"}, "limits": {"cpu": "40", "memory": "128Mi"}}
    await start(kube, a_pod("first", container=a_container(resources=large)))
    await kube("apply", "-f", "-", stdin=a_pod("second", container=a_container(resources=large)))

    async def unschedulable():
        conditions = (await status(kube, "second")).get("conditions", ())
        return [c["message"] for c in conditions if c.get("reason") == "Unschedulable"]

    assert "Insufficient cpu" in (await eventually(unschedulable))[0]
    await kube("delete", "pod", "first", "--wait=true", "--timeout=15s")
    await ready(kube, "second")


async def test_pods_go_on_while_the_apiserver_restarts(kubelet, kube, control_plane):
    """The process keeps running, and what changed meanwhile is reported afterwards."""
    await start(kube, a_pod())
    pid = kubelet.pid("pod")
    await asyncio.to_thread(control_plane.restart_apiserver)
    await ask(kubelet, "/unready")

    async def unready():
        return not is_ready(await status(kube))

    await eventually(unready)
    assert pid == kubelet.pid("pod")
    await kube("delete", "pod", "pod", "--wait=true", "--timeout=15s")


async def test_a_disconnected_node_keeps_pods_that_were_deleted(kubelet, kube):
    """Without its node a deleted pod stays Terminating and its process goes on; both end when the node is back."""
    await start(kube, a_pod(grace=1))
    pid = kubelet.pid("pod")
    await kubelet.disconnect()
    await kube("delete", "pod", "pod", "--wait=false")
    node = await kube("get", "node", kubelet.node, "-o", "json")
    assert "Unknown" == next(c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready")
    assert (await kube("get", "pod", "pod", "-o", "json"))["metadata"]["deletionTimestamp"]
    assert alive(pid)
    await kubelet.connect()
    await eventually(lambda: not alive(pid))
    await kube("wait", "pod/pod", "--for=delete", "--timeout=15s")


async def test_stop_ends_everything(kubelet, kube):
    """A stopped node leaves neither processes nor pods nor the node itself."""
    await start(kube, a_pod(container=a_container(env=with_env(CHILD="yes"))))
    pids = kubelet.pids("pod")
    await kubelet.stop()
    assert not any(alive(pid) for pid in pids)
    assert [] == (await kube("get", "pods", "-o", "json"))["items"]
    assert "NotFound" in await kube("get", "node", kubelet.node, check=False)


async def test_processes_die_with_a_killed_node(control_plane, namespace, kube, tmp_path):
    """A test process that is killed leaves no pod process, worker, cgroup or directory behind."""
    script = tmp_path / "node.py"
    script.write_text(
        f"""
import asyncio, pathlib
from trafficsim_operator.testing import Image, ProcessKubelet

async def main():
    images = {{"program": Image(argv={PROGRAM.argv!r})}}
    kubeconfig, directory = pathlib.Path({str(control_plane.kubeconfig)!r}), pathlib.Path({str(tmp_path)!r})
    options = dict(images=images, namespaces=[{namespace!r}], node="killed-{namespace}", directory=directory)
    async with ProcessKubelet(kubeconfig, **options) as kubelet:
        while len(kubelet.pods()) < 1 or len(kubelet.pids("pod")) < 2:
            await asyncio.sleep(0.05)
        print(*kubelet.pids("pod"), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""
    )
    await kube("apply", "-f", "-", stdin=a_pod(container=a_container(env=with_env(CHILD="yes"))))
    node = await asyncio.create_subprocess_exec(sys.executable, str(script), stdout=asyncio.subprocess.PIPE)
    line = await asyncio.wait_for(node.stdout.readline(), 30)
    pids = [int(word) for word in line.split()]
    assert 2 == len(pids)
    node.kill()
    await node.wait()
    await eventually(lambda: not any(alive(pid) for pid in pids))
    await eventually(lambda: not (tmp_path / "pods").exists())
    await kube("delete", "pod", "pod", "--grace-period=0", "--force")
    await kube("delete", "node", f"killed-{namespace}")
