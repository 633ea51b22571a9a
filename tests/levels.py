"""The levels of tests, and what becomes of a test that cannot have what its level needs."""

from typing import NoReturn

import pytest

from trafficsim_operator.testing import Unavailable
from trafficsim_operator.testing.unavailable import required_levels


def unavailable(level: str, error: Unavailable) -> NoReturn:
    """Skip with the reason, or fail where TRAFFICSIM_REQUIRE names the level."""
    if level in required_levels():
        pytest.fail(f"{level} is required but unavailable: {error}", pytrace=False)
    pytest.skip(f"{level} unavailable: {error}")
