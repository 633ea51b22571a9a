"""A whole node from the first program to the last answer, and back to nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from trafficsim_operator.testing import go_modules, leftovers
from trafficsim_operator.testing.node import (
    control,
    daemons,
    dns,
    groups,
    machine,
    mounts,
    namespace,
    policies,
    programs,
    worker,
)
from trafficsim_operator.testing.node.place import NODE, Place
from trafficsim_operator.testing.node.programs import Programs
from trafficsim_operator.testing.unavailable import Unavailable

_START_LIMIT: Final = 120.0  # seconds; 15 are usual
_CALL_LIMIT: Final = 120.0  # seconds for one call of kubectl
_REAPER: Final = (sys.executable, "-m", "trafficsim_operator.testing.node.reaper")
_NOBODY: Final = "-"  # owns a node that stays


class CommandFailed(RuntimeError):
    """A command inside the node failed; the text is what it said."""


class Cluster:
    """
    One node, up or not; several objects may speak of the same.

    It outlives this process unless it is bound to it. Whoever started it ends it, or anybody with the same `Place`.
    """

    def __init__(self, place: Place | None = None, say: Callable[[str], None] = go_modules.progress) -> None:
        """Speak of the node at *place*; *say* is told how starting it goes."""
        self.place = place or Place()
        self._say = say
        self._reaper: subprocess.Popen[str] | None = None

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of a cluster administrator; its server answers inside the namespace only."""
        return self.place.kubeconfig()

    def start(self, *, bound: bool = False) -> bool:
        """
        Start the node and return when it runs pods and DNS answers; return False if it was up already.

        A *bound* one ends with this process: whatever kills it before `leave`, a reaper then does the same. One that is
        up and bound to another process stays that one's if asked for *bound*, else it stays when that process ends.
        """
        with self._alone():
            if self.is_up() and not self._is_abandoned():
                if not bound:
                    self.place.owner.write_text(_NOBODY)
                return False
            self._end()  # what a killed start left
            found = programs.find()
            owner = daemons.identity(os.getpid()) if bound else _NOBODY
            if bound:
                self._watch(owner)
            try:
                self._start(found, owner)
            except BaseException:
                self._end()
                self._dismiss()
                raise
            return True

    def stop(self) -> None:
        """End every process of the node and remove everything it left; harmless where there is none."""
        with self._alone():
            self._end()
        self._dismiss()

    def leave(self) -> None:
        """End the node that is bound to this process, unless it was started without binding it meanwhile."""
        self.reap(daemons.identity(os.getpid()))
        self._dismiss()

    def reap(self, owner: str) -> None:
        """End the node of *owner*, who is gone, or what a start left that had no time to say whose it is."""
        with self._alone():
            if not self.place.owner.exists() or self.place.owner.read_text() in (owner, ""):
                self._end()

    def status(self) -> dict[str, bool]:
        """Return of each program whether it runs; empty where no node is."""
        return daemons.alive(self.place)

    def is_up(self) -> bool:
        """Return whether every program runs and the node takes pods."""
        programs_alive = self.status()
        return len(programs_alive) == len(_PROGRAMS) and all(programs_alive.values()) and self._is_ready()

    def inside(self, argv: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs *argv* where the node's addresses can be reached."""
        return namespace.inside(self.place, [str(word) for word in argv])

    def entered(self) -> AbstractContextManager[None]:
        """Have the calling thread where the node's addresses can be reached; sockets made meanwhile stay there."""
        return namespace.entered(self.place)

    def kubectl(self, *arguments: str, stdin: Any = None, check: bool = True) -> Any:
        """
        Run kubectl as administrator; `-o json` answers a value, everything else text.

        *stdin* is text or an object for `-f -`. Raises `CommandFailed` with its words if *check*.
        """
        text = stdin if stdin is None or isinstance(stdin, str) else json.dumps(stdin)
        kept = f"--cache-dir={self.place.directory / 'kubectl'}"  # another node has the same address
        command = self.inside([programs.kubectl(), f"--kubeconfig={self.kubeconfig}", kept, *arguments])
        done = subprocess.run(
            command, input=text, env=namespace.environment(), capture_output=True, text=True, timeout=_CALL_LIMIT,
            check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise CommandFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        if done.returncode == 0 and ("json" in arguments or "-ojson" in arguments):
            return json.loads(done.stdout)
        return done.stdout or done.stderr

    def import_image(self, archive: Path) -> None:
        """Give the node the images of an archive as `docker save` or `buildah push docker-archive:` write it."""
        command = ["ctr", f"--address={self.place.socket}", "--namespace=k8s.io", "images", "import", str(archive)]
        done = subprocess.run(command, env=namespace.environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise CommandFailed(f"importing {archive}: {done.stderr.strip()}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            self.place.lock.touch()  # root's, where root has run a node before
        except PermissionError as error:
            raise Unavailable("a node needs root: for namespaces, mounts and cgroups") from error
        with go_modules.alone(self.place.lock, f"whoever starts or ends the node {self.place.name}"):
            yield

    def _watch(self, owner: str) -> None:
        """Have a process of its own wait for the end of this one; return when it does."""
        command = [*_REAPER, self.place.name, str(self.place.parent), *owner.split()]
        with self.place.reaper_log.open("w") as said:
            self._reaper = subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True,
                start_new_session=True,  # so that no signal to all of the session ends it
            )  # fmt: skip
        assert self._reaper.stdout is not None
        with self._reaper.stdout as told:
            watches = bool(told.readline())
        if not watches:
            words = self.place.reaper_log.read_text()
            self._dismiss()
            raise Unavailable(f"nobody would end the node behind a killed session: {go_modules.last_line(words)}")

    def _dismiss(self) -> None:
        if self._reaper is None:
            return
        self._reaper.terminate()
        self._reaper.wait()
        self._reaper = None
        self.place.reaper_log.unlink(missing_ok=True)

    def _is_abandoned(self) -> bool:
        """Return whether the node belonged to a process that is gone: it is about to be ended."""
        owner = self.place.owner
        return owner.exists() and owner.read_text() != _NOBODY and daemons.noted(owner) is None

    def _start(self, found: Programs, owner: str) -> None:
        began = time.monotonic()

        def told(text: str) -> None:
            self._say(f"[{time.monotonic() - began:4.1f} s] {text}")

        self.place.directory.mkdir(mode=0o755)
        self.place.owner.write_text(owner)
        machine.prepare(self.place)
        groups.make(self.place)
        namespace.make(self.place)
        files = control.credentials(self.place)
        worker.write(self.place, found.plugins, files.authority)
        told(f"network namespace {self.place.namespace}, state in {self.place.directory}")
        launch = _launcher(self.place, found)
        launch("etcd", control.etcd(self.place))
        containerd = launch("containerd", worker.containerd_arguments(self.place), mounts.separated(self.place))
        launch("kube-apiserver", control.apiserver(files))
        self._await("containerd", self._containerd_answers)
        for image in (found.pause, found.dns):
            self.import_image(image)
        told("containerd runs, images imported")
        self._await("kube-apiserver", self._api_answers)
        told("the API server answers")
        launch("kube-controller-manager", control.manager(self.place, files))
        launch("kube-scheduler", control.scheduler(self.place))
        launch("kubelet", worker.kubelet_arguments(self.place), mounts.joined(containerd))
        launch("kube-proxy", worker.proxy_arguments(self.place))
        self._await("kubelet", self._is_ready)
        told("the node takes pods")
        launch(policies.NAME, policies.arguments(self.place), policies.without_bridges(self.place))
        objects = {"apiVersion": "v1", "kind": "List", "items": dns.manifests(programs.DNS)}
        self.kubectl("apply", "-f", "-", stdin=objects)
        self._await("kubelet", self._dns_answers)
        told("DNS answers")
        self._await(policies.NAME, lambda: policies.are_enforced(self.place))
        told("NetworkPolicies are enforced")

    def _end(self) -> None:
        daemons.end(self.place)
        leftovers.remove(self.place.directory)
        groups.remove(self.place)
        machine.put_back(self.place)

    def _await(self, name: str, claim: Callable[[], bool]) -> None:
        """Return once *claim* holds; say *name*'s last words if it does not, or a program's that ended."""
        deadline = time.monotonic() + _START_LIMIT
        while not claim():
            for program, runs in self.status().items():
                if not runs:
                    raise Unavailable(f"{program} ended: {daemons.last_words(self.place, program)}")
            if time.monotonic() > deadline:
                words = daemons.last_words(self.place, name)
                raise Unavailable(f"{name} not ready after {_START_LIMIT:.0f} s: {words}")
            time.sleep(0.1)

    def _containerd_answers(self) -> bool:
        command = ["ctr", f"--address={self.place.socket}", "version"]
        return subprocess.run(command, env=namespace.environment(), capture_output=True, check=False).returncode == 0

    def _api_answers(self) -> bool:
        return str(self.kubectl("get", "--raw=/readyz", check=False)).strip() == "ok"

    def _is_ready(self) -> bool:
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        ready = self.kubectl("get", "node", NODE, f"--output=jsonpath={path}", check=False)
        account = self.kubectl("get", "serviceaccount", "default", "--output=name", check=False)
        return (ready, str(account).strip()) == ("True", "serviceaccount/default")

    def _dns_answers(self) -> bool:
        path = "--output=jsonpath={.status.readyReplicas}"
        return bool(self.kubectl("--namespace", dns.NAMESPACE, "get", "deployment", dns.NAME, path, check=False) == "1")


_PROGRAMS: Final = (
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    policies.NAME,
)


def _launcher(place: Place, found: Programs) -> Callable[..., int]:
    paths = {"etcd": found.etcd, "containerd": found.containerd, policies.NAME: found.policies, **found.kubernetes}

    def launch(name: str, arguments: list[str], before: Sequence[str] = ()) -> int:
        return daemons.start(place, name, [*before, paths[name], *arguments])

    return launch
