"""
Random histories of rollouts: whatever happens in whatever phase, the invariants of histories/checks.py hold, and once
the world is quiet the rollout is over, or paused for a reason it tells.
"""

import pytest

from trafficsim_operator.testing.histories.driver import many, report, shortfalls, some


def test_histories() -> None:
    """Five hundred histories break nothing, and come to nearly everything."""
    visits, broken = some(0, 500)
    assert [] == broken
    assert visits.verdicts["promoted"] >= 50
    assert visits.verdicts["rolled back"] >= 50
    assert visits.looks >= 500 * 60


@pytest.mark.slow
@pytest.mark.component
@pytest.mark.timeout(600)
def test_ten_thousand_histories() -> None:
    """Ten thousand histories break nothing, and come to every fault in every phase and every transition."""
    visits, broken = many(0, 10_000, processes=2)
    print("\n".join(report(visits)))
    assert [] == broken
    assert [] == shortfalls(visits, 10_000)
