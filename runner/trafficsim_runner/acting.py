"""Users written in Python among the crowd: how they are led on, wait, and say farewell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from trafficsim_api.layout import Drop
from trafficsim_runner.crowd import MS, Crowd
from trafficsim_runner.program import AGAIN_LATER, Step
from trafficsim_runner.scenario.stage import Stage
from trafficsim_runner.stats.account import Account
from trafficsim_runner.users import THINKING, WORKING, User

__all__ = ["Acting", "pause_after"]

BACKOFF_MS: Final = 100
BACKOFF_MOST_MS: Final = 1000


class Acting(Crowd, ABC):
    """
    The crowd with a *stage* for those of its users that are written in Python; None while there are none.

    To engine and client they are users like others: what they ask for are steps (see scenario/asking.py).
    """

    def __init__(self, *, account: Account, clock: Callable[[], int], on_change: Callable[[], None]) -> None:
        super().__init__(account=account, clock=clock, on_change=on_change)
        self.stage: Stage | None = None

    def enact(self, stage: Stage) -> None:
        """Let users of scenarios be led by *stage*."""
        self.stage = stage
        self.client.hear, self.client.reply = stage.heard, stage.replied

    @abstractmethod
    def _walk(self, user: User, now_ns: int, due_ns: int) -> None:
        """Lead *user* on until it waits for something."""

    @abstractmethod
    def _wait(self, user: User, due_ns: int, state: int = THINKING) -> None:
        """Let *user* wait in the wheel."""

    @abstractmethod
    def _stumble(self, user: User, now_ns: int) -> None:
        """End an iteration that failed."""

    @abstractmethod
    def broke(self, user: User, error: Exception) -> None:
        """Hear of a mistake of ours."""

    def _act(self, user: User, step: Step, now_ns: int) -> Step | None:
        """Lead the scenario of *user* on; return the step that follows, None when it waits."""
        stage = self.stage
        assert stage is not None
        following = stage.lead(user, step)
        if following is not None and following.kind == AGAIN_LATER:
            self._begin(user, now_ns)
            self._stumble(user, now_ns)
            return None
        if following is None:
            user.step = step
            if stage.pause_ns < 0:
                user.state = WORKING
            else:
                self._wait(user, now_ns + stage.pause_ns)
        return following

    def _last_step(self, user: User, step: Step) -> Step | None:
        """Return where *user*, who leaves, goes on; None when there is nothing more to do."""
        return None if self.stage is None else self.stage.farewell(user, step)

    def _falters(self, user: User, now_ns: int) -> bool:
        """Let the scenario of *user* hear, after a pause, that its request failed; say whether it has one."""
        stage = self.stage
        top = None if stage is None else stage.failed(user)
        if top is None:
            return False
        if user.leaving and self._last_step(user, top) is None:
            self._park(user, now_ns)
            self._changed()
        else:
            user.step = top
            self._wait(user, now_ns + pause_after(user) * MS)
        return True

    # What the stage asks for.

    def resume(self, user: User) -> None:
        """Lead *user* on: what it awaited is there."""
        if self.stage is None or user not in self.stage.plays or user.step is None:
            return  # it left meanwhile
        user.due_ms = 0
        now_ns = self._clock()
        try:
            self._walk(user, now_ns, now_ns)
        except Exception as error:  # noqa: BLE001 - the event loop would only log it
            self.broke(user, error)
        self.client.bury()

    def abandon(self, user: User) -> None:
        """Break off the request or pause of *user*; one that was sent is counted as cut, one held back as dropped."""
        if user.state == WORKING:
            if self.client.is_sending(user):
                self.client.cut(user, self._clock())
            self.client.release(user)
            self.client.bury()
        elif self.starts.drop(user):
            self._account.drop(Drop.GENERATOR_SATURATED)
        user.due_ms, user.state = 0, WORKING
        if self.stage is not None and user in self.stage.plays:
            user.step = self.stage.plays[user].scene.top  # else what it asked for is sent once more

    def end_overdue(self, now_ns: int) -> None:
        """Cut the farewells that take longer than they may."""
        if self.stage is not None:
            for user in self.stage.overdue(now_ns):
                if self.client.is_sending(user):
                    self.client.cut(user, now_ns)
                self._account.count("cut")
                if not user.leaving:  # an arrival's: its place is free for the next user
                    self._account.count("places_lost")
                self._park(user, now_ns)
                self._changed()
            self.client.bury()

    # Leaving.

    def _leave(self, user: User, now_ns: int) -> None:
        """Let *user* leave; one of a scenario does first what it does last."""
        is_out = user.state == WORKING and self.client.is_sending(user)
        step = user.step
        if user.leaving or is_out or self.stage is None or step is None or self._last_step(user, step) is None:
            super()._leave(user, now_ns)
            return
        self._account.count("places_lost")
        user.leaving = True
        self._leaving[user.place] = user
        self.abandon(user)
        self._walk(user, now_ns, now_ns)

    def _park(self, user: User, now_ns: int) -> None:
        if self.stage is not None:
            self.stage.end(user)
        super()._park(user, now_ns)


def pause_after(user: User) -> int:
    """Return for how long (ms) *user* pauses after a failure: twice as long after each in a row."""
    user.backoff_ms = min(BACKOFF_MOST_MS, user.backoff_ms * 2 or BACKOFF_MS)
    return user.backoff_ms
