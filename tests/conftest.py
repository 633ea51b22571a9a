"""
What every level of the tests shares: goldens with --update, a full disk, and what TRAFFICSIM_REQUIRE makes of a skip.
"""

import contextlib
import gc
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import settings

from trafficsim_operator.testing.unavailable import required_levels

# A check that several tests share tells its figures, as one in a test does.
pytest.register_assert_rewrite("driven.everything")

# No deadline: a busy machine is no finding. A failure prints what reproduces it.
settings.register_profile("trafficsim", deadline=None, print_blob=True)
settings.load_profile("trafficsim")

# Marker → level, as it is named in TRAFFICSIM_REQUIRE ("control-plane,node"); a required level may not be skipped.
LEVELS = {"component": "component", "cluster": "control-plane", "node": "node", "browser": "browser"}
REASONS = pytest.StashKey[dict[str, Counter[str]]]()
RAN = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite the golden files; review the difference")
    owned = "let the node's tests change the cluster of --k8s-kubeconfig"
    parser.addoption("--i-own-this-cluster", action="store_true", help=owned)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REASONS] = {}
    config.stash[RAN] = Counter()


def level_of(item: pytest.Item) -> str:
    """Return the level *item* belongs to by its marker; without one it is a unit test."""
    return next((level for marker, level in LEVELS.items() if item.get_closest_marker(marker)), "unit")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Count what ran and what was skipped per level; a skip of a required level is a failure."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    level = level_of(item)
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        item.config.stash[REASONS].setdefault(level, Counter())[reason.removeprefix("Skipped: ")] += 1
        if level in required_levels():
            report.outcome = "failed"
            report.longrepr = f"{level} is required (TRAFFICSIM_REQUIRE) but was skipped: {reason}"
    elif report.when == "call":
        item.config.stash[RAN][level] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print each level: how many tests ran, how many were skipped and why."""
    ran, reasons = config.stash[RAN], config.stash[REASONS]
    if not reasons and set(ran) <= {"unit"}:
        return
    terminalreporter.section("levels")
    for level in ("unit", *LEVELS.values()):
        skipped = reasons.get(level, Counter())
        if ran[level] or skipped:
            terminalreporter.line(f"{level}: {ran[level]} ran, {skipped.total()} skipped")
        for reason, count in skipped.most_common():
            terminalreporter.line(f"    {count} × {reason}")


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Find what a module left open in that module, and not when the collector comes by, in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare text with the file of that name under `golden/` beside the test; --update rewrites it."""

    def check(name: str, found: str) -> None:
        path = Path(request.path).parent / "golden" / name
        if request.config.getoption("--update"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(found, encoding="utf-8")
        assert path.exists(), f"{path.name} is missing: run with --update and review it"
        assert path.read_text(encoding="utf-8") == found

    return check


@pytest.fixture
def no_room() -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which no file of this process can grow: as on a full disk, with EFBIG for ENOSPC."""

    @contextlib.contextmanager
    def full() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full
