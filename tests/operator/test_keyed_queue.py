"""The work queue, in virtual time."""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.errors import Unavailable
from trafficsim_operator.queue import Backoff, KeyedQueue
from trafficsim_operator.testing import virtual_loop

pytestmark = pytest.mark.looptime


class Work:
    """Takes *seconds* per key, fails while *failing* says so, and keeps account."""

    def __init__(self, seconds: float = 0.0, wish: float | None = None, failing: Callable[[], bool] = lambda: False):
        self.seconds, self.wish, self.failing = seconds, wish, failing
        self.began: list[tuple[str, float]] = []
        self.running = 0
        self.most = 0

    async def __call__(self, key: str) -> float | None:
        self.began.append((key, asyncio.get_running_loop().time()))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds)
            if self.failing():
                raise Unavailable("away")
        finally:
            self.running -= 1
        return self.wish

    def times(self, key: str) -> list[float]:
        return [round(at, 3) for name, at in self.began if name == key]


async def serve(queue: KeyedQueue[str], seconds: float, *steps: Awaitable[None], workers: int = 2) -> None:
    """Serve for *seconds* of virtual time, running *steps* beside."""
    task = asyncio.create_task(queue.serve(workers))
    await asyncio.gather(asyncio.sleep(seconds), *steps)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def a_queue(work: Work, **changes) -> KeyedQueue[str]:
    return KeyedQueue(work=work, draw=lambda: 0.0, **changes)


async def after(seconds: float, what: Callable[[], None]) -> None:
    await asyncio.sleep(seconds)
    what()


async def test_added_while_waiting_is_worked_on_once():
    """A key that waits is there already."""
    work = Work()
    queue = a_queue(work)
    for _ in range(5):
        queue.add("shop")
    await serve(queue, 1)
    assert [("shop", 0)] == work.began


async def test_added_while_worked_on_is_worked_on_once_more():
    """What changed during a look is looked at again afterwards, once, and never at the same time."""
    work = Work(seconds=2)
    queue = a_queue(work)
    queue.add("shop")
    await serve(queue, 10, after(1, lambda: queue.add("shop")), after(1.5, lambda: queue.add("shop")))
    assert [0, 2] == work.times("shop")
    assert 1 == work.most


async def test_the_earliest_time_wins():
    """Of several wishes for later the first one counts; it makes the others void."""
    work = Work()
    queue = a_queue(work)
    queue.add_after("shop", 5)
    queue.add_after("shop", 2)
    queue.add_after("shop", 9)
    await serve(queue, 20)
    assert [2] == work.times("shop")


async def test_adding_now_makes_a_later_wish_void():
    work = Work()
    queue = a_queue(work)
    queue.add_after("shop", 5)
    queue.add("shop")
    await serve(queue, 20)
    assert [0] == work.times("shop")


async def test_a_wish_is_granted():
    """The work says when it wants to see the key again."""
    work = Work(wish=3)
    queue = a_queue(work)
    queue.add("shop")
    await serve(queue, 7)
    assert [0, 3, 6] == work.times("shop")


async def test_failures_wait_longer_and_longer_until_a_success():
    """min(cap, base·2ⁿ⁻¹): 1, 2, 4, 4; a success forgets them."""
    work = Work()
    work.failing = lambda: len(work.began) <= 4
    queue = a_queue(work, backoff=Backoff(base_s=1, cap_s=4, jitter=0.5))
    queue.add("shop")
    await serve(queue, 30)
    assert [0, 1, 3, 7, 11] == work.times("shop")
    assert 0 == queue.failing


async def test_a_bug_in_one_key_does_not_stop_the_others(caplog):
    """Whatever is raised, it is logged with its traceback and tried again."""

    async def work(key: str) -> None:
        if key == "bad":
            raise RuntimeError("bug")
        seen.append(key)

    seen: list[str] = []
    queue: KeyedQueue[str] = KeyedQueue(work=work, draw=lambda: 0.0)
    queue.add("bad")
    queue.add("good")
    await serve(queue, 0.2, workers=1)
    assert ["good"] == seen
    assert "RuntimeError: bug" in caplog.text


async def test_a_change_during_a_failing_look_does_not_defeat_the_back_off():
    work = Work(seconds=1, failing=lambda: True)
    queue = a_queue(work, backoff=Backoff(base_s=10, cap_s=10))
    queue.add("shop")
    await serve(queue, 9, after(0.5, lambda: queue.add("shop")))
    assert [0] == work.times("shop")


async def test_events_do_not_defeat_the_back_off():
    """Pods of a simulation that fails change all the time; its next look is when its time has come, not before."""
    work = Work(failing=lambda: True)
    queue = a_queue(work, backoff=Backoff(base_s=10, cap_s=20))
    queue.add("shop")
    queue.add("other")

    async def events() -> None:
        for _ in range(45):
            await asyncio.sleep(1)
            queue.add("shop")
            queue.add_after("shop", 0.1)

    await serve(queue, 49, events())
    assert [0, 10, 30] == work.times("shop") == work.times("other")


