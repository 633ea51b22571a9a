"""
What stories on a node share: the chart as a release, a shop as a pod, simulations as files, and how to look at them.

Everything is done as a user does it, by helm and kubectl. Runners and the shop are also asked themselves, by their
addresses, from the node's side.
"""

from __future__ import annotations

import errno
import http.client
import json
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from cluster.rollout_stand import Glance, glance
from e2e import pods, variants
from e2e.variants import Variant
from levels import unavailable
from trafficsim_api import __version__
from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_api.protocol import PORT, Acknowledgement
from trafficsim_operator.kube import SIMULATIONS
from trafficsim_operator.testing import Unavailable, helm
from trafficsim_operator.testing.images import build
from trafficsim_operator.testing.node import Cluster

ROOT: Final = Path(__file__).parents[2]
CHART: Final = str(ROOT / "charts" / "trafficsim")
OPERATOR: Final = "trafficsim-operator"
OPERATORS: Final = f"app.kubernetes.io/name={OPERATOR}"
LABEL: Final = "trafficsim.io/simulation"
SHOP_PORT: Final = 8080
RUNNER: Final = {"resources": {"limits": {"cpu": "200m", "memory": "256Mi"}}}
REPOSITORY: Final = "trafficsim/runner"
# Of the runner's image, with the scenarios of the tests in it: two good versions, and one whose users fail.
GOOD, BETTER, BAD = (f"{REPOSITORY}:{tag}" for tag in ("good", "better", "bad"))
_VARIANTS: Final = (
    Variant(name=f"docker.io/{GOOD}"),
    Variant(name=f"docker.io/{BETTER}"),
    Variant(name=f"docker.io/{BAD}", environment={"FAULT": "checks"}),
)
_SCENARIOS: Final = ("versions.py", "hungry.py")
EVERY_S: Final = 0.3
_HTTP_S: Final = 5.0
_HELM_S: Final = 300.0

Seen = TypeVar("Seen")
Status = dict[str, Any]


def eventually(
    look: Callable[[], Seen], holds: Callable[[Seen], bool], within_s: float, what: str, every_s: float = EVERY_S
) -> Seen:
    """Look until *holds*; return what was seen then."""
    deadline = time.monotonic() + within_s
    while not holds(seen := look()):
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s; last seen: {seen}"
        time.sleep(every_s)
    return seen


def give_images(node: Cluster, directory: Path) -> None:
    """Give *node* the images of this checkout, and the versions of the runner that the stories roll out."""
    try:
        built = build()
    except Unavailable as error:
        unavailable("node", error)
    for image in built.values():
        node.import_image(image.archive)
    modules = [ROOT / "tests" / "scenarios" / name for name in _SCENARIOS]
    archive = variants.write(built["runner"].archive, modules, _VARIANTS, directory / "versions.tar")
    node.import_image(archive)
    archive.unlink()


