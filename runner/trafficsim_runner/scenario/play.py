"""
One user's scenario at work: a coroutine led on by hand, from where the answer came.

    (start →) run → run → … → (stop)

A coroutine that asyncio's Task leads costs a future, a call through the loop and a context for every request; here the
answer is sent into it at once. Awaiting asyncio's futures works all the same: the user goes on when one is done. What
needs a current task gets one (`task = True`): then the same coroutine runs within a Task that waits for us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from trafficsim_api.layout import Drop
from trafficsim_runner.scenario.asking import Ask

if TYPE_CHECKING:
    from trafficsim_runner.scenario.answers import Response
    from trafficsim_runner.scenario.scenario import Scenario
    from trafficsim_runner.scenario.stage import Scene
    from trafficsim_runner.users import User

__all__ = ["DONE", "FAILED", "GONE", "RAISED", "RUN", "START", "STOP", "WAITING", "Play"]

START: Final = 0
RUN: Final = 1
STOP: Final = 2
GONE: Final = 3

DONE: Final = object()  # the method has returned
FAILED: Final = object()  # it raised what stands in Play.failure
WAITING: Final = object()  # its task will say what follows

# What scenarios may raise: an exit is theirs, not the worker's.
RAISED: Final = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)
_CLOSES: Final = 3


class Play:
    """
    The scenario of *user*: *answer* or *error* is what its coroutine gets next, *failure* what it raised.

    *come*: what it came to already, when somebody else led it on. *generation*: of the load it works by, *archetype*:
    whose name the user has there.

    *until_ns*: when its stop() is broken off. *has_failed*: its iteration failed, and stop() is still to come.
    """

    __slots__ = (
        "_future", "_told", "answer", "archetype", "come", "coroutine", "error", "failure", "generation", "has_failed",
        "phase", "scenario", "scene", "task", "until_ns", "user", "waits",
    )  # fmt: skip

    def __init__(self, scene: Scene, user: User) -> None:
        self.scene = scene
        self.user = user
        self.phase = RUN
        self.coroutine: Coroutine[Any, Any, None] | None = None
        self.answer: Response | None = None
        self.error: BaseException | None = None
        self.failure: BaseException | None = None
        self.come: object = None
        self.generation = 0
        self.archetype = ""
        self.has_failed = False
        self.until_ns = 0
        self.waits: asyncio.Future[Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self._future: asyncio.Future[Response | None] | None = None
        self._told: object = None
        self.scenario: Scenario | None = None

    def enter(self) -> None:
        """Make the scenario's instance; whatever its __init__ raises is raised."""
        kind = self.scene.declared.kind
        scenario = kind.__new__(kind)
        scenario._play = self
        scenario.__init__()  # type: ignore[misc]  # after _play is there: it may draw and ask who the user is
        self.scenario = scenario
        self.phase = START if self.scene.has_start else RUN

    def advance(self) -> object:
        """Lead the coroutine on; return what it awaits (an Ask, a pause in ns, a future), DONE, FAILED or WAITING."""
        if self.scene.in_task:
            return self._advance_task()
        if self.come is not None:
            come, self.come = self.come, None
            return come
        found = self.coroutine
        try:
            if found is None:
                found = self.coroutine = self._call()
            error = self.error
            if error is None:
                answer = self.answer
                self.answer = None
                return found.send(answer)
            self.error = None
            return found.throw(error)
        except StopIteration:
            self.coroutine = None
            return DONE
        except RAISED as error:
            self.coroutine, self.failure = None, error
            return FAILED

    def comes_to(self, what: object, failure: BaseException | None = None) -> None:
        """Keep what the coroutine came to, for `advance` to return; it is over."""
        self.coroutine, self.come, self.failure = None, what, failure

    def _call(self) -> Coroutine[Any, Any, None]:
        if self.scenario is None:
            self.enter()
        assert self.scenario is not None
        if self.phase == RUN:
            return self.scenario.run()
        return self.scenario.start() if self.phase == START else self.scenario.stop()

    def wait_for(self, future: asyncio.Future[Any]) -> None:
        """Go on when *future* is done."""
        future._asyncio_future_blocking = False
        self.waits = future
        future.add_done_callback(self._woken)

    def _woken(self, future: asyncio.Future[Any]) -> None:
        if self.waits is future:
            self.waits = None
            self.scene.stage.resume(self.user)

    def close(self, tell: Callable[[BaseException], None]) -> None:
        """
        End the coroutine where it is: its finally blocks run.

        They cannot wait: an await in one is broken off as well, and told.
        """
        if self.waits is not None:
            self.waits.remove_done_callback(self._woken)
            self.waits = None
        self.answer = self.error = self.come = None
        if self.task is not None:
            task, self.task = self.task, None
            self._told = self._future = None
            task.cancel()
            self.scene.stage.ending(task)
            return
        coroutine, self.coroutine = self.coroutine, None
        for _ in range(_CLOSES):
            if coroutine is None:
                return
            try:
                coroutine.close()
                return
            except RAISED as error:
                tell(error)
                if coroutine.cr_frame is None:  # type: ignore[attr-defined]
                    return

    def check(self, *, passed: bool) -> bool:
        """Count a check of the last answer."""
        return self.scene.stage.check(self.user, passed=passed)

    @property
    def saved(self) -> dict[str, str]:
        """Return what is saved for the user."""
        if self.user.saved is None:
            self.user.saved = dict(self.scene.stage.given)
        return self.user.saved

    # In a task.

    def _advance_task(self) -> object:
        told, self._told = self._told, None
        if told is not None:
            return told
        if self.task is None:
            try:
                call = self._call()
            except RAISED as error:
                self.failure = error
                return FAILED
            self.task = asyncio.get_running_loop().create_task(_awaited(self, call))
            self.task.add_done_callback(self._ended)
            return WAITING
        future, self._future = self._future, None
        if future is not None and not future.done():
            if self.error is None:
                future.set_result(self.answer)
            else:
                future.set_exception(self.error)
            self.error = self.answer = None
        return WAITING

    def tell(self, found: object) -> asyncio.Future[Response | None]:
        """Ask the stage for what the task awaits; return the future of its answer."""
        loop = asyncio.get_running_loop()
        self._future, self._told = loop.create_future(), found
        loop.call_soon(self._resume)
        return self._future

    def _resume(self) -> None:
        if self._told is not None:  # else it was broken off meanwhile, and the record may be another user's
            self.scene.stage.resume(self.user)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self.task is not task:
            return
        self.task, self.failure = None, error
        self._told = DONE if error is None else FAILED
        self.scene.stage.resume(self.user)

    def abandon(self) -> None:
        """Break off what the task awaited of us: it was cancelled, by a time-out of the scenario's own."""
        if type(self._told) is Ask:  # nobody has taken it yet
            self.scene.stage.account.drop(Drop.LEFT)
        self._told = self._future = None
        self.scene.stage.abandon(self.user)


async def _awaited(play: Play, inner: Coroutine[Any, Any, None]) -> None:
    await _bridged(play, inner)


@coroutine
def _bridged(play: Play, inner: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """Lead *inner* within a task: asyncio's futures are the task's to wait for, everything else is ours."""
    task = asyncio.current_task()
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            found = inner.send(answer) if error is None else inner.throw(error)
        except StopIteration:
            return
        answer = error = None
        try:
            if not (type(found) is Ask or type(found) is int):
                answer = yield found
                continue
            if play.task is not task:
                raise RuntimeError("the user has left: it asks for nothing any more")
            future = play.tell(found)
            try:
                answer = yield from future
            except asyncio.CancelledError:
                if play.task is task:
                    play.abandon()
                raise
        except BaseException as raised:  # noqa: BLE001 - the scenario's to handle, whatever it is
            error = raised
