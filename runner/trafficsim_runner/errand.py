"""
An errand: one walk through one flow, with nobody else at work. Setup and teardown are errands.

It uses the users' client, checks, templates and limits, and counts in an account of its own, so nothing of it is in the
numbers a run is judged by. Unlike a user it goes no further than the first request that fails, the first check that is
missed, and the first template that cannot be filled.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from trafficsim_api.layout import ERROR_KINDS, Layout
from trafficsim_api.protocol import Limits, Load, Task
from trafficsim_api.resource import Archetype, actions_of
from trafficsim_api.sealed import MAX_VALUES
from trafficsim_api.units import format_duration
from trafficsim_runner.draws import key_of
from trafficsim_runner.flow import compile_load
from trafficsim_runner.http.client import Client
from trafficsim_runner.http.endpoint import endpoint_of, tls_of
from trafficsim_runner.program import CHOOSE, END, REQUEST, THINK, RequestStep, go_round
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.raw import RawLog, read_raw
from trafficsim_runner.stats.slab import SlabWriter
from trafficsim_runner.users import User

__all__ = ["Errand", "Outcome"]

SWEEP_S: Final = 0.05
# Steps that may be walked without waiting before the event loop gets its turn.
STRIDE: Final = 1000
# Draws of no user: places end far below.
FIRST_KEY: Final = 1 << 40
_KINDS: Final = ("setup", "teardown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an errand ended: *cause* is why it failed, "" when it did not; *failed* counts requests as users' do."""

    cause: str
    requests: int
    failed: int
    saved: Mapping[str, str] = field(default_factory=dict)


