"""A real API server for the tests in this directory, a namespace for each, and kubectl."""

import asyncio
import json
import subprocess
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cluster.fault_points import TOLD
from levels import unavailable
from trafficsim_operator.testing import ControlPlane, Unavailable


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what came of the faults; with -qq it is the last line."""
    if TOLD in config.stash:
        tried, survived = config.stash[TOLD]
        terminalreporter.write_line(f"{tried} faults tried, {survived} survived")


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    control_plane = ControlPlane()
    try:
        control_plane.start()
    except Unavailable as error:
        unavailable("control-plane", error)
    yield control_plane
    control_plane.stop()


class Kubectl:
    """Call it like the command; `-o json` answers a value, everything else text."""

    def __init__(self, control_plane: ControlPlane, namespace: str) -> None:
        self._command = [control_plane.kubectl, "--kubeconfig", control_plane.kubeconfig, "--namespace", namespace]

    def __call__(self, *arguments: str, stdin: Any = None, check: bool = True) -> Any:
        """Run kubectl, *stdin* being text or an object for `-f -`; raise AssertionError with its words if it fails."""
        text = stdin if stdin is None or isinstance(stdin, str) else json.dumps(stdin)
        done = subprocess.run(
            [*self._command, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
        if "json" in arguments or "-ojson" in arguments:
            return json.loads(done.stdout)
        return done.stdout or done.stderr


@contextmanager
def a_namespace(control_plane: ControlPlane) -> Iterator[str]:
    """Yield a fresh namespace, usable at once; it is removed afterwards without waiting for it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl = Kubectl(control_plane, name)
    kubectl("create", "namespace", name)
    # After a restart of the API server the controllers come back with a delay that doubles up to half a minute.
    kubectl("wait", "serviceaccount/default", "--for=create", "--timeout=45s")
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace for one test."""
    with a_namespace(control_plane) as name:
        yield name


@pytest.fixture
def kubectl(control_plane: ControlPlane, namespace: str) -> Kubectl:
    return Kubectl(control_plane, namespace)


@pytest.fixture
def kube(kubectl: Kubectl) -> Callable[..., Awaitable[Any]]:
    """Kubectl for coroutines: a `ProcessKubelet` of the same loop goes on meanwhile."""

    async def call(*arguments: str, **options: Any) -> Any:
        return await asyncio.to_thread(kubectl, *arguments, **options)

    return call
