"""The timing wheel against the plain model: a list of (due, item) sorted by instant."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import data, integers, lists, sampled_from, tuples

from trafficsim_runner.wheel import SLOTS, Wheel


class Item:
    def __init__(self, name):
        self.name = name
        self.due_ms = 0


@given(
    start=integers(1, 10**9),
    delays=lists(integers(-5, 3 * SLOTS), max_size=60),
    steps=lists(integers(0, 2 * SLOTS), max_size=20),
)
def test_everybody_is_taken_once_at_its_instant(start, delays, steps):
    """Nobody is early, nobody is late, nobody is taken twice; they come in the order of their instants."""
    wheel = Wheel(start)
    items = [Item(n) for n in range(len(delays))]
    due = {}
    for item, delay in zip(items, delays, strict=True):
        wheel.park(item, start + delay)
        due[item.name] = max(start, start + delay)
    now, taken = start - 1, []
    for step in [*steps, 4 * SLOTS]:
        before, now = now, now + step
        batch = wheel.take_due(now)
        assert all(before < due[item.name] <= now or due[item.name] == before == start for item in batch)
        assert [due[i.name] for i in batch] == [-i.due_ms for i in batch]
        taken += batch
        expected = [name for name, at in due.items() if at <= now]
        assert sorted(expected) == sorted(item.name for item in taken)
    assert wheel.next_ms() is None


@given(
    operations=lists(
        tuples(sampled_from(["park", "cancel", "take"]), integers(0, 4), integers(0, 2 * SLOTS)), max_size=60
    )
)
def test_moving_and_cancelling_are_writes(operations):
    """Whatever was written last on an item counts; entries that no longer say the truth are dropped."""
    wheel, now = Wheel(1), 1
    items = [Item(n) for n in range(5)]
    model = {}
    for what, who, by in operations:
        if what == "park":
            wheel.park(items[who], now + by)
            model[who] = items[who].due_ms
        elif what == "cancel":
            items[who].due_ms = 0
            model.pop(who, None)
        else:
            now += by
            taken = [item.name for item in wheel.take_due(now)]
            assert sorted(taken) == sorted(name for name, at in model.items() if at <= now)
            model = {name: at for name, at in model.items() if at > now}


@given(data())
def test_the_next_slot_is_never_later_than_the_next_item(draw):
    """Arming a timer for next_ms() never lets anybody be late, and never wakes before the wheel's own time."""
    wheel = Wheel(draw.draw(integers(0, 10_000)))
    start = wheel._next_ms
    dues = draw.draw(lists(integers(start, start + 3 * SLOTS), min_size=1, max_size=10))
    for n, at in enumerate(dues):
        wheel.park(Item(n), at)
    assert start <= wheel.next_ms() <= min(dues)