async def test_a_wish_from_before_a_failure_is_not_lost():
    """It was for earlier than the back-off allows: it is granted then."""
    work = Work(seconds=1, failing=lambda: len(work.began) == 1)
    queue = a_queue(work, backoff=Backoff(base_s=10))
    queue.add("shop")
    await serve(queue, 20, after(0.5, lambda: queue.add_after("shop", 2)))
    assert [0, 11] == work.times("shop")


async def test_after_a_success_nothing_holds_a_key_back():
    work = Work(failing=lambda: len(work.began) == 1)
    queue = a_queue(work, backoff=Backoff(base_s=10))
    queue.add("shop")
    await serve(queue, 20, after(12, lambda: queue.add("shop")))
    assert [0, 10, 12] == work.times("shop")


async def test_workers_are_bounded():
    """Ten keys of a second each take five seconds with two workers."""
    work = Work(seconds=1)
    queue = a_queue(work)
    for number in range(10):
        queue.add(f"sim-{number}")
    await serve(queue, 4.5)
    assert 2 == work.most
    assert 10 == len(work.began)


async def test_work_has_a_limit():
    """A look that hangs is given up, counted as a failure and tried again."""
    ends: list[tuple[float, BaseException | None]] = []
    queue = a_queue(
        Work(seconds=1000), limit_s=5, backoff=Backoff(base_s=1), done=lambda _, s, error: ends.append((s, error))
    )
    queue.add("shop")
    await serve(queue, 5.5)
    assert 1 == queue.failing
    [(seconds, error)] = ends
    assert pytest.approx(5) == seconds
    assert isinstance(error, TimeoutError)


async def test_the_oldest_work_is_known():
    work = Work(seconds=100)
    queue = a_queue(work, limit_s=1000)
    queue.add("shop")
    ages: list[float] = []
    await serve(queue, 50, after(42, lambda: ages.append(queue.oldest_s())))
    assert [pytest.approx(42)] == ages


async def test_one_with_patience_lets_others_go_first():
    """Until its patience is over; then one turn in four is for such as it, those first whose patience ended first."""
    work = Work(seconds=1)
    queue = a_queue(work)
    for name, patience_s in (("later", 9), ("sooner", 8), ("last", 60)):
        queue.add(name, patience_s)
    for number in range(20):
        queue.add(f"run-{number}")
    await serve(queue, 30, workers=1)
    assert [8, 12, 22] == [*work.times("sooner"), *work.times("later"), *work.times("last")]
    assert [f"run-{number}" for number in range(20)] == [key for key, _ in work.began if key.startswith("run")]


async def test_with_nobody_else_patience_is_no_delay():
    work = Work(seconds=1)
    queue = a_queue(work)
    for name in ("a", "b"):
        queue.add(name, patience_s=30)
    await serve(queue, 5, workers=1)
    assert [("a", 0), ("b", 1)] == work.began


async def test_however_many_have_lost_their_patience_others_are_hardly_later():
    """
    Nobody is done in time: a hundred idle ones of a second each, with a patience of ten, asked for every minute.

    The one that runs wishes to be looked at each second, and waits for one of them at most.
    """
    work = Work(seconds=1)
    queue = a_queue(work)
    work_on, work_wish = queue.work, 1.0

    async def look(key: str) -> float | None:
        await work_on(key)
        return work_wish if key == "run" else None

    queue.work = look

    async def resync() -> None:
        for _ in range(10):
            for number in range(100):
                queue.add(f"idle-{number}", patience_s=10)
            await asyncio.sleep(60)

    queue.add("run")
    await serve(queue, 600, resync(), workers=1)
    times = work.times("run")
    assert 3 >= max(later - earlier for earlier, later in itertools.pairwise(times))
    assert 100 == len({key for key, _ in work.began} - {"run"}), "each had its turn"


@pytest.mark.parametrize(
    "hurry",
    [
        pytest.param(lambda queue: queue.add("idle"), id="at once"),
        pytest.param(lambda queue: queue.add_after("idle", 0.5), id="in a moment"),
    ],
)
async def test_who_waits_patiently_goes_first_once_somebody_waits_for_it(hurry):
    """An edit of an idle one, whose look is due anyway."""
    work = Work(seconds=1)
    queue = a_queue(work)
    for key in ("a", "b", "idle"):
        queue.add(key, patience_s=30)
    await serve(queue, 5, after(0.1, lambda: hurry(queue)), workers=1)
    assert ["a", "idle", "b"] == [key for key, _ in work.began]


@pytest.mark.parametrize(
    "hurry",
    [
        pytest.param(lambda queue: queue.add("idle"), id="at once"),
        pytest.param(lambda queue: queue.add_after("idle", 60), id="in a minute"),
    ],
)
async def test_to_wait_for_one_whose_patience_is_over_does_not_put_it_off(hurry):
    """Its turn is the next of those that gave way; asked for without patience it stands where it has stood."""
    work = Work(seconds=1)
    queue = a_queue(work)
    queue.add("idle", patience_s=2)
    for number in range(20):
        queue.add_after(f"run-{number}", number / 4)
    await serve(queue, 30, after(2.9, lambda: hurry(queue)), workers=1)
    assert [3] == work.times("idle")


