"""
Programs that a Go module of this checkout pins, built once for what goes into them, into the user's cache.

They lie in `$XDG_CACHE_HOME/trafficsim/<what>/v<version>-<recipe>`; only what is missing there is built. Another Go on
the machine is no reason to build anew: the one that go.mod asks for is part of the recipe. A build removes what was not
used for a day, except for the newest two: another checkout may use another.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import leftovers
from trafficsim_operator.testing.unavailable import Unavailable

_TESTS: Final = Path(__file__).parents[3] / "tests"
_FLAGS: Final = ("-trimpath", "-ldflags", "-s -w")
_LENGTH: Final = 12  # hexadecimal digits of a recipe: enough to tell builds apart
_KEPT: Final = 2
_DAY: Final = 24 * 60 * 60  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """What is built: the directory of its go.mod, the requirement whose version counts, the package of a program."""

    called: str
    directory: Path
    requires: str
    package: str  # with {name}
    stamps: str = ""  # linker flags with {version}, {major} and {minor}

    def version(self) -> str:
        """Return the version that go.mod pins, such as 1.34.4."""
        try:
            text = (self.directory / "go.mod").read_text()
        except OSError as error:
            raise Unavailable(f"no checkout to build {self.called} from") from error
        match = re.search(rf"^require {re.escape(self.requires)} v(\S+)", text, re.MULTILINE)
        if match is None:
            raise Unavailable(f"{self.directory}/go.mod names no version of {self.requires}")
        return match[1]

    def recipe(self, machine: str = platform.machine()) -> str:
        """Return a digest of what makes a program another: requirements with their sums, sources, flags, *machine*."""
        whole = hashlib.sha256(repr((_FLAGS, self.package, self.stamps, machine)).encode())
        for file in sorted(path for path in self.directory.rglob("*") if path.suffix in (".mod", ".sum", ".go")):
            name = file.relative_to(self.directory).as_posix()
            whole.update(repr((name, hashlib.sha256(file.read_bytes()).hexdigest())).encode())
        return whole.hexdigest()[:_LENGTH]


_STAMP: Final = "k8s.io/component-base/version"
KUBERNETES: Final = Module(
    called="Kubernetes",
    directory=_TESTS / "cluster" / "kubernetes",
    requires="k8s.io/kubernetes",
    package="k8s.io/kubernetes/cmd/{name}",
    stamps=f"-X {_STAMP}.gitVersion=v{{version}} -X {_STAMP}.gitMajor={{major}} -X {_STAMP}.gitMinor={{minor}}",
)
COREDNS: Final = Module(
    called="CoreDNS", directory=_TESTS / "e2e" / "coredns", requires="github.com/coredns/coredns", package="."
)
KUBE_ROUTER: Final = Module(
    called="kube-router",
    directory=_TESTS / "e2e" / "policies",
    requires="github.com/cloudnativelabs/kube-router/v2",
    package=".",
)


def cache(module: Module, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory that keeps the programs of *module* as they would be built now."""
    return cached(environ) / module.called.lower() / f"v{module.version()}-{module.recipe()}"


def cached(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory below which everything lies that is made once."""
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trafficsim"


def build(module: Module, names: list[str], environ: Mapping[str, str] = os.environ) -> Iterator[tuple[str, Path]]:
    """Yield each of *names* with its program as it is built, or as it is found in the cache."""
    directory = cache(module, environ)
    use(directory)
    missing = [name for name in names if not (directory / name).exists()]
    if not missing:
        yield from ((name, directory / name) for name in names)
        return
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise Unavailable(f"Go is not installed, so {', '.join(missing)} cannot be built; or set KUBEBUILDER_ASSETS")
    directory.mkdir(parents=True, exist_ok=True)
    with alone(directory / ".lock", f"another build of {module.called}"):
        leftovers.forget_unfinished(directory)
        for number, name in enumerate(names, start=1):
            target = directory / name
            if not target.exists():  # else somebody else built it while we waited
                progress(f"[{number}/{len(names)}] building {name} v{module.version()} (minutes, once)")
                _build(go, module, name, target)
            yield name, target
    _forget_unused(directory)


def use(directory: Path) -> None:
    """Note that what lies in *directory*, if it is there, is used now."""
    with suppress(OSError):
        os.utime(directory)


def _forget_unused(built: Path) -> None:
    """Remove what lies beside *built*, but for the newest two and what was used in the last day."""
    with suppress(OSError):  # another build removes them as well
        last_used = {path: path.stat().st_mtime for path in built.parent.glob("v*")}
        for path in sorted(last_used, key=last_used.__getitem__, reverse=True)[_KEPT:]:
            if last_used[path] < time.time() - _DAY:
                shutil.rmtree(path)


def _build(go: str, module: Module, name: str, target: Path) -> None:
    started = time.monotonic()
    version = module.version()
    major, minor, _ = version.split(".", 2)
    *flags, linked = _FLAGS
    linked = f"{linked} {module.stamps.format(version=version, major=major, minor=minor)}".strip()
    unfinished = leftovers.unfinished(target)
    command = [go, "build", *flags, linked, "-o", str(unfinished), module.package.format(name=name)]
    done = subprocess.run(
        command,
        cwd=module.directory,
        env=os.environ | {"CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        unfinished.unlink(missing_ok=True)
        raise Unavailable(f"building {name} failed: {last_line(done.stderr)}")
    unfinished.replace(target)
    progress(f"built {name} in {time.monotonic() - started:.0f} s: {target}")


@contextmanager
def alone(lock: Path, whom: str) -> Iterator[None]:
    """Hold *lock*, waiting for *whom* if need be: two test runs do not do the same at once; it is freed when we die."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for {whom}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def progress(text: str) -> None:
    """Tell whoever waits what takes so long."""
    print(text, file=sys.stderr, flush=True)


def last_line(text: str) -> str:
    """Return the last line of *text* that says something."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message")
