"""The operator's settings, read once from the environment and handed down as a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trafficsim_api import __version__
from trafficsim_api.policy import RUNNER_REPOSITORY

__all__ = ["ENVIRONMENT", "LEASE", "Settings", "SettingsError"]

# Of this version, never `latest`: what a runner is must not change by itself.
DEFAULT_IMAGE: Final = f"{RUNNER_REPOSITORY}:{__version__}"
LEASE: Final = "trafficsim-operator"
_ACCOUNT_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

ENVIRONMENT: Final[Mapping[str, str]] = {
    "TRAFFICSIM_RUNNER_IMAGE": f"image of runners whose spec names none (default {DEFAULT_IMAGE})",
    "TRAFFICSIM_NAMESPACES": "namespaces to serve, separated by commas (default: the whole cluster)",
    "TRAFFICSIM_POLICY": "file with the policy document, read again when it changes (default: the shipped policy)",
    "TRAFFICSIM_LISTEN": "host:port of /metrics, /healthz, /readyz and /simulations (default :8080)",
    "TRAFFICSIM_LEASE": f"Lease that operators of the same simulations share; off: this one is alone (default {LEASE})",
    "TRAFFICSIM_WORKERS": "simulations looked at in parallel (default 8)",
    "TRAFFICSIM_RESYNC": "seconds until every simulation is looked at again (default 60)",
    "TRAFFICSIM_LOG_LEVEL": "debug, info, warning or error (default info)",
    "TRAFFICSIM_LOG_FORMAT": "json or text (default json)",
    "POD_NAMESPACE": "the operator's own namespace, where its key and its Lease live (default: the service account's)",
    "POD_NAME": "the operator's name in events and in the Lease (default trafficsim-operator)",
    "POD_IP": "where other replicas reach its pages (default: the host it listens on)",
    "KUBECONFIG": "how to reach the API server from outside the cluster",
}


class SettingsError(Exception):
    """An environment variable is unreadable; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What one operator process is to do, and where.

    *namespaces* empty: the whole cluster. *own_namespace* holds the signing key's Secret and the *lease* ("": none, it
    is alone). *address* is host:port where other replicas reach its pages, "" if they can't. *resync_s* in seconds.
    *kubeconfig* and *context* None: the service account inside a cluster, else the user's kubeconfig.
    """

    image: str = DEFAULT_IMAGE
    namespaces: tuple[str, ...] = ()
    own_namespace: str = "default"
    identity: str = "trafficsim-operator"
    policy: Path | None = None
    host: str = "0.0.0.0"
    port: int = 8080
    lease: str = LEASE
    address: str = ""
    workers: int = 8
    resync_s: int = 60
    log_level: str = "info"
    log_json: bool = True
    kubeconfig: str | None = None
    context: str | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings in *environ*; raise SettingsError naming the variable that is wrong."""
        host, port = _listen(environ.get("TRAFFICSIM_LISTEN") or ":8080")
        policy = environ.get("TRAFFICSIM_POLICY")
        lease = environ.get("TRAFFICSIM_LEASE") or LEASE
        return cls(
            image=environ.get("TRAFFICSIM_RUNNER_IMAGE") or DEFAULT_IMAGE,
            namespaces=tuple(filter(None, (n.strip() for n in environ.get("TRAFFICSIM_NAMESPACES", "").split(",")))),
            own_namespace=environ.get("POD_NAMESPACE") or _account_namespace() or "default",
            identity=environ.get("POD_NAME") or "trafficsim-operator",
            policy=Path(policy) if policy else None,
            host=host,
            port=port,
            lease=_lease(lease),
            address=_address(environ.get("POD_IP") or host, port),
            workers=_whole(environ, "TRAFFICSIM_WORKERS", 8, 1, 256),
            resync_s=_whole(environ, "TRAFFICSIM_RESYNC", 60, 1, 86_400),
            log_level=_one_of(environ, "TRAFFICSIM_LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
            log_json=_one_of(environ, "TRAFFICSIM_LOG_FORMAT", "json", ("json", "text")) == "json",
            kubeconfig=environ.get("KUBECONFIG") or None,
        )


def _account_namespace() -> str:
    try:
        return _ACCOUNT_NAMESPACE.read_text().strip()
    except OSError:
        return ""


def _whole(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise SettingsError(f"{name}: a whole number from {least} to {most} is needed, not {text!r}")
    return int(text)


def _one_of(environ: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    text = (environ.get(name) or default).lower()
    if text not in choices:
        raise SettingsError(f"{name}: one of {', '.join(choices)} is needed, not {text!r}")
    return text


def _lease(text: str) -> str:
    """Return the Lease's name, "" for off; an object's name is needed."""
    if text.lower() == "off":
        return ""
    if len(text) > 253 or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", text):
        raise SettingsError(f"TRAFFICSIM_LEASE: the name of a Lease or off is needed, not {text!r}")
    return text


def _address(host: str, port: int) -> str:
    """Return host:port as it stands in a URL, "" for an address that means every interface."""
    if host in ("0.0.0.0", "::"):
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(text: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[host]:port"; no host: every interface."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise SettingsError(f"TRAFFICSIM_LISTEN: host:port is needed, not {text!r}")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)
