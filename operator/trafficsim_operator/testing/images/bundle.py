"""
The runtime's configuration of one container, as a node makes it for a pod of ours.

A read-only root, no capability, no new privileges, a user that is a number: the restricted Pod Security Standard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from trafficsim_operator.testing.images.archive import Config

__all__ = ["Launch", "runtime_config"]

_LATEST: Final = "1.0.2"
_MASKED: Final = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware")
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_SAFE: Final = ("nosuid", "noexec", "nodev")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """
    What a container is started with, beside its image.

    *argv* replaces entry point and command, *arguments* the command alone; *read_only* are files and directories by
    where they are to be, *in_memory* the directories that may be written to.
    """

    argv: Sequence[str] = ()
    arguments: Sequence[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    read_only: Mapping[str, Path] = field(default_factory=dict)
    in_memory: Sequence[str] = ()


def runtime_config(config: Config, launch: Launch, *, root: Path, cgroup: str) -> dict[str, Any]:
    """
    Return the `config.json` of an OCI runtime for *root* with the image's *config*, in the cgroup *cgroup*.

    The network is the caller's own, so that what listens on loopback can be asked. ValueError: the user is no number.
    """
    user, _, group = config.user.partition(":")
    if not user.isdecimal() or not group.isdecimal():
        raise ValueError(f"the image's user {config.user!r} is not given as numbers, uid:gid")
    argv = launch.argv or (*config.entrypoint, *(config.command if launch.arguments is None else launch.arguments))
    none: dict[str, list[str]] = {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")}
    environment = {**config.environment, "HOME": "/", **launch.environment}
    return {
        "ociVersion": _LATEST,
        "process": {
            "terminal": False,
            "user": {"uid": int(user), "gid": int(group)},
            "args": list(argv),
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": "/",
            "capabilities": none,
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": _mounts(launch),
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            "cgroupsPath": cgroup,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }


def _mounts(launch: Launch) -> list[dict[str, Any]]:
    def tmpfs(destination: str, *options: str) -> dict[str, Any]:
        return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": [*options]}

    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": [*_SAFE]},
        tmpfs("/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
        tmpfs("/dev/shm", *_SAFE, "mode=1777", "size=65536k"),
        {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro", *_SAFE]},
        *(
            {"destination": to, "type": "bind", "source": str(source), "options": ["rbind", "ro", *_SAFE]}
            for to, source in launch.read_only.items()
        ),
        *(tmpfs(directory, *_SAFE, "mode=777") for directory in launch.in_memory),
    ]