@contextmanager
def a_namespace(node: Cluster) -> Iterator[str]:
    """Yield a fresh namespace whose pods have to be as restricted as ours are; it is removed afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"name": name, "labels": labels}
    node.kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    node.kubectl("--namespace", name, "wait", "serviceaccount/default", "--for=create", "--timeout=45s")
    try:
        yield name
    finally:
        node.kubectl("delete", "namespace", name, "--wait=false")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A namespace of the node."""

    node: Cluster
    namespace: str

    def kubectl(self, *arguments: str, **options: Any) -> Any:
        """Run kubectl here; see `Cluster.kubectl`."""
        return self.node.kubectl("--namespace", self.namespace, *arguments, **options)

    def listed(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """Return the objects of a kind, all or those that *selector* selects."""
        chosen = [f"--selector={selector}"] if selector else []
        return list(self.kubectl("get", kind, *chosen, "-o", "json")["items"])

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Return the pods that are not leaving."""
        return [pod for pod in self.listed("pods", selector) if not pod["metadata"].get("deletionTimestamp")]

    def ask(self, address: str, port: int, path: str, *, method: str = "GET", body: bytes | None = None) -> bytes:
        """Return the body of an answer; OSError or HTTPException when there is none."""
        connection = http.client.HTTPConnection(address, port, timeout=_HTTP_S)
        with closing(connection):
            with self.node.entered():
                connection.connect()
            connection.request(method, path, body)
            return connection.getresponse().read()


@dataclass(frozen=True, kw_only=True)
class Release(Place):
    """The chart, installed in a namespace."""

    program: Path

    def helm(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """Run helm here, with *values* as a file of its own; return what it says."""
        with tempfile.TemporaryDirectory(prefix="trafficsim-helm-") as home:
            file = Path(home, "values.json")
            file.write_text(json.dumps(values or {}))
            given = ["--values", str(file)] if values else []
            where = ["--namespace", self.namespace, "--kubeconfig", str(self.node.kubeconfig)]
            command = ["/usr/bin/env", "-i", f"HOME={home}", str(self.program), *arguments, *given, *where]
            done = subprocess.run(
                self.node.inside(command), capture_output=True, text=True, timeout=_HELM_S, check=False
            )
        assert 0 == done.returncode, f"helm {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """Change *values* and leave the others as they are."""
        self.helm("upgrade", "trafficsim", CHART, "--reset-then-reuse-values", "--wait", values=values)

    def leader(self) -> str:
        """Return the name of the pod that holds the Lease, "" while none does."""
        found = self.kubectl("get", "lease", OPERATOR, "-o", "json", check=False)
        holder = found["spec"].get("holderIdentity") if isinstance(found, dict) else ""
        return str(holder or "").partition("_")[0]

    def logs(self) -> dict[str, str]:
        """Return what each operator has said since it started."""
        return {pod["metadata"]["name"]: self.kubectl("logs", pod["metadata"]["name"]) for pod in self.pods(OPERATORS)}

    def metrics(self) -> dict[str, str]:
        """Return the metrics page of each operator."""
        return {
            pod["metadata"]["name"]: self.ask(pod["status"]["podIP"], SHOP_PORT, "/metrics").decode()
            for pod in self.pods(OPERATORS)
        }


@dataclass(frozen=True, kw_only=True)
class Shop(Place):
    """The demo shop as a pod, and its own account of what it received."""

    address: str

    def account(self) -> dict[str, Any]:
        """Return what it counted."""
        return dict(json.loads(self.ask(self.address, SHOP_PORT, "/__log")))

    def received(self, endpoint: str = "/users") -> int:
        """Return how many requests it received there."""
        return sum(count for key, count in self.account()["counts"].items() if key.split()[1] == endpoint)

    def connected(self) -> int:
        """Return how many connections are open beside that of who asks."""
        return int(self.account()["connections"]["open"]) - 1

    def quiet_for(self, seconds: float) -> bool:
        """Say whether it receives nothing for so long, but for the kubelet's questions after its health."""

        def of_users() -> dict[str, int]:
            return {key: count for key, count in self.account()["counts"].items() if key.split()[1] != "/healthz"}

        before = of_users()
        time.sleep(seconds)  # the time is what is asked for
        return before == of_users()


@dataclass(kw_only=True)
class Simulation:
    """One simulation: its file, and what is to be seen of it."""

    place: Place
    name: str
    spec: dict[str, Any]
    # Whoever compares the file with the cluster must not do so while it is being applied.
    changing: threading.RLock = field(default_factory=threading.RLock)

    @property
    def file(self) -> dict[str, Any]:
        return {
            "apiVersion": SIMULATIONS.api_version,
            "kind": SIMULATIONS.kind,
            "metadata": {"name": self.name},
            "spec": self.spec,
        }

    def apply(self, **changes: Any) -> None:
        """Apply the file with *changes* to its spec; None takes a field out."""
        with self.changing:
            self.spec = {name: value for name, value in (self.spec | changes).items() if value is not None}
            self.place.kubectl("apply", "-f", "-", stdin=self.file)

    def stop(self) -> Status:
        """End the run before its time, by command, and await its verdict."""
        command = json.dumps({"id": uuid.uuid4().hex[:16], "action": "stop"})
        self.place.kubectl("annotate", "--overwrite", "tsim", self.name, f"{COMMAND_ANNOTATION}={command}")
        return self.phase("Completed", 120)

    def found(self) -> dict[str, Any]:
        return dict(self.place.kubectl("get", "tsim", self.name, "-o", "json"))

    def status(self) -> Status:
        return dict(self.found().get("status") or {})

    def until(self, holds: Callable[[Status], bool], within_s: float, what: str) -> Status:
        """Await the status in which *holds*."""
        return eventually(self.status, holds, within_s, f"{self.name}: {what}")

    def phase(self, phase: str, within_s: float) -> Status:
        """Await *phase*, of the document as it is now."""
        generation = self.found()["metadata"]["generation"]
        return self.until(
            lambda s: s.get("phase") == phase and s["observedGeneration"] >= generation, within_s, f"it is {phase}"
        )

    def pods(self) -> list[dict[str, Any]]:
        return self.place.pods(f"{LABEL}={self.name}")

    def boots(self) -> dict[str, int]:
        """Return the runners' pods by UID, and how often each was restarted."""
        return {
            pod["metadata"]["uid"]: sum(c["restartCount"] for c in pod["status"].get("containerStatuses", ()))
            for pod in self.pods()
        }

    def answers(self) -> list[Acknowledgement | None]:
        """Ask every runner what it does; None for one that says nothing. Where none listens, none is."""
        found: list[Acknowledgement | None] = []
        for pod in self.place.listed("pods", f"{LABEL}={self.name}"):
            if not (address := pod["status"].get("podIP")):
                continue
            try:
                answer = self.place.ask(address, PORT, "/v1/acknowledgement")
            except OSError as error:
                if not _listens_no_more(error):
                    found.append(None)
            except http.client.HTTPException:
                found.append(None)
            else:
                found.append(Acknowledgement.model_validate_json(answer))
        return found

    def at_work(self) -> int:
        """Return how many users are at work, by the runners' own words."""
        return sum(answer.active for answer in self.answers() if answer is not None)

    def all_at_work(self, users: int, within_s: float) -> None:
        eventually(self.at_work, lambda found: found == users, within_s, f"{self.name}: {users} are at work")

    def left(self) -> list[str]:
        """Return whatever of it there still is."""
        return [
            f"{item['kind']}/{item['metadata']['name']}"
            for item in self.place.listed("deployments,replicasets,pods,configmaps", f"{LABEL}={self.name}")
        ]

    def events(self) -> set[str]:
        """Return the reasons of the events about it."""
        return {
            event["reason"]
            for event in self.place.listed("events.events.k8s.io")
            if (event.get("regarding") or {}).get("name") == self.name
        }

    @contextmanager
    def watched(self) -> Iterator[list[Glance]]:
        """Look at users and rollout three times a second while inside."""
        seen: list[Glance] = []

        def look() -> None:
            first, rollout = self.answers(), self.status().get("rollout") or {}
            seen.append(glance(rollout, first, self.answers()))

        with repeated(look):
            yield seen


def _listens_no_more(error: OSError) -> bool:
    """Say whether nobody is there: its port is closed, or its pod's address is gone."""
    return error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH)


