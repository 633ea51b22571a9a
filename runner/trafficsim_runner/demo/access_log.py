"""The shop's own account of what it received: counts per method, endpoint and status, never a line per request."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any


class AccessLog:
    """
    Count requests and connections.

        started = finished + abandoned + being answered now

    A request is counted when it has been read whole, with the status it is going to get; *abandoned* ones are those
    whose client left before the reply was written.
    """

    __slots__ = ("abandoned", "counts", "finished", "malformed", "open_connections", "opened_connections", "started")

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, int]] = Counter()
        self.started = 0
        self.finished = 0
        self.abandoned = 0
        self.malformed = 0
        self.opened_connections = 0
        self.open_connections = 0

    def record(self, method: str, endpoint: str, status: int) -> None:
        """Count one request read whole."""
        self.started += 1
        self.counts[method, endpoint, status] += 1

    def as_document(self) -> dict[str, Any]:
        """Return the account as plain values; the keys of `counts` read like `GET /users/{id} 200`."""
        return {
            "counts": {
                f"{method} {endpoint} {status}": n for (method, endpoint, status), n in sorted(self.counts.items())
            },
            "started": self.started,
            "finished": self.finished,
            "abandoned": self.abandoned,
            "malformed": self.malformed,
            "connections": {"opened": self.opened_connections, "open": self.open_connections},
        }

    def write(self, path: Path) -> None:
        """Replace the file at *path* by the account; a reader never sees half of it."""
        unfinished = path.with_name(path.name + ".part")
        unfinished.write_text(json.dumps(self.as_document(), indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
