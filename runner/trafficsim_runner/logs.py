"""Logs as one JSON object a line on standard output, with ECS field names."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

__all__ = ["JsonFormatter", "event", "set_up"]

FIELDS: Final = "ecs"


class JsonFormatter(logging.Formatter):
    """Render a record as JSON: `@timestamp`, `log.level`, `message`, the fields of `event`, and `error.stack_trace`."""

    def __init__(self, common: Mapping[str, str]) -> None:
        super().__init__()
        self._common = common

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as one line."""
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "@timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "log.logger": record.name,
            **self._common,
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["error.stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up(common: Mapping[str, str], stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send all logs to *stream* (standard output) as JSON, each with the *common* fields."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter(common))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def event(log: logging.Logger, level: int, action: str, message: str, **fields: Any) -> None:
    """Log *message* as the event *action*; underscores in *fields* stand for dots (`worker_index` → `worker.index`)."""
    named = {key.replace("_", ".", 1): value for key, value in fields.items()}
    log.log(level, message, extra={FIELDS: {"event.action": action, **named}})
