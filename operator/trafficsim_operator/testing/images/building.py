"""Building the images of the checkout, once for what goes into them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trafficsim_api import __version__
from trafficsim_operator.testing import leftovers, packages
from trafficsim_operator.testing.go_modules import alone, cached, progress
from trafficsim_operator.testing.images import base as own_base
from trafficsim_operator.testing.images.engine import Engine, Kind, Request
from trafficsim_operator.testing.images.inputs import context_files, digest
from trafficsim_operator.testing.processes import run
from trafficsim_operator.testing.unavailable import Unavailable

__all__ = ["TARGETS", "Image", "Workshop", "build", "cache", "child", "default_base", "forget"]

TARGETS: Final = ("operator", "runner", "demo")
ROOT: Final = Path(__file__).parents[4]
_REPOSITORY: Final = "docker.io/trafficsim"
_PULL_S: Final = 300.0
_KEPT: Final = 3  # archives of a target: those of other sources may still be in use
_LAYERS: Final = 8 * 2**30  # bytes of layers from which on those of former builds are let go
_WORK: Final = "work"  # whose builds are alone in the cache, so it needs no number
_PROGRAMS: Final = {Kind.BUILDAH: {"buildah": "buildah"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """
    An image, *name* with its tag, as the file *archive* (docker-archive): `ctr images import`, `docker load`.

    *kind* has built it on *base*; *is_new* tells whether it had to be built.
    """

    target: str
    name: str
    archive: Path
    kind: Kind
    base: str
    is_new: bool


def build(
    targets: Sequence[str] = TARGETS,
    *,
    kind: Kind | None = None,
    base: str = "",
    ca: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Image]:
    """
    Return the images of *targets*, built where anything has changed since; raise Unavailable where they can't be.

    *kind* None: the first engine that works here. *base* "": the Dockerfile's, else one of Debian packages. *ca*: a
    bundle of certificates for the build, by default what PIP_CERT or SSL_CERT_FILE names.
    """
    if not (ROOT / "Dockerfile").exists():
        raise Unavailable("no checkout to build images from")
    with _alone(cache(environ)) as directory:
        engine = _engine(kind, directory / "storage")
        known = digest(ROOT, context_files(ROOT), engine.kind, base)
        workshop = Workshop(engine, ca or _certificates(environ), directory / "build.log", directory / _WORK)
        found = {target: _kept(directory, target, known) for target in targets}
        missing = [target for target, image in found.items() if image is None]
        if missing:
            workshop.tidy()
            chosen = workshop.base(base)
            for number, target in enumerate(missing, start=1):
                progress(f"[{number}/{len(missing)}] {target}: building on {chosen.split('@')[0]} (minutes when new)")
                found[target] = _built(workshop, directory, target, known, chosen)
                forget(directory, target)
        return {target: image for target, image in found.items() if image is not None}


def child(parent: Image, context: Path, name: str, archive: Path, *, environ: Mapping[str, str] = os.environ) -> Path:
    """
    Build *context*, whose Dockerfile begins with `FROM ${RUNNER}`, on *parent* and return it as *archive*.

    The engine is the one that has built *parent*. Raises Unavailable where the build fails.
    """
    with _alone(cache(environ)) as directory:
        engine = _engine(parent.kind, directory / "storage")
        workshop = Workshop(engine, None, directory / "build.log", directory / _WORK)
        workshop.run(workshop.engine.load(parent.archive))  # the name may have gone to a later build
        workshop.archive(Request(context=context, name=name, arguments={"RUNNER": parent.name}), archive)
    return archive


def cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory that keeps archives and layers."""
    return cached(environ) / "images"


def default_base(dockerfile: str) -> str:
    """Return the base that the text of *dockerfile* names as the default of its argument BASE."""
    return next(line.partition("=")[2] for line in dockerfile.splitlines() if line.startswith("ARG BASE="))


