"""A test whose level cannot be had is skipped with the reason, or fails where the level is required."""

import pytest

from levels import unavailable
from trafficsim_operator.testing import Unavailable


@pytest.mark.parametrize("required", ["", "control-plane", "control-plane,noded"], ids=["none", "another", "alike"])
def test_it_is_skipped_with_the_reason(monkeypatch, required):
    """A level is required by its whole name."""
    monkeypatch.setenv("TRAFFICSIM_REQUIRE", required)
    with pytest.raises(pytest.skip.Exception, match="node unavailable: no root"):
        unavailable("node", Unavailable("no root"))


@pytest.mark.parametrize("required", ["node", "control-plane,node", "node control-plane"])
def test_a_required_level_is_no_skip(monkeypatch, required):
    """Commas and blanks divide the levels."""
    monkeypatch.setenv("TRAFFICSIM_REQUIRE", required)
    with pytest.raises(pytest.fail.Exception, match="node is required but unavailable: no root"):
        unavailable("node", Unavailable("no root"))