@contextmanager
def repeated(look: Callable[[], None], every_s: float = EVERY_S) -> Iterator[None]:
    """Do *look* again and again beside what is inside; raise in the end what it raised."""
    over, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            while not over.is_set():
                look()
                over.wait(every_s)
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody looks
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


@dataclass(frozen=True, kw_only=True)
class Stand:
    """An operator of the whole cluster, and namespaces for what it serves."""

    node: Cluster
    release: Release
    stack: ExitStack

    def place(self) -> Place:
        """Return a namespace of its own, which is removed with the stand."""
        return Place(node=self.node, namespace=self.stack.enter_context(a_namespace(self.node)))


def a_shop(place: Place) -> Shop:
    """Open a shop in *place*, as docs/images.md has it, and wait until it answers by its Service."""
    probe = {"httpGet": {"path": "/healthz", "port": SHOP_PORT}, "periodSeconds": 1}
    spec = pods.pod(image=f"trafficsim/demo:{__version__}", memory="256Mi", readinessProbe=probe)
    place.kubectl("apply", "-f", "-", stdin=pods.deployment("shop", 1, spec))
    place.kubectl("apply", "-f", "-", stdin=pods.service("shop", SHOP_PORT))
    place.kubectl("rollout", "status", "deployment/shop", "--timeout=90s")
    address = place.kubectl("get", "service", "shop", "-o", "json")["spec"]["clusterIP"]
    shop = Shop(node=place.node, namespace=place.namespace, address=address)

    def opened() -> bool:
        try:
            return bool(shop.account())
        except (OSError, http.client.HTTPException):
            return False

    eventually(opened, bool, 30, "the shop answers by its Service")
    return shop


