"""What holds for every test run: the quick levels first, and no event loop left open."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

# Directory under tests/ → marker, in the order they are run; everything else is the unit level and comes first.
LEVELS: Final = {
    "component": "component",
    "truth": "component",
    "cluster": "cluster",
    "e2e": "node",
    "browser": "browser",
}


@pytest.hookimpl(tryfirst=True)  # before -m selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its level, and run the quick levels first; within a level the order stays."""
    order = list(LEVELS)
    rank: dict[pytest.Item, int] = {}
    for item in items:
        directory = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        if directory in LEVELS:
            item.add_marker(LEVELS[directory])
        rank[item] = order.index(directory) + 1 if directory in LEVELS else 0
    items.sort(key=rank.__getitem__)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)  # outside what ends a test that takes too long
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let a test that is not a quick one wait for the builds beside the quick ones (tools/test): it measures times."""
    if any(item.get_closest_marker(level) for level in LEVELS.values()):
        builds_are_over(item.config)
    yield


def builds_are_over(config: pytest.Config) -> None:
    """Wait until nobody holds the lock of the builds, once, and show what they said."""
    if not (told := os.environ.pop("TRAFFICSIM_BUILDS", "")):
        return
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    assert isinstance(terminal, pytest.TerminalReporter)
    with Path(told).open(encoding="utf-8") as said:
        terminal.ensure_newline()
        terminal.write_line("waiting for the builds")
        fcntl.flock(said, fcntl.LOCK_SH)
        terminal.write(said.read())


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
