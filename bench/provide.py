"""Provide the peers: from Debian, built from Go modules, or in a Python environment of their own; kept in the cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from clients import PEERS
from server import binary as nginx_binary

_PACKAGES: Final = {"wrk": "wrk", "nginx": "nginx-light"}
_BUILD_WITHIN_S: Final = 900


class Missing(Exception):
    """A peer cannot be had on this machine; the message says why."""


def install_packages() -> None:
    """Install wrk and nginx where that is possible; raise Missing for what is not there afterwards."""
    wanted = _missing_packages()
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"Installing {', '.join(wanted)}", file=sys.stderr)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted]
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    if missing := _missing_packages():
        raise Missing(f"not installed, and not installable here: {', '.join(missing)} (packages of Debian)")


def _missing_packages() -> list[str]:
    present = {"wrk": shutil.which("wrk"), "nginx": nginx_binary()}
    return [package for name, package in _PACKAGES.items() if present[name] is None]


def wrk(environ: Mapping[str, str]) -> Path:
    """Return where wrk is."""
    found = shutil.which("wrk")
    if found is None:
        raise Missing("not installed (Debian: wrk)")
    return Path(found)


def vegeta(environ: Mapping[str, str]) -> Path:
    """Return where vegeta is, built from its Go module the first time."""
    source = PEERS / "vegeta"
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise Missing("Go is not installed (Debian: golang)")
    version = _output([go, "env", "GOVERSION"])
    target = _cache(environ) / f"vegeta-{_hash(source / 'go.mod', source / 'go.sum', version)}" / "vegeta"
    if not target.exists():
        print("Building vegeta", file=sys.stderr)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_suffix(".new")
        _do([go, "build", "-o", str(new), "github.com/tsenart/vegeta/v12"], source)
        new.rename(target)
    return target


def locust(environ: Mapping[str, str]) -> Path:
    """Return where Locust is, in an environment of its own that is made the first time."""
    requirements = PEERS / "locust" / "requirements.txt"
    directory = _cache(environ) / f"locust-{_hash(requirements, requirements, platform.python_version())}"
    target, ready = directory / "bin" / "locust", directory / ".ready"
    if not ready.exists():
        print("Installing Locust", file=sys.stderr)
        shutil.rmtree(directory, ignore_errors=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        python = str(directory / "bin" / "python")
        if uv := shutil.which("uv"):
            _do([uv, "venv", "--quiet", "--python", sys.executable, str(directory)], PEERS)
            _do([uv, "pip", "install", "--quiet", "--python", python, "-r", str(requirements)], PEERS)
        else:
            _do([sys.executable, "-m", "venv", str(directory)], PEERS)
            _do([python, "-m", "pip", "install", "--quiet", "-r", str(requirements)], PEERS)
        ready.touch()
    return target


def compiled() -> Path:
    """Return the Python that has this checkout with its hot modules compiled, built after a change of the sources."""
    command = [str(PEERS.parent.parent / "tools" / "compiled")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=_BUILD_WITHIN_S)
    if done.returncode:
        raise Missing("the hot modules could not be compiled (a C compiler and Python's headers are needed)")
    return Path(done.stdout.strip())


def _cache(environ: Mapping[str, str]) -> Path:
    """Return the benchmark's part of the user's cache directory."""
    given = environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "trafficsim" / "bench"


def _hash(first: Path, second: Path, version: str) -> str:
    text = first.read_bytes() + second.read_bytes() + version.encode()
    return hashlib.blake2s(text, digest_size=6).hexdigest()


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _do(command: Sequence[str], directory: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, check=False, timeout=_BUILD_WITHIN_S
        )
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{command[0]} took longer than {_BUILD_WITHIN_S} s") from error
    if done.returncode:
        raise Missing(f"{Path(command[0]).name} {command[1]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
