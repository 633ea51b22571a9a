"""The runner's settings, read once from the environment that the pod template or the local fleet sets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trafficsim_api.protocol import PORT

__all__ = ["Settings", "SettingsError"]

DEFAULT_GRACE_S: Final = 30


class SettingsError(Exception):
    """An environment variable is missing or unreadable; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What one runner is, and where it keeps its things.

    *cpu* is the CPU limit in millicores, *memory* in bytes (None: no limit known); *grace_s* is how long a drain may
    take after SIGTERM.
    """

    simulation: str
    runner: str
    revision: str
    host: str
    port: int
    keys: Path
    state: Path
    cpu: int | None
    memory: int | None
    grace_s: int

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings in *environ*; raise SettingsError naming the variable that is wrong."""
        host, port = _listen(environ.get("TRAFFICSIM_LISTEN", f":{PORT}"), environ.get("POD_IP", ""))
        runner = _needed(environ, "TRAFFICSIM_RUNNER_UID")
        state = environ.get("TRAFFICSIM_STATE") or os.path.join(tempfile.gettempdir(), f"trafficsim-{runner}")
        return cls(
            simulation=_needed(environ, "TRAFFICSIM_SIMULATION_UID"),
            runner=runner,
            revision=environ.get("TRAFFICSIM_REVISION", ""),
            host=host,
            port=port,
            keys=Path(_needed(environ, "TRAFFICSIM_KEYS")),
            state=Path(state),
            cpu=_whole(environ, "TRAFFICSIM_CPU"),
            memory=_whole(environ, "TRAFFICSIM_MEMORY"),
            grace_s=_whole(environ, "TRAFFICSIM_GRACE") or DEFAULT_GRACE_S,
        )


def _needed(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise SettingsError(f"{name} is needed")
    return value


def _whole(environ: Mapping[str, str], name: str) -> int | None:
    """Return a whole number above 0; None when absent or 0 (the downward API's word for "no limit")."""
    text = environ.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise SettingsError(f"{name}: a whole number is needed, not {text!r}")
    return int(text) or None


def _listen(text: str, pod_ip: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[host]:port"; no host: *pod_ip*, else loopback."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"TRAFFICSIM_LISTEN: host:port is needed, not {text!r}")
    return host.removeprefix("[").removesuffix("]") or pod_ip or "127.0.0.1", int(port)
