"""What holds for every test run: the quick levels first, and no event loop left open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

_ORDER = ("component", "cluster", "node", "browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick levels first; within a level the order stays."""
    items.sort(
        key=lambda item: max((_ORDER.index(m.name) + 1 for m in item.iter_markers() if m.name in _ORDER), default=0)
    )


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
