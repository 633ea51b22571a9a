"""What the load goes to: the target's address, time-outs and certificates."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import StringConstraints, field_validator, model_validator

from trafficsim_api.certificates import holds_certificates
from trafficsim_api.model import Model, Name, Text, exactly_one, fault
from trafficsim_api.units import Duration

__all__ = ["TLS", "CAFrom", "Target", "Timeouts"]

URL: Final = r"^https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[^\s?#]*)?$"
HEALTH_PATH: Final = r"^/\S*$"


class Timeouts(Model):
    """How long each phase of a request may take."""

    connect: Duration = timedelta(seconds=1)
    """Until the connection stands, TLS handshake included."""
    request: Duration = timedelta(seconds=30)
    """From the first byte sent until the last byte of the answer."""

    @model_validator(mode="after")
    def _not_zero(self) -> Self:
        for name in ("connect", "request"):
            if not timedelta(milliseconds=10) <= getattr(self, name) <= timedelta(minutes=10):
                raise fault(name, "from 10ms to 10m is needed")
        return self


class CAFrom(Model):
    """Where the certificates come from that the target's certificate is verified with; exactly one way."""

    inline: Annotated[str, StringConstraints(max_length=65536)] | None = None
    """PEM text."""
    path: Text | None = None
    """A file on this machine; only with `trafficsim run`."""
    config_map: Name | None = None
    """A ConfigMap of the simulation's namespace, its key `ca.crt`."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ("inline", "path", "config_map"), "exactly one of inline, path, configMap")
        if self.inline is not None and not holds_certificates(self.inline):
            raise fault("inline", "certificates in PEM form are needed")
        return self


class TLS(Model):
    """TLS towards the target; certificates are always verified."""

    ca_from: CAFrom | None = None
    """Certificates to trust instead of the runner image's."""
    server_name: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    """The name the certificate is verified against and sent as SNI; absent: the URL's host."""


class Target(Model):
    """What the load goes to."""

    url: Annotated[str, StringConstraints(max_length=2048, pattern=URL)]
    """Scheme, host, port and an optional path that every request's path is appended to."""
    health_path: Annotated[str, StringConstraints(max_length=2048, pattern=HEALTH_PATH)] = "/"
    """What the pre-flight asks before any load, with GET; an answer below 500 is health."""
    timeouts: Timeouts = Timeouts()
    tls: TLS | None = None

    @field_validator("url")
    @classmethod
    def _port(cls, url: str) -> str:
        match = re.match(r"^https?://(?:\[[^\]]+\]|[^:/]+)(?::([0-9]+))?", url)
        if match and match[1] and not 1 <= int(match[1]) <= 65535:
            raise fault("", "a port from 1 to 65535 is needed")
        return url
