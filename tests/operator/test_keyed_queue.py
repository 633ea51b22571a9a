"""The work queue, in virtual time."""

import asyncio
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
    """Whoever is due within its patience: one that is due later than that goes after it."""
    work = Work(seconds=10)
    queue = a_queue(work)
    queue.add("first")
    queue.add("idle", patience_s=25)
    steps = [after(at, lambda key=f"run-{at}": queue.add(key)) for at in (5, 20, 22, 26)]
    await serve(queue, 60, *steps, workers=1)
    assert ["first", "run-5", "run-20", "run-22", "idle", "run-26"] == [key for key, _ in work.began]


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


async def test_patience_does_not_put_off_what_is_due():
    """A wish for later and a patient one for earlier: looked at early, and in time for the wish all the same."""
    work = Work(seconds=1)
    queue = a_queue(work)
    queue.add_after("shop", 4.9)
    queue.add_after("shop", 2, patience_s=30)
    busy = [after(at / 2, lambda key=f"run-{at}": queue.add(key)) for at in range(20)]
    await serve(queue, 20, *busy, workers=1)
    # Those that are due before 4.9 s go first, one a second.
    [began] = work.times("shop")
    assert began == sum(name != "shop" and int(name[4:]) / 2 < 4.9 for name, _ in work.began)


KEYS = [f"key-{number}" for number in range(5)]
LONGEST_S = 4.0
TICK_S = 0.001
seconds = st.integers(0, 40).map(lambda quarters: quarters / 4)
asking = st.tuples(st.integers(0, 60), st.sampled_from(KEYS), seconds, st.sampled_from([0.0, 0.0, 5.0, 20.0]))


@given(
    asked=st.lists(asking, max_size=40),
    takes=st.lists(st.integers(1, 16).map(lambda quarters: quarters / 4), min_size=1, max_size=8),
    wishes=st.lists(st.one_of(st.none(), seconds), min_size=1, max_size=8),
    workers=st.integers(1, 3),
)
def test_nobody_gives_way_for_longer_than_its_patience(asked, takes, wishes, workers):
    """
    Whatever is asked for, when, with what patience, and however long it takes: everybody has a turn.

    At most patience + ⌈keys ÷ workers⌉ · the longest look after it was due, one worker at a time for each; and of
    those that are due nobody goes before another with less due + patience.
    """
    began = virtual_loop.run(played(asked, takes, wishes, workers))
    bound_s = math.ceil(len(KEYS) / workers) * LONGEST_S
    for at, key, seconds, patience_s in asked:
        latest = at + seconds + patience_s + bound_s
        assert any(at - TICK_S <= start <= latest + TICK_S for name, start in began if name == key)


async def played(asked, takes, wishes, workers):
    """Serve until everything that was *asked* for has had its turn; return who began when."""
    loop, began, running = asyncio.get_running_loop(), [], set()
    least: dict[str, float] = {}
    """The least due + patience that was asked for since a key's last turn."""
    here: dict[str, float] = {}
    """Of those that are due for sure, due + patience."""

    def note(key, by):
        least[key] = min(by, least.get(key, math.inf))

    async def work(key):
        number = len(began)
        assert key not in running
        here.pop(key, None)
        assert least.pop(key) <= min(here.values(), default=math.inf) + TICK_S
        running.add(key)
        began.append((key, loop.time()))
        await asyncio.sleep(takes[number % len(takes)])
        running.discard(key)
        wish = wishes[number % len(wishes)] if loop.time() < 60 else None
        if wish is not None:
            note(key, loop.time() + wish)
        return wish

    def ask(key, seconds, patience_s):
        by = loop.time() + seconds + patience_s
        note(key, by)
        if not seconds and key not in running:
            here[key] = min(by, here.get(key, math.inf))
        queue.add_after(key, seconds, patience_s)

    errors = []
    queue = KeyedQueue(work=work, draw=lambda: 0.0, done=lambda key, took_s, error: errors.append(error))
    for at, key, seconds, patience_s in asked:
        loop.call_at(at, ask, key, seconds, patience_s)
    task = asyncio.create_task(queue.serve(workers))
    await asyncio.sleep(200)
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
