"""How fast runners become more or fewer: the windows, the rates, and what counts for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.status import ScaleEvent
from trafficsim_api.units import format_instant
from trafficsim_operator.plan.pace import SAMPLES, down, noted, remembered, seeded, up

NOW = 1_700_000_000_000


def an_event(ago_s: int, runners: int, revision: str = "v1") -> ScaleEvent:
    """Build a change of so many *runners*, so long ago."""
    return ScaleEvent(at=format_instant(NOW - 1000 * ago_s), revision=revision, runners=runners)


@pytest.mark.parametrize(
    ("wanted", "needed", "events", "after"),
    [
        pytest.param(1, 9, [], 5, id="4 more"),
        pytest.param(6, 30, [], 12, id="twice as many"),
        pytest.param(3, 5, [], 5, id="no more than needed"),
        pytest.param(5, 9, [an_event(10, 4)], 5, id="those of 10 s ago count"),
        pytest.param(5, 9, [an_event(15, 4)], 9, id="those of 15 s ago don't"),
        pytest.param(3, 9, [an_event(10, 2)], 5, id="the rest of what is allowed"),
        pytest.param(5, 9, [an_event(10, -3)], 9, id="those taken don't"),
        pytest.param(20, 22, [an_event(5, 19)], 20, id="a raise by an edit is no ground for more"),
    ],
)
def test_up(wanted: int, needed: int, events: list[ScaleEvent], after: int) -> None:
    """In 15 s twice as many runners, or 4 more, whichever is more."""
    assert after == up(wanted, needed, events, NOW)


@pytest.mark.parametrize(
    ("wanted", "recommended", "events", "after"),
    [
        pytest.param(30, seeded(3), [], 27, id="a tenth"),
        pytest.param(27, seeded(3), [an_event(59, -3)], 27, id="within the minute"),
        pytest.param(27, seeded(3), [an_event(60, -3)], 25, id="a minute later"),
        pytest.param(5, seeded(1), [], 4, id="at least one"),
        pytest.param(30, (*seeded(3)[1:], 29), [], 29, id="one sample needed more"),
        pytest.param(5, (9, *seeded(1)[1:]), [], 5, id="never more than there are"),
    ],
)
def test_down(wanted: int, recommended: tuple[int, ...], events: list[ScaleEvent], after: int) -> None:
    """The most of the last 300 s, and in 60 s a tenth of the runners, or one."""
    assert after == down(wanted, recommended, events, NOW)


def test_history_is_the_newest_twenty() -> None:
    """The oldest sample goes, a missed one counts as the larger of its neighbours."""
    history = remembered(seeded(5), 3, missed=0)
    assert (SAMPLES, 5, 3) == (len(history), history[-2], history[-1])
    assert (5, 5, 3) == remembered(seeded(5), 3, missed=1)[-3:]
    assert (5, 7, 7) == remembered(seeded(5), 7, missed=1)[-3:]


def test_events_go_when_they_count_no_more() -> None:
    """A raise counts for 15 s, a cut for 60 s."""
    events = (an_event(60, -1), an_event(59, -2), an_event(15, 3), an_event(14, 4))
    assert (-2, 4) == tuple(event.runners for event in noted(events, "v1", 0, NOW))


def test_raises_within_three_seconds_are_one() -> None:
    """As one event of the newest instant, by version."""
    events = (an_event(2, 1), an_event(2, 1, "v2"))
    found = noted(events, "v1", 2, NOW)
    assert [("v2", 1), ("v1", 3)] == [(event.revision, event.runners) for event in found]
    assert format_instant(NOW) == found[-1].at


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(-5, 5), st.sampled_from(["v1", "v2"])), max_size=80))
def test_events_are_bounded(steps: list[tuple[int, int, str]]) -> None:
    """However often runners change, at most 16 events are kept, and all that count for 15 s."""
    events: tuple[ScaleEvent, ...] = ()
    now, raised = NOW, list[tuple[int, int]]()
    for later_ms, runners, revision in steps:
        now += later_ms
        events = noted(events, revision, runners, now)
        raised += [(now, runners)] if runners > 0 else []
        assert len(events) <= 16
        kept = sum(event.runners for event in events if event.runners > 0)
        assert kept >= sum(count for at, count in raised if now - at < 12_000) or len(events) == 16
