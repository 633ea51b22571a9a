"""Logs are JSON, one object a line."""

from __future__ import annotations

import io
import json
import logging

import pytest

from trafficsim_runner.logs import JsonFormatter, event

LOG = logging.getLogger("test.runner.logs")


@pytest.fixture
def written():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter({"runner.id": "r1"}))
    LOG.addHandler(handler)
    LOG.propagate = False
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    LOG.removeHandler(handler)


def test_an_event_has_its_fields(written):
    """ECS names; the first underscore of a field is the dot."""
    event(LOG, logging.WARNING, "worker-died", "worker 0 died", worker_index=0, process_exit_code=-9)
    (line,) = written()
    assert {
        "log.level": "warning", "message": "worker 0 died", "event.action": "worker-died", "worker.index": 0,
        "process.exit_code": -9, "runner.id": "r1", "log.logger": "test.runner.logs",
    }.items() <= line.items()  # fmt: skip
    assert line["@timestamp"].endswith("Z")


def test_a_traceback_stays_in_its_line(written):
    """One line, whatever happened."""
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        LOG.exception("failed\nbadly")
    (line,) = written()
    assert "RuntimeError: two" in line["error.stack_trace"]
