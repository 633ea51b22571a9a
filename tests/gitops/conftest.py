"""What the tests of GitOps tools share: simulations at every station, and the program that tells tools' verdicts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gitops import recorded, verdicts
from levels import unavailable
from trafficsim_operator.testing import Unavailable


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stations() -> AsyncIterator[dict[str, dict[str, Any]]]:
    """A simulation by the name of each station."""
    yield await recorded.objects()


@pytest.fixture(scope="session")
def program() -> Path:
    """Kstatus and CEL, if they are built: a level of their own, for they need Go, and an API server may not."""
    try:
        return verdicts.program(build=False)
    except Unavailable as error:
        unavailable("kstatus", error)
