"""
Find the control plane's programs, or build them.

Order: `KUBEBUILDER_ASSETS`; the cache `$XDG_CACHE_HOME/trafficsim/kubernetes/v<version>`; a build from the Go modules
in tests/cluster/kubernetes of a checkout (some 8 minutes on two cores, once per version). etcd comes from
`KUBEBUILDER_ASSETS`, `PATH`, or, for root on Debian, from the package etcd-server.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trafficsim_operator.testing.unavailable import Unavailable

_BUILT: Final = ("kubectl", "kube-apiserver", "kube-controller-manager")
_MODULES: Final = Path(__file__).parents[3] / "tests" / "cluster" / "kubernetes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """Where each program of a control plane is."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path


def find(environ: Mapping[str, str] = os.environ, *, build: bool = True) -> Binaries:
    """Return the programs, building what is missing if *build*; raise `Unavailable` where they cannot be had."""
    if not sys.platform.startswith("linux"):
        raise Unavailable("the test control plane needs Linux")
    found = {name: _existing(name, environ) for name in _BUILT}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        if not build:
            raise Unavailable(f"{', '.join(missing)} not built yet")
        found |= dict(_build(missing, environ))
    paths = {name.replace("-", "_"): path for name, path in found.items() if path is not None}
    return Binaries(etcd=_etcd(environ), **paths)


def version() -> str:
    """Return the Kubernetes version that the Go module pins, such as 1.34.4."""
    try:
        module = (_MODULES / "go.mod").read_text()
    except OSError as error:
        raise Unavailable("no checkout to build Kubernetes from, and KUBEBUILDER_ASSETS is not set") from error
    match = re.search(r"^require k8s\.io/kubernetes v(\S+)", module, re.MULTILINE)
    if match is None:
        raise Unavailable(f"{_MODULES}/go.mod names no version of k8s.io/kubernetes")
    return match[1]


def cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory that keeps built programs of this version."""
    home = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "trafficsim" / "kubernetes" / f"v{version()}"


def _existing(name: str, environ: Mapping[str, str]) -> Path | None:
    directories = [Path(assets)] if (assets := environ.get("KUBEBUILDER_ASSETS")) else []
    candidates = [directory / name for directory in directories]
    if not directories or not all(path.exists() for path in candidates):
        candidates.append(cache(environ) / name)
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def _build(names: list[str], environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise Unavailable("Go is not installed, so Kubernetes cannot be built; or set KUBEBUILDER_ASSETS")
    directory = cache(environ)
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory / ".lock"):
        for number, name in enumerate(names, start=1):
            target = directory / name
            if not target.exists():  # else somebody else built it while we waited
                _progress(f"[{number}/{len(names)}] building {name} v{version()} (minutes, once)")
                _go_build(go, name, target)
            yield name, target


def _go_build(go: str, name: str, target: Path) -> None:
    started = time.monotonic()
    major, minor, _ = version().split(".", 2)
    package = "k8s.io/component-base/version"
    stamps = {"gitVersion": f"v{version()}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s", "-w", *(f"-X {package}.{key}={value}" for key, value in stamps.items())])
    unfinished = target.with_name(f"{name}.{os.getpid()}.new")
    command = [go, "build", "-trimpath", "-ldflags", flags, "-o", str(unfinished), f"k8s.io/kubernetes/cmd/{name}"]
    done = subprocess.run(
        command, cwd=_MODULES, env=os.environ | {"CGO_ENABLED": "0"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        unfinished.unlink(missing_ok=True)
        raise Unavailable(f"building {name} failed: {_last_line(done.stderr)}")
    unfinished.replace(target)
    _progress(f"built {name} in {time.monotonic() - started:.0f} s: {target}")


def _etcd(environ: Mapping[str, str]) -> Path:
    assets = environ.get("KUBEBUILDER_ASSETS")
    if path := (assets and shutil.which("etcd", path=assets)) or shutil.which("etcd"):
        return Path(path)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable("etcd is not on PATH (Debian: apt-get install etcd-server)")
    _progress("installing etcd-server")
    install = ["apt-get", "install", "-y", "etcd-server"]
    message = ""
    for command in (install, ["apt-get", "update"], install):
        done = subprocess.run(
            command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, capture_output=True, text=True, check=False
        )
        if path := shutil.which("etcd"):
            return Path(path)
        message = _last_line(done.stderr)
    raise Unavailable(f"etcd-server could not be installed: {message}")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold *lock*, so that two test runs do not build the same program at once; it is freed when we die."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _progress("waiting for another build of Kubernetes")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message")
