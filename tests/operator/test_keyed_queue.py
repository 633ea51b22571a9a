"""The work queue, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from trafficsim_api.errors import Unavailable
from trafficsim_operator.queue import Backoff, KeyedQueue

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


@pytest.mark.parametrize(
    ("failures", "draw", "seconds"), [(1, 0.0, 1), (2, 0.0, 2), (3, 1.0, 2), (10, 0.0, 60), (10_000, 0.5, 45)]
)
def test_backoff(failures, draw, seconds):
    """min(60, 2ⁿ⁻¹), of which up to half is taken off."""
    assert seconds == Backoff(base_s=1, cap_s=60, jitter=0.5).delay(failures, draw)