def a_simulation(place: Place, name: str = "shop", **spec: Any) -> Simulation:
    """Return a simulation of *place*'s shop, not applied yet: users ask for the list every other second."""
    flow = [{"action": "list", "request": {"get": "/users"}}, {"think": {"constant": "2s"}}]
    whole = {
        "target": {"url": f"http://shop:{SHOP_PORT}", "healthPath": "/healthz"},
        "users": 20,
        "duration": "10m",
        "warmUp": "5s",
        "profile": [{"ramp": {"to": "100%", "over": "3s"}}, {"hold": {"for": "1h"}}],
        "archetypes": [{"name": "visitor", "flow": flow}],
        "runner": RUNNER,
    }
    return Simulation(place=place, name=name, spec=whole | spec)


@contextmanager
def a_release(node: Cluster, namespace: str, values: Mapping[str, Any]) -> Iterator[Release]:
    """Install the chart in *namespace*; what it installed is gone afterwards, but for the kind."""
    try:
        release = Release(node=node, namespace=namespace, program=helm.find())
    except Unavailable as error:
        unavailable("node", error)
    others = node.kubectl("get", "deployments", "--all-namespaces", "-l", OPERATORS, "-o", "json")["items"]
    assert [] == others, "two operators of the same simulations would work against each other"
    release.helm("install", "trafficsim", CHART, "--take-ownership", "--wait", "--timeout", "2m", values=values)
    try:
        yield release
        quiet = {name: problems for name, said in release.logs().items() if (problems := errors_in(said))}
        assert {} == quiet, "an operator logged an error"
    finally:
        for name, said in release.logs().items():
            print(f"--- {name}\n{said[-4000:]}")  # shown when a test fails
        release.helm("uninstall", "trafficsim", "--wait")


def errors_in(log: str) -> list[dict[str, Any]]:
    """Return what an operator logged as an error."""
    entries = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [entry for entry in entries if entry.get("severity") == "error"]


def verdict(status: Status) -> tuple[str, str]:
    """Return the verdict, and all that the conditions say of it."""
    said = (f"{c['type']} {c['status']}: {c['message']}" for c in status["conditions"] if c.get("message"))
    return str(status.get("verdict")), "; ".join(said)


@contextmanager
def a_stand(node: Cluster, values: Mapping[str, Any] | None = None) -> Iterator[Stand]:
    """Install the operator for the whole cluster."""
    with ExitStack() as stack:
        namespace = stack.enter_context(a_namespace(node))
        release = stack.enter_context(a_release(node, namespace, values or {}))
        yield Stand(node=node, release=release, stack=stack)
