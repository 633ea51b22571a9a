"""What the tests of the operator on a real API server share: the resource's kind, our client, a small simulation."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from levels import unavailable
from trafficsim_api.crd import crd
from trafficsim_operator.kube import SIMULATIONS, KubeApi, load_configuration
from trafficsim_operator.testing import ControlPlane, Image, ProcessKubelet, Unavailable


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def install_kind(control_plane: ControlPlane, kind: dict[str, Any] | None = None) -> None:
    """Apply the CRD as the models say it now, or *kind*, and wait until it is served."""

    def kubectl(*arguments: str, text: str = "") -> bool:
        command = [str(control_plane.kubectl), "--kubeconfig", str(control_plane.kubeconfig), *arguments]
        return not subprocess.run(
            command, input=text, text=True, check=False, capture_output=True, timeout=60
        ).returncode

    assert kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=json.dumps(kind or crd()))
    deadline = time.monotonic() + 30
    while not kubectl("get", f"{SIMULATIONS.plural}.{SIMULATIONS.group}", "--all-namespaces"):
        assert time.monotonic() < deadline, "the kind is not served"
        time.sleep(0.1)


@asynccontextmanager
async def a_node(
    control_plane: ControlPlane, namespace: str, directory: Path, images: Mapping[str, Image]
) -> AsyncIterator[ProcessKubelet]:
    """A node of its own for the pods of *namespace*; without it the level is skipped, or fails where it is required."""
    node = ProcessKubelet(
        control_plane.kubeconfig, images=images, namespaces=[namespace], node=f"process-node-{namespace}",
        directory=directory,
    )  # fmt: skip
    try:
        await node.start()
    except Unavailable as error:
        unavailable("control-plane", error)
    try:
        yield node
    finally:
        await node.stop()


@asynccontextmanager
async def client(control_plane: ControlPlane) -> AsyncIterator[KubeApi]:
    """Our own client, as an administrator."""
    configuration = await load_configuration(str(control_plane.kubeconfig))
    async with KubeApi(configuration) as api:
        yield api


def a_simulation(namespace: str, name: str = "shop", **spec: Any) -> dict[str, Any]:
    """Return a small simulation as a user would write it."""
    return {
        "apiVersion": SIMULATIONS.api_version,
        "kind": SIMULATIONS.kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "target": {"url": "http://127.0.0.1:9"},
            "archetypes": [{"name": "visitor", "flow": [{"action": "list", "request": {"get": "/users"}}]}],
            **spec,
        },
    }


async def until(
    look: Callable[[], Any], holds: Callable[[Any], bool], patience_s: float, what: str, every_s: float = 0.1
) -> Any:
    """Await *look* again and again until *holds* of its answer; return that answer."""
    seen: Any = None
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        seen = await look()
        if holds(seen):
            return seen
        await asyncio.sleep(every_s)
    raise AssertionError(f"{what}: not within {patience_s} s; last seen: {seen}")
