"""What came of a scenario's request: an answer, or why there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trafficsim_runner.http.coding import decoded

__all__ = ["RequestFailed", "Response"]


class RequestFailed(Exception):
    """
    A request that has no answer; *kind* is the error it was counted as, such as `network_refused`.

    Raised after the user's pause: 100 ms, doubled with every failure in a row up to 1 s.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Response:
    """An answer, whatever its status. Headers and body are looked at only when they are asked for."""

    __slots__ = ("_body", "_headers", "_is_unpacked", "status")

    def __init__(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self._headers = headers
        self._body = body
        self._is_unpacked = False

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self._body)} bytes>"

    @property
    def ok(self) -> bool:
        """Say whether the status is below 400."""
        return self.status < 400

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers, names in lower case; of a name that came twice, the first."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(self._headers)}

    def header(self, name: str, default: str | None = None) -> str | None:
        """Return the value of the first header called *name*, in whatever case."""
        wanted = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for key, value in self._headers if key == wanted), default)

    @property
    def body(self) -> bytes:
        """Return the body, unpacked when it came as gzip or deflate; at most its first 8 MiB are kept."""
        if not self._is_unpacked:
            self._body, self._is_unpacked = decoded(self._body, self._headers), True
        return self._body

    @property
    def text(self) -> str:
        """Return the body as UTF-8 text; what is none becomes �."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the JSON document in the body; raise ValueError when it is none."""
        return json.loads(self.body)