@dataclass(frozen=True, slots=True)
class Workshop:
    """
    An engine at work: what it says goes to *log*, what of it fails is `Unavailable`.

    In *place* is what it needs meanwhile. It dies with this process, and so does what it runs.
    """

    engine: Engine
    ca: Path | None
    log: Path
    place: Path

    def base(self, wish: str) -> str:
        """Return the base to build on, which is here then: *wish*, or the Dockerfile's, or one of Debian packages."""
        name = wish or default_base((ROOT / "Dockerfile").read_text())
        if self.succeeds(self.engine.has(name)) or self.succeeds(self.engine.pull(name), _PULL_S):
            return name
        if wish:
            raise Unavailable(f"the base image {wish} is not here and cannot be pulled; {self.log} says more")
        if not self.succeeds(self.engine.has(own_base.NAME)):
            progress(f"{name.split('@')[0]} cannot be pulled: making a base of Debian packages (a minute, once)")
            context = self.place / "base"
            context.mkdir()
            self.run(self.engine.build(own_base.write_context(context)))
        return own_base.NAME

    def archive(self, request: Request, archive: Path) -> None:
        """Build *request* and write it as *archive*, which is there when it is whole."""
        unfinished = leftovers.unfinished(archive)
        unfinished.unlink(missing_ok=True)
        try:
            self.run(self.engine.build(request))
            self.run(self.engine.save(request.name, unfinished))
            unfinished.replace(archive)
        finally:
            unfinished.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what killed builds left, and layers of former ones when they are many; only where all are ours."""
        if self.engine.kind is not Kind.BUILDAH:
            return
        self.succeeds(self.engine.abandoned())
        if _size(self.engine.storage) > _LAYERS:
            progress("letting go of the layers of former builds")
            self.succeeds(self.engine.prune())

    def run(self, command: Sequence[str]) -> None:
        """Run *command*; raise Unavailable with the end of what it said."""
        if not self.succeeds(command):
            lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            raise Unavailable(f"{Path(command[0]).name} failed; the end of {self.log}:\n" + "\n".join(lines[-15:]))

    def succeeds(self, command: Sequence[str], seconds: float | None = None) -> bool:
        """Run *command*, for so many *seconds* at most, and return whether it did what it should."""
        with self.log.open("wb") as log:
            return run(["env", f"TMPDIR={self.place}", *command], log, seconds) == 0


@contextmanager
def _alone(directory: Path) -> Iterator[Path]:
    """Build alone in *directory*, without what a killed build has left there."""
    directory.mkdir(parents=True, exist_ok=True)
    with alone(directory / "lock", "another build of images"):
        leftovers.forget_unfinished(directory)
        leftovers.remove(directory / _WORK)
        (directory / _WORK).mkdir()
        try:
            yield directory
        finally:
            leftovers.remove(directory / _WORK)


def _engine(kind: Kind | None, storage: Path) -> Engine:
    """Return the engine of *kind*, else the first that works; buildah is installed if need be and possible."""
    for one in Kind if kind is None else (kind,):
        program = packages.programs(_PROGRAMS[one])[one] if one in _PROGRAMS else shutil.which(one)
        if program is None:
            continue
        engine = Engine(kind=one, program=Path(program), storage=storage)
        if subprocess.run(engine.works(), capture_output=True, check=False).returncode == 0:
            return engine
    raise Unavailable(f"{kind or 'buildah'} does not work here")


def _built(workshop: Workshop, directory: Path, target: str, known: str, base: str) -> Image:
    began = time.monotonic()
    name = f"{_REPOSITORY}/{target}:{__version__}"
    archive = directory / f"{target}-{known}.tar"
    arguments = {"BASE": base, "VERSION": __version__, "REVISION": _revision()}
    workshop.archive(Request(context=ROOT, name=name, target=target, arguments=arguments, ca=workshop.ca), archive)
    archive.with_suffix(".json").write_text(json.dumps({"name": name, "kind": workshop.engine.kind, "base": base}))
    progress(f"{target}: built in {time.monotonic() - began:.0f} s")
    return Image(target=target, name=name, archive=archive, kind=workshop.engine.kind, base=base, is_new=True)


def _kept(directory: Path, target: str, known: str) -> Image | None:
    archive = directory / f"{target}-{known}.tar"
    try:
        note = json.loads(archive.with_suffix(".json").read_text())
    except FileNotFoundError:
        return None
    if not archive.exists():
        return None
    archive.touch()  # in use
    return Image(
        target=target, name=note["name"], archive=archive, kind=Kind(note["kind"]), base=note["base"], is_new=False
    )


def forget(directory: Path, target: str) -> None:
    """Remove the archives of *target* but those that were asked for last."""
    archives = sorted(directory.glob(f"{target}-*.tar"), key=lambda path: path.stat().st_mtime)
    for archive in archives[:-_KEPT]:
        for path in (archive, archive.with_suffix(".json"), archive.with_suffix(".starts")):
            path.unlink(missing_ok=True)


def _certificates(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("PIP_CERT") or environ.get("SSL_CERT_FILE")
    return Path(named) if named and Path(named).is_file() else None


def _revision() -> str:
    """Return the commit that is checked out, "unknown" where there is none."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _size(directory: Path) -> int:
    done = subprocess.run(["du", "-sb", str(directory)], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0]) if done.stdout else 0