class Errand:
    """
    The walk through *task*'s flow against the target of *load*, within *limits*.

    Its counters stand in *directory* while it lasts; *clock* is CLOCK_MONOTONIC in ns, *wall_s* the wall clock in s.
    """

    def __init__(
        self, task: Task, load: Load, limits: Limits, *, environ: Mapping[str, str], directory: Path,
        clock: Callable[[], int], wall_s: Callable[[], float],
    ) -> None:  # fmt: skip
        """Compile the flow; raise ValueError for one that cannot be done."""
        self._timeout_s = task.timeout_ms / 1000
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        archetypes = (Archetype(name=task.kind, flow=task.flow),)
        self._actions = actions_of(archetypes)
        self._paths = directory / "errand.slab", directory / "errand.raw"
        self._layout = Layout(actions=self._actions)
        self._account = Account(SlabWriter(self._paths[0], self._layout, started_ns=clock()))
        self._raw = RawLog(self._paths[1])
        self.client = Client(account=self._account, walker=self, clock=clock, wall_s=wall_s, raw=self._raw)
        self._at: RequestStep | None = None
        self._missed = 0
        self._user = User()
        self._user.place = self._user.archetype = 0
        self._user.key = key_of(load.seed, FIRST_KEY + _KINDS.index(task.kind))
        try:
            self._aim(load.model_copy(update={"archetypes": archetypes, "arrivals": None}), limits, environ)
        except BaseException:
            self.close()
            raise

    def _aim(self, load: Load, limits: Limits, environ: Mapping[str, str]) -> None:
        """Compile the flow, and let the client connect where *limits* allow it."""
        endpoint = endpoint_of(load.target)
        numbers = {action: number for number, action in enumerate(self._actions)}
        program = compile_load(load, endpoint, numbers, self._account.tallies, environ)
        for step in program.steps:
            if isinstance(step, RequestStep):
                if limits.verbs and step.verb not in limits.verbs:
                    raise ValueError(f"the policy does not allow {step.verb.upper()}")
                # Subtle: else the client's hot loop would go on by itself, past missed checks and the flow's end.
                step.time()
        self._user.step = program.tops[0]
        self.client.aim(endpoint, tls_of(load) if endpoint.is_tls else None, lambda: tls_of(load))
        self.client.allow(
            limits.targets, connections=limits.connections, concurrency=limits.concurrency, verbs=limits.verbs
        )
        self.client.max_age_ns = load.connections.max_age // timedelta(microseconds=1) * 1000

    async def walk(self) -> Outcome:
        """Walk the flow to its end, or as far as it goes; cancelled, it ends at once."""
        self._loop.add_reader(self.client.fileno(), self.client.drain)
        self._sweep()
        self._loop.call_soon(self._go_on)
        try:
            async with asyncio.timeout(self._timeout_s):
                cause = await self._ended
        except TimeoutError:
            limit = format_duration(timedelta(seconds=self._timeout_s))
            cause = f"it was not done within {limit}" + (f"; it was at {self._name}" if self._at else "")
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._loop.remove_reader(self.client.fileno())
        return self._outcome(cause)

    @property
    def requests(self) -> int:
        """Return how many requests were sent so far."""
        self._account.fold()
        return self._total("sent")

    def close(self) -> None:
        """Close what is open and remove the counters."""
        self.client.close()
        self._raw.close()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _outcome(self, cause: str) -> Outcome:
        saved = dict(self._user.saved or {})
        size = len(json.dumps(saved))
        if not cause and size > MAX_VALUES:
            cause = f"what it saved is too large: {size} bytes, at most {MAX_VALUES} are possible"
        return Outcome(cause=cause, requests=self.requests, failed=self._total("failed"), saved=saved)

    def _total(self, counter: str) -> int:
        live, layout = self._account.live, self._layout
        return sum(live[layout.action(number, counter)] for number in range(len(self._actions)))

    @property
    def _name(self) -> str:
        assert self._at is not None
        return self._actions[self._at.action][0]

    # Walking.

    def _go_on(self) -> None:
        if self._ended.done():
            return
        try:
            self._walk(self._user, self._clock())
        except Exception as error:  # noqa: BLE001 - whatever it is, the errand has ended
            self.broke(self._user, error)

    def _walk(self, user: User, now_ns: int) -> None:
        """Lead *user* on until it waits for something."""
        step = user.step
        assert step is not None
        for _ in range(STRIDE):
            if step.kind == REQUEST:
                assert isinstance(step, RequestStep)
                self._ask(user, step, now_ns)
                return
            if step.kind == END:
                self._end("")
                return
            if step.kind == THINK:
                assert step.pause is not None
                pause, user.step = step.pause(user), step.next
                self._timers["think"] = self._loop.call_later(pause / 1e9, self._go_on)
                return
            if step.kind == CHOOSE:
                assert step.pick is not None
                step = step.pick(user)
            else:
                step = go_round(user, step)
        user.step = step
        self._loop.call_soon(self._go_on)

    def _ask(self, user: User, step: RequestStep, now_ns: int) -> None:
        self._at = step
        wire = step.render(user)
        if wire is None:
            self._end(f"{self._name}: a template could not be filled")
            return
        self._missed = self._total("checks_failed")
        user.step = step
        self.client.request(user, step, wire, now_ns, now_ns)

    def _end(self, cause: str) -> None:
        if not self._ended.done():
            self._ended.set_result(cause)

    def _sweep(self) -> None:
        self.client.sweep(self._clock())
        self._timers["sweep"] = self._loop.call_later(SWEEP_S, self._sweep)

    # What the client tells (see Walker).

    def sent(self, user: User) -> None:
        """Note that the first request is on its way."""
        user.begun = True

    def answered(self, user: User, now_ns: int) -> None:
        """Go on, unless a check was missed."""
        self._account.fold()
        if self._total("checks_failed") > self._missed:
            self._end(self._complaint(user))
        else:
            self._go_on()

    def failed(self, user: User, now_ns: int) -> None:
        """End: a request failed."""
        self._account.fold()
        assert self._at is not None
        number = self._at.action
        kinds = [kind for kind in ERROR_KINDS if self._account.live[self._layout.action(number, f"error_{kind}")]]
        self._end(f"{self._name} failed: {', '.join(kinds)}")

    def refused(self, user: User, now_ns: int) -> None:
        """End: no connection was free."""
        self._end(f"{self._name}: no connection was free")

    def broke(self, user: User, error: Exception) -> None:
        """End: a mistake of ours."""
        self._end(f"an internal mistake ({type(error).__name__})")

    def _complaint(self, user: User) -> str:
        """Say which check of the last answer was missed."""
        step = self._at
        assert step is not None
        self._raw.flush()
        status = [record.status for record in read_raw(self._paths[1])][-1]
        if step.checks.accepted is not None and not step.checks.accepted(status):
            return f"{self._name} was answered {status}, which was not expected"
        saved = user.saved or {}
        lacking = [f"{save.kind}.{save.what}".rstrip(".") for save in step.saves if save.variable not in saved]
        if lacking:
            return f"{self._name} was answered {status} without {', '.join(lacking)}"
        return f"{self._name} was answered {status}, not with the header, JSON or text expected"
