"""The command lines of what builds images: docker, podman, or buildah, which needs neither a daemon nor a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

__all__ = ["Engine", "Kind", "Request"]


class Kind(StrEnum):
    """What builds, in the order in which it is looked for."""

    DOCKER = "docker"
    PODMAN = "podman"
    BUILDAH = "buildah"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    One image: *target* ("": the last) of the Dockerfile in *context*, called *name*.

    *ca* is a bundle of certificates that the build trusts, as the secret `ca`; it is in no image.
    """

    context: Path
    name: str
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine; *storage* is where buildah keeps its layers, apart from the machine's own images."""

    kind: Kind
    program: Path
    storage: Path

    def build(self, request: Request) -> list[str]:
        """Return the command that builds *request*, from what is here: nothing is pulled on the way."""
        command = [*self._base, "build", "--network", "host", "--pull=false", "--tag", request.name]
        if self.kind is Kind.BUILDAH:
            # chroot: runs where no container may be started, as in a container; layers: what did not change is kept.
            command += ["--isolation", "chroot", "--layers"]
        if request.target:
            command += ["--target", request.target]
        for name, value in sorted(request.arguments.items()):
            command += ["--build-arg", f"{name}={value}"]
        if request.ca is not None:
            command += ["--secret", f"id=ca,src={request.ca}"]
        return [*command, str(request.context)]

    def pull(self, name: str) -> list[str]:
        """Return the command that pulls *name*."""
        return [*self._base, "pull", name]

    def has(self, name: str) -> list[str]:
        """Return the command that succeeds exactly when an image *name* is here."""
        if self.kind is Kind.DOCKER:
            return [*self._base, "image", "inspect", name]
        return [*self._base, "inspect", "--type", "image", name]

    def save(self, name: str, archive: Path) -> list[str]:
        """Return the command that writes *name* into the new file *archive*, as docker-archive."""
        match self.kind:
            case Kind.DOCKER:
                return [*self._base, "save", "--output", str(archive), name]
            case Kind.PODMAN:
                return [*self._base, "save", "--format", "docker-archive", "--output", str(archive), name]
            case Kind.BUILDAH:
                return [*self._base, "push", name, f"docker-archive:{archive}:{name}"]

    def load(self, archive: Path) -> list[str]:
        """Return the command that takes in the image in *archive* under its name there."""
        if self.kind is Kind.BUILDAH:
            return [*self._base, "pull", f"docker-archive:{archive}"]
        return [*self._base, "load", "--input", str(archive)]

    def works(self) -> list[str]:
        """Return the command that succeeds where the engine can build: a docker without its daemon cannot."""
        return [*self._base, "info"]

    def abandoned(self) -> list[str]:
        """Return buildah's command that removes what a killed build has left under construction."""
        return [*self._base, "rm", "--all"]

    def prune(self) -> list[str]:
        """Return the command that lets go of layers without a name."""
        if self.kind is Kind.BUILDAH:
            return [*self._base, "rmi", "--prune", "--force"]
        return [*self._base, "image", "prune", "--force"]

    @property
    def _base(self) -> list[str]:
        if self.kind is not Kind.BUILDAH:
            return [str(self.program)]
        places = ["--root", str(self.storage / "layers"), "--runroot", str(self.storage / "run")]
        return [str(self.program), *places, "--storage-driver", "overlay"]
