"""
The levels of the tests: their order, what each came to, and which were skipped for what reason.

`TRAFFICSIM_REQUIRE` names levels (separated by commas) in which a skipped test is a failure: a continuous integration
that silently tests less than it could says nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level: its *title*, its *name* in TRAFFICSIM_REQUIRE, and what its tests came to."""

    title: str
    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


LEVELS: Final = {
    level.name: level
    for level in (
        Level(title="unit", name="unit"),
        Level(title="property", name="property"),
        Level(title="component (processes and sockets)", name="component"),
        Level(title="API server", name="control-plane"),
        Level(title="Kubernetes node", name="node"),
        Level(title="browser", name="browser"),
    )
}
BY_DIRECTORY: Final = {"component": "component", "cluster": "control-plane", "e2e": "node", "browser": "browser"}


@pytest.fixture(scope="session", autouse=True)
def loop_of_the_main_thread() -> Iterator[None]:
    """
    Give the main thread a loop that is closed in the end.

    looptime asks for the current loop before each test; without one asyncio makes it and nobody closes it, and an
    unclosed loop is an error here.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


def level_of(item: pytest.Item) -> Level:
    """Return the level of *item*: by its directory, and unit or property by what the test is."""
    directory = item.nodeid.split("/")[1] if item.nodeid.startswith("tests/") else ""
    is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    return LEVELS[BY_DIRECTORY.get(directory, "property" if is_property else "unit")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick levels first; within a level the order stays."""
    order = list(LEVELS)
    items.sort(key=lambda item: order.index(level_of(item).name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test of a required level into a failure, and count."""
    report = yield
    level = level_of(item)
    required = os.environ.get("TRAFFICSIM_REQUIRE", "").replace(",", " ").split()
    if report.skipped and not hasattr(report, "wasxfail") and level.name in required:
        report.outcome = "failed"
        report.longrepr = f"skipped, but TRAFFICSIM_REQUIRE names {level.name}: {_reason(report)}"
    if report.when == "call" or not report.passed:
        level.outcomes[report.outcome] += 1
        if report.skipped:
            level.reasons["skipped"][_reason(report)] += 1
    return report


def _reason(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what each level came to, then each skipped part with its reason."""
    terminalreporter.section("levels")
    for level in LEVELS.values():
        if level.outcomes:
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(level.outcomes.items()))
            terminalreporter.write_line(f"{level.title}: {counts}")
    for level in LEVELS.values():
        for reason, count in level.reasons["skipped"].items():
            terminalreporter.write_line(f"skipped, {level.title}, {count} of them: {reason}")
