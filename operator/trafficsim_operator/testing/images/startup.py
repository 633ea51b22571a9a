"""
How long the images take from exec to an answer: the runner and the shop by themselves, the operator at an API server.

Each is started by runc from its archive as a node would start it: read-only root, user of the image, no capabilities,
writable only what a pod's template mounts. The time is that from runc's start to the first 200 of the health page, so
it has some 50 ms of runc in it; the files are in the page cache.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import binaries
from trafficsim_operator.testing.controlplane import ControlPlane
from trafficsim_operator.testing.images.building import ROOT
from trafficsim_operator.testing.images.bundle import Launch
from trafficsim_operator.testing.images.container import Root
from trafficsim_operator.testing.ports import free_ports
from trafficsim_operator.testing.unavailable import Unavailable

__all__ = ["answering", "launch_of", "start_s"]

STARTS: Final = 3
_LIMIT_S: Final = 60.0
_STATE: Final = "/var/run/trafficsim"
_KEYS: Final = "/etc/trafficsim/keys"
_CLUSTER: Final = "/etc/trafficsim/cluster"
_ADDRESS: Final = "127.0.0.1"


def start_s(root: Root, target: str) -> float:
    """Return the seconds that *target* takes to answer, the median of three starts; raise Unavailable."""
    with tempfile.TemporaryDirectory(prefix="trafficsim-start-") as directory, _surroundings(target) as surroundings:
        Path(directory).chmod(0o755)
        return statistics.median(_once(root, target, Path(directory), surroundings) for _ in range(STARTS))


def launch_of(target: str, port: int, directory: Path, control_plane: ControlPlane | None = None) -> Launch:
    """Return how *target* is started with its health page on loopback's *port*; files for it go into *directory*."""
    match target:
        case "runner":
            environment = {
                "TRAFFICSIM_SIMULATION_UID": "start", "TRAFFICSIM_RUNNER_UID": "start",
                "TRAFFICSIM_LISTEN": f"{_ADDRESS}:{port}", "TRAFFICSIM_KEYS": _KEYS, "TRAFFICSIM_STATE": _STATE,
            }  # fmt: skip
            return Launch(environment=environment, read_only={_KEYS: directory}, in_memory=[_STATE])
        case "demo":
            return Launch(arguments=["--listen", f"{_ADDRESS}:{port}"])
        case "operator":
            assert control_plane is not None
            _write_access(control_plane, directory)
            environment = {
                "KUBECONFIG": f"{_CLUSTER}/kubeconfig", "TRAFFICSIM_LISTEN": f"{_ADDRESS}:{port}",
                "TRAFFICSIM_LEASE": "off",
            }  # fmt: skip
            return Launch(environment=environment, read_only={_CLUSTER: directory})
    raise ValueError(f"no target {target}")


@contextmanager
def _surroundings(target: str) -> Iterator[ControlPlane | None]:
    """Yield what *target* needs around it: an API server that knows the resource, for the operator."""
    if target != "operator":
        yield None
        return
    binaries.find(build=False)
    with ControlPlane() as control_plane:
        crd = ROOT / "crds" / "trafficsim.io_trafficsimulations.yaml"
        kubectl = [str(control_plane.kubectl), "--kubeconfig", str(control_plane.kubeconfig)]
        for words in (
            ["apply", "--server-side", "-f", str(crd)],
            ["wait", "--for=condition=Established", "-f", str(crd), "--timeout=30s"],
        ):
            subprocess.run([*kubectl, *words], check=True, capture_output=True)
        yield control_plane


def _write_access(control_plane: ControlPlane, directory: Path) -> None:
    """Write into *directory* what the container's user needs to reach *control_plane*, by the paths it has there."""
    document = json.loads(control_plane.kubeconfig.read_text())
    cluster = document["clusters"][0]["cluster"]
    certificate = Path(cluster["certificate-authority"]).read_text()
    # Not in the document itself: the client would write it to a temporary file, which a read-only root has no room for.
    cluster["certificate-authority"] = f"{_CLUSTER}/ca.crt"
    for name, text in {"kubeconfig": json.dumps(document), "ca.crt": certificate}.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)


def _once(root: Root, target: str, directory: Path, control_plane: ControlPlane | None) -> float:
    (port,) = free_ports(1)
    launch = launch_of(target, port, directory, control_plane)
    began = time.monotonic()
    with root.serving(launch) as (process, log):
        answering(process, log, port)
        return time.monotonic() - began


def answering(process: subprocess.Popen[bytes], log: Path, port: int, path: str = "/healthz") -> None:
    """Return when *path* answers 200 on loopback's *port*; raise Unavailable if *process* ends, or after a minute."""
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise Unavailable(f"the container ended with {code}: {log.read_text(errors='replace')[-2000:]}")
        connection = http.client.HTTPConnection(_ADDRESS, port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.005)
    raise Unavailable(f"no answer at {path} after {_LIMIT_S:.0f} s: {log.read_text(errors='replace')[-2000:]}")
