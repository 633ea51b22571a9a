"""
The engine: it leads a worker's users through their flows, as places and profile ask for.

A user that is on walks its flow over and over. It waits in the wheel while it thinks, and in the client while a request
is out. It leaves after its current action; while it thinks, at once. A failed request ends its iteration: the next one
begins after a pause of 100 ms, doubled with every failure in a row up to 1 s, so a target that refuses is no busy loop.
An iteration in which nothing could be sent pauses 100 ms as well.

In the open model (visits.py) a user walks once for each arrival it takes, and waits for the next one in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from trafficsim_api.layout import Drop
from trafficsim_api.places import Archetypes
from trafficsim_runner.acting import Acting, pause_after
from trafficsim_runner.crowd import MS
from trafficsim_runner.draws import key_of
from trafficsim_runner.http.client import Client
from trafficsim_runner.pacing import LOOK_MS, Pacer, spread
from trafficsim_runner.program import (
    AGAIN,
    CHOOSE,
    END,
    REPEAT,
    REQUEST,
    SCENE,
    THINK,
    Program,
    RequestStep,
    Step,
    go_round,
)  # fmt: skip
from trafficsim_runner.starts import PRIORITY
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.raw import RawLog
from trafficsim_runner.users import ACTED, COUNTED, PARKED, STARTING, THINKING, WORKING, User
from trafficsim_runner.visits import NEVER_NS, Piece, Schedule, dress
from trafficsim_runner.wheel import Wheel

__all__ = ["MS", "Engine"]

RETRY_NS: Final = 100 * MS
START_SPREAD_MS: Final = 1000
CHUNK: Final = 8
# Steps a user may walk without waiting before the others get their turn.
STRIDE: Final = 1000
# What follows the end of a flow while starts may have to wait: nothing that the hot loop sends by itself.
_ASKS: Final = Step(AGAIN)


class Engine(Acting):
    """
    The users of one worker, led through their flows.

    *on_fault* is called with every mistake of ours that came up while a user was led on: it costs that user its
    iteration, and nobody else anything.
    """

    def __init__(
        self,
        *,
        account: Account,
        clock: Callable[[], int],
        wall_s: Callable[[], float],
        raw: RawLog | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_fault: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        super().__init__(account=account, clock=clock, on_change=on_change)
        self._on_fault = on_fault
        self._wheel: Wheel[User] = Wheel(clock() // MS)
        self._armed_ms = 0
        self._is_waking = False
        self._pacer: Pacer | None = None
        self._piece: Piece | None = None  # None: the closed model
        self._schedule = Schedule()
        self._program: Program | None = None
        self._archetypes = Archetypes([1])
        self._seed = 0
        self._priorities: tuple[int, ...] = ()
        self._ends: list[tuple[Step, Step]] = []  # of the flows, with what follows
        self._let: User | None = None  # who waited and begins now
        self._origin_ns = 0
        self._due_us = -1  # of the first user, from the run's start
        self._late_us: int | None = None
        self.takes: Mapping[int, int] = {}  # from which arrival on the places gained count
        self.client = Client(
            account=account, walker=self, clock=clock, wall_s=wall_s, raw=raw, on_timer=self.wake
        )  # fmt: skip

    # What the worker asks for.

    def use_program(
        self, program: Program, weights: Iterable[int], seed: int, priorities: Sequence[int] = ()
    ) -> None:  # fmt: skip
        """
        Let users walk *program* from their next step on; users already on keep what they saved.

        *priorities*, of each archetype, count where starts have to wait; absent: all alike.
        """
        if self._program is not None:
            self._program.retire()
        self._program = program
        self._archetypes = Archetypes(tuple(weights))
        self._seed = seed
        self._priorities = tuple(priorities) or (PRIORITY,) * len(program.tops)
        self._ends = [(step, step.next) for step in program.steps if step.kind == END]
        self._watch_starts()

    def follow(self, pacer: Pacer, origin_ns: int, piece: Piece | None = None) -> None:
        """
        Hold the places of *pacer* from now on; places gained that are on start evenly over at most 1 s.

        With a *piece* (the open model) nobody starts but for an arrival.
        """
        now_ns = self._clock()
        if origin_ns != self._origin_ns or (piece is None) != (self._piece is None):
            self._change_model(now_ns)
        self._pacer, self._origin_ns, self._piece = pacer, origin_ns, piece
        self._count_time(now_ns)
        self.wanted = pacer.wanted((now_ns - origin_ns) // MS)
        if piece is not None:
            self._open(pacer, piece, now_ns)
            return
        self._note_due(pacer, 0, (now_ns - origin_ns) // MS)
        on = pacer.slice(0, self.wanted)
        wanted = set(on)
        for place in [place for place in self._users if place not in wanted]:
            self._leave(self._users[place], now_ns)
        self._start([place for place in on if not self._is_on(place)], START_SPREAD_MS, now_ns)
        self._awaited = {p for p, user in self._users.items() if user.leaving or not user.begun}
        self._settled = False
        self._changed()
        self.client.bury()

    def look(self) -> int:
        """Start or stop users as the profile asks for now; return when to look again (CLOCK_MONOTONIC ns)."""
        now_ns = self._clock()
        if self._pacer is None:
            return now_ns + 86_400_000 * MS
        at_ms = (now_ns - self._origin_ns) // MS
        wanted, before = self._pacer.wanted(at_ms), self.wanted
        next_ms = self._pacer.next_look_ms(at_ms)
        self._count_time(now_ns)
        self.wanted = wanted
        if self._piece is not None:
            if self._pacer.is_off(at_ms):
                self._giving = False
                self._leave_all(now_ns)
        elif wanted > before:
            self._note_due(self._pacer, at_ms - LOOK_MS, at_ms)
            places = [place for place in self._pacer.slice(before, wanted) if not self._is_on(place)]
            # Within a ramp the next look is near: starts are spread until then. A jump is spread like an assignment's.
            self._start(places, min(START_SPREAD_MS, next_ms - at_ms), now_ns)
        elif wanted < before:
            for place in self._pacer.slice(wanted, before):
                if place in self._users:
                    self._leave(self._users[place], now_ns)
        self._changed()
        self.client.bury()
        return self._origin_ns + next_ms * MS

    @property
    def late_us(self) -> int | None:
        """Return by how much the first user of the run began after it was due; None while nobody has begun."""
        if self._late_us is None and self.first_ns and self._due_us >= 0:
            self._late_us = (self.first_ns - self._origin_ns) // 1000 - self._due_us
        return self._late_us

    def _note_due(self, pacer: Pacer, since_ms: int, at_ms: int) -> None:
        """Take note of when the first user was due, if it was in the ms from *since_ms* to *at_ms*."""
        if self._due_us < 0 and self.wanted:
            self._due_us = 1000 * pacer.first_on_ms(since_ms, at_ms)

    def drain(self) -> None:
        """Let everybody leave after the current action; no place is held any more."""
        now_ns = self._clock()
        self._pacer = None
        self._schedule = Schedule()
        self._giving = False
        self._count_time(now_ns)
        self.wanted = 0
        self._leave_all(now_ns)
        self._changed()
        self.client.bury()

    def cut(self) -> None:
        """Break off what those who leave are still doing: the deadline has come."""
        now_ns = self._clock()
        for user in tuple(self._leaving.values()):
            if self.client.is_sending(user):  # else a scenario says its farewell, and is in between
                self.client.cut(user, now_ns)
            self._account.count("cut")
            self._park(user, now_ns)
        self._changed()
        self.client.bury()

    # Coming and going.

    def _is_on(self, place: int) -> bool:
        """Say whether the user of *place* is there; one about to leave stays on instead."""
        user = self._users.get(place)
        if user is None:
            return False
        if user.leaving:
            user.leaving = False
            del self._leaving[place]
            self._account.count("places_gained")
        return True

    def _start(self, places: list[int], over_ms: int, now_ns: int) -> None:
        program = self._program
        if program is None or not places:
            return
        self._account.count("places_gained", len(places))
        for place, delay_ms in zip(places, spread(len(places), over_ms), strict=True):
            archetype = self._archetypes.of(place)
            user = self._pool.acquire(place, archetype, key_of(self._seed, place))
            user.step = program.tops[archetype]
            user.state = STARTING
            self._users[place] = user
            self._account.count("iterations")
            self._wait(user, now_ns + delay_ms * MS, STARTING)
        self._watch_starts()

    # The open model.

    def _open(self, pacer: Pacer, piece: Piece, now_ns: int) -> None:
        """Hold the places of *pacer*, and take the arrivals of *piece*."""
        at_ns = now_ns - self._origin_ns
        self._schedule.end_ns = pacer.end_ms * MS
        self.takes = piece.takes
        if pacer.is_off(at_ns // MS):
            self._schedule = Schedule()
            self._leave_all(now_ns)
        else:
            self._account.count("arrivals_twice", self._schedule.follow(piece, at_ns))
            self.takes = self._schedule.takes
        lost = self._schedule.lost
        self._giving, self._settled = bool(lost), False
        self._keep((*pacer.places, *lost), now_ns)
        if not self._is_waking:
            self._arm(self._wheel.next_ms())

    def _keep(self, places: Sequence[int], now_ns: int) -> None:
        """Let the users of *places* take arrivals, and everybody else leave."""
        self._slots.hold(places)
        for place in [place for place in self._users if place not in self._slots.held]:
            self._leave(self._users[place], now_ns)
        self._awaited = {place for place, user in self._users.items() if user.leaving}
        self._changed()
        self.client.bury()

    def _gave(self) -> None:
        """Let go of the places that were lost: their last arrival before another's turn was begun."""
        self._giving = False
        self._keep(self._pacer.places if self._pacer is not None else (), self._clock())

    def _change_model(self, now_ns: int) -> None:
        """Begin anew with nobody there: the run's time, or what makes users come, is another."""
        self._schedule = Schedule()
        self._giving = False
        if self._piece is not None or self._slots.free:
            self._leave_all(now_ns)

    def _admit(self) -> None:
        """Let everybody come whose instant has come, in chunks of 8 with the answers that came handled between."""
        now_ns, schedule, come = self._clock(), self._schedule, 0
        while self._origin_ns + schedule.next_ns <= now_ns:
            number, place, due_ns = schedule.number, schedule.place, self._origin_ns + schedule.due_ns
            if self._due_us < 0:
                self._due_us = schedule.due_ns // 1000
            schedule.take()
            self._account.count("arrivals_planned")
            self._arrive(number, place, due_ns)
            come += 1
            if come % CHUNK == 0:
                self.client.handle_ready()

    def _arrive(self, number: int, place: int, due_ns: int) -> None:
        """Begin the iteration that is arrival *number*, due at *due_ns*, if anybody is free for it."""
        taker, piece, program = self._slots.choose(place, self._users), self._piece, self._program
        if taker is None or piece is None or program is None:
            self._account.drop(Drop.NO_SLOT)
            return
        archetype = self._archetypes.of(number)
        user = self._slots.free.pop(taker, None)
        if user is None:
            user = self._users[taker] = self._pool.acquire(taker, archetype, 0)
            self._account.count("places_gained")
        dress(user, number=number, users=piece.users, seed=self._seed, archetype=archetype)
        user.step, user.state = program.tops[archetype], STARTING
        self._account.count("iterations")
        try:
            self._walk(user, self._clock(), due_ns)
        except Exception as error:  # noqa: BLE001 - the others are due as well
            self.broke(user, error)
        if user not in self.starts:
            self._count_start(user)

    def _count_start(self, user: User) -> None:
        """Count the arrival of *user* as started, once: its iteration has begun, and waits for nobody."""
        if user.state != PARKED and not user.marks & COUNTED:
            user.marks |= COUNTED
            self._account.count("arrivals_started")

    def _over(self, user: User, now_ns: int, *, is_done: bool) -> None:
        """Let *user* wait for its next arrival: its iteration has ended."""
        if is_done:
            self._account.count("iterations_done")
        if self.stage is not None:
            self.stage.end(user)
        if user.begun:
            user.begun = False
            self._count_active(-1, now_ns)
            self._account.slab.now(active=self.active, wanted=self.wanted)
        user.state, user.step = PARKED, None
        self._slots.free[user.place] = user

    # Starts that wait while load is high.

    def measure(self, load_permille: int) -> None:
        """Hear the load of the last second: above 80 % fewer flows may begin (see starts.py)."""
        self.starts.measure(load_permille)
        self._watch_starts()
        for _ in range(0, len(self.starts), CHUNK):
            self._let_begin()
            self.client.handle_ready()  # else the first to begin would wait for their answers until all have begun
        self.client.bury()

    def _watch_starts(self) -> None:
        """
        Let the hot loop ask before a flow begins anew in the cut, and never outside of it.

        Nor while there are no more users than requests may be out: then nobody has to wait, and asking costs as much as
        the request.
        """
        asks = self.starts.is_cut and len(self._users) > self.starts.limit
        for end, top in self._ends:
            end.next = _ASKS if asks else top
        if self.stage is not None:
            self.stage.starts_wait = asks

    def _has_to_wait(self, user: User) -> bool:
        """Say whether the request of *user* is the first of an iteration that has to wait."""
        return not user.marks & ACTED and user is not self._let and self.starts.holds_back(self.client.in_flight)

    def _hold_back(self, user: User, step: Step, now_ns: int, due_ns: int) -> None:
        user.step, user.state = step, STARTING
        known = user.archetype < len(self._priorities)  # a scenario goes on though its archetype may have gone
        self.starts.push(user, self._priorities[user.archetype] if known else PRIORITY, now_ns, due_ns)
        self._account.count("starts_delayed")
        self._let_begin()

    def _let_begin(self) -> None:
        """Let those begin that waited, as far as the limit allows, at most 8 of them."""
        if self._let is not None:
            return
        for _ in range(CHUNK):
            found = self.starts.pop(self.client.in_flight)
            if found is None:
                return
            self._let = user = found[0]
            try:
                self._walk(user, self._clock(), found[1])
            except Exception as error:  # noqa: BLE001 - the others wait as well
                self.broke(user, error)
            finally:
                self._let = None
            if self._piece is not None:
                self._count_start(user)

    # Walking.

    def _walk(self, user: User, now_ns: int, due_ns: int) -> None:  # noqa: C901 - a table of the kinds of steps
        """Lead *user* on until it waits for something."""
        step = user.step
        assert step is not None
        for _ in range(STRIDE):
            if user.leaving:
                last = self._last_step(user, step)
                if last is None:
                    self._park(user, now_ns)
                    self._changed()
                    return
                step = last
            kind = step.kind
            if kind == REQUEST:
                assert isinstance(step, RequestStep)
                if self.starts.is_cut and self._has_to_wait(user):
                    self._hold_back(user, step, now_ns, due_ns)
                    return
                wire = step.render(user)
                if wire is not None:
                    user.step, user.state = step, WORKING
                    user.marks |= ACTED
                    self.client.request(user, step, wire, now_ns, due_ns)
                    return
                self._account.drop(Drop.TEMPLATE)
                step = step.next
            elif kind == THINK:
                assert step.pause is not None
                pause, step = step.pause(user), step.next
                if pause > 0:
                    user.step = step
                    self._wait(user, now_ns + pause)
                    return
            elif kind in (REPEAT, AGAIN):
                step = go_round(user, step)
            elif kind == CHOOSE:
                assert step.pick is not None
                step = step.pick(user)
            elif kind == SCENE:
                following = self._act(user, step, now_ns)
                if following is None:
                    return
                step, now_ns = following, self._clock()  # what the scenario computed is lag, not service time
            elif self._piece is not None:
                self._over(user, now_ns, is_done=kind == END)
                return
            else:
                step = self._next_iteration(user, is_done=kind == END)
                if not user.marks & ACTED:
                    user.step = step
                    self._wait(user, now_ns + RETRY_NS)
                    return
                user.marks &= ~ACTED
        user.step = step
        self._wait(user, now_ns + MS)

    def _next_iteration(self, user: User, *, is_done: bool) -> Step:
        """Return the top of the flow; a load edited meanwhile may have made the user another archetype."""
        assert self._program is not None
        if is_done:
            self._account.count("iterations_done")
        self._account.count("iterations")
        user.iteration += 1
        user.loops = None
        user.archetype = self._archetypes.of(user.place)
        top = self._program.tops[user.archetype]
        if self.stage is not None:
            self.stage.moves(user, top)
        return top

    def _wait(self, user: User, due_ns: int, state: int = THINKING) -> None:
        user.state = state
        due_ms = -(-due_ns // MS)
        self._wheel.park(user, due_ms)
        if not self._is_waking and (not self._armed_ms or due_ms < self._armed_ms):
            self._arm(due_ms)

    def _arm(self, due_ms: int | None) -> None:
        self._armed_ms = due_ms or 0
        at_ns = NEVER_NS if due_ms is None else due_ms * MS
        at_ns = min(at_ns, self._origin_ns + self._schedule.next_ns)
        if at_ns < NEVER_NS:
            self.client.timer.arm(at_ns)

    def wake(self) -> None:
        """Lead on everybody who is due, in chunks of 8 with the answers that came handled between."""
        if self._is_waking:
            return  # the timer fired while those due before are led on: they come first, then it is armed again
        self._is_waking = True
        try:
            self._wake()
            self._admit()
            if self._giving and not self._schedule.lost:
                self._gave()
        finally:
            self._is_waking = False
        self._arm(self._wheel.next_ms())

    def _wake(self) -> None:
        due = self._wheel.take_due(self._clock() // MS)
        for first in range(0, len(due), CHUNK):
            if first:
                self.client.handle_ready()
            for user in due[first : first + CHUNK]:
                # Someone earlier in the list may have parked it, or its record may be another user's by now.
                if user.due_ms < 0 and user.state in (STARTING, THINKING):
                    due_ns = -user.due_ms * MS
                    user.due_ms = 0
                    try:
                        self._walk(user, self._clock(), due_ns)
                    except Exception as error:  # noqa: BLE001 - the others are due as well
                        self.broke(user, error)

    # What the client tells (see Walker).

    def sent(self, user: User) -> None:
        """Count the user as active: its first request is on its way."""
        self._begin(user, self._clock())

    def answered(self, user: User, now_ns: int) -> None:
        """Lead the user on after its answer."""
        self._walk(user, now_ns, now_ns)
        if self.starts:
            self._let_begin()

    def failed(self, user: User, now_ns: int) -> None:
        """Pause, then begin the flow anew; a scenario goes on and hears of it."""
        self._begin(user, now_ns)
        if not self._falters(user, now_ns):
            self._stumble(user, now_ns)
        if self.starts:
            self._let_begin()

    def _stumble(self, user: User, now_ns: int) -> None:
        """End an iteration that failed; the next one begins after a pause."""
        if user.leaving:
            self._park(user, now_ns)
            self._changed()
            return
        if self._piece is not None:
            self._over(user, now_ns, is_done=False)
            return
        user.step = self._next_iteration(user, is_done=False)
        user.marks &= ~ACTED
        self._wait(user, now_ns + pause_after(user) * MS)

    def refused(self, user: User, now_ns: int) -> None:
        """Try again in 100 ms: every try is work that was due. An arrival is over instead: its instant has passed."""
        if self._piece is not None:
            if user.leaving:
                self._park(user, now_ns)
                self._changed()
            else:
                self._over(user, now_ns, is_done=False)
            return
        self._wait(user, now_ns + RETRY_NS)

    def broke(self, user: User, error: Exception) -> None:
        """Let the user begin anew, as after a failure; one that left or waits already is left alone."""
        self._on_fault(error)
        if user.state != PARKED and user.due_ms <= 0:
            self.client.give_up(user)
            self.failed(user, self._clock())