async def test_patience_does_not_put_off_what_is_due():
    """A wish for later and a patient one for earlier: the earlier time and the lesser patience count."""
    work = Work(seconds=1)
    queue = a_queue(work)
    queue.add_after("shop", 4.9)
    queue.add_after("shop", 2.2, patience_s=30)
    busy = [after(at / 2, lambda key=f"run-{at}": queue.add(key)) for at in range(20)]
    await serve(queue, 20, *busy, workers=1)
    # Those that are due before go first, one a second.
    [began] = work.times("shop")
    assert began == sum(name != "shop" and int(name[4:]) / 2 < 2.2 for name, _ in work.began)


KEYS = [f"key-{number}" for number in range(8)]
LONGEST_S = 1.0
AHEAD_S = 60
LAST_WISH_S = 60.0
TICK_S = 0.001
quarters = st.integers(1, 4).map(lambda number: number / 4)
asking = st.tuples(
    st.integers(0, 40).map(lambda number: number / 4),
    st.sampled_from(KEYS),
    st.one_of(st.just(0.0), quarters, st.integers(1, 4 * AHEAD_S).map(lambda number: number / 4)),
    st.sampled_from([0.0, 1.0, 5.0]),
)


@given(
    asked=st.lists(asking, min_size=8, max_size=60),
    takes=st.lists(quarters, min_size=1, max_size=8),
    wishes=st.fixed_dictionaries(dict.fromkeys(KEYS, st.one_of(st.none(), quarters))),
    workers=st.integers(1, 3),
)
def test_everybody_has_a_turn(asked, takes, wishes, workers):
    """
    Whatever is asked for, when, with what patience, how long it takes, and how soon it wishes to have a turn again.

    With patience at most that and 4 · ⌈keys ÷ workers⌉ · the longest look after it was due. Without it waits for those
    that were due before and a third as many others: 4 ÷ 3 · ⌈keys ÷ workers⌉ looks, and the one that is going on.
    """
    began = virtual_loop.run(played(asked, takes, wishes, workers))
    rounds = math.ceil(len(KEYS) / workers)
    for at, key, seconds, patience_s in asked:
        looks = 4 * rounds if patience_s else math.ceil(4 * rounds / 3) + 1
        latest = at + seconds + patience_s + looks * LONGEST_S
        assert any(at - TICK_S <= start <= latest + TICK_S for name, start in began if name == key)


async def played(asked, takes, wishes, workers):
    """Serve until everything that was *asked* for has had its turn; return who began when."""
    loop, began, running, turns = asyncio.get_running_loop(), [], set(), 0
    over: dict[str, tuple[float, float]] = {}
    """The earliest time a key was asked for since its last turn, and the least patience: when both are over."""
    hurried: set[str] = set()
    """Those asked for without patience since their last turn."""
    here: set[str] = set()
    """Those of them that are due for sure."""

    def note(key, due, patience_s):
        known_due, known_patience_s = over.get(key, (math.inf, math.inf))
        over[key] = min(due, known_due), min(patience_s, known_patience_s)
        if not patience_s:
            hurried.add(key)

    async def work(key):
        nonlocal turns
        number = len(began)
        assert key not in running
        here.discard(key)
        until, is_hurried = sum(over.pop(key)), key in hurried
        hurried.discard(key)
        if not is_hurried and here:
            assert until <= loop.time() + TICK_S, "it has patience, and others wait"
            assert turns >= 3, "it is another's turn"
        turns = turns + 1 if is_hurried else 0
        running.add(key)
        began.append((key, loop.time()))
        await asyncio.sleep(takes[number % len(takes)])
        running.discard(key)
        wish = wishes[key] if loop.time() < LAST_WISH_S else None
        if wish is not None:
            note(key, loop.time() + wish, 0.0)
        return wish

    def ask(key, seconds, patience_s):
        note(key, loop.time() + seconds, patience_s)
        if not seconds and not patience_s and key not in running:
            here.add(key)
        queue.add_after(key, seconds, patience_s)

    errors = []
    queue = KeyedQueue(work=work, draw=lambda: 0.0, done=lambda key, took_s, error: errors.append(error))
    for at, key, seconds, patience_s in asked:
        loop.call_at(at, ask, key, seconds, patience_s)
    task = asyncio.create_task(queue.serve(workers))
    await asyncio.sleep(2 * LAST_WISH_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert {None} >= set(errors), "a look failed"
    return began


@pytest.mark.parametrize(
    ("failures", "draw", "seconds"), [(1, 0.0, 1), (2, 0.0, 2), (3, 1.0, 2), (10, 0.0, 60), (10_000, 0.5, 45)]
)
def test_backoff(failures, draw, seconds):
    """min(60, 2ⁿ⁻¹), of which up to half is taken off."""
    assert seconds == Backoff(base_s=1, cap_s=60, jitter=0.5).delay(failures, draw)
