"""
The scenarios of a worker: what its users written in Python do next.

A class goes on as it is when the load is edited; only where its requests go and how they are counted is told anew. An
iteration that raises is over, counted, and told once of each kind and place; the user pauses and begins anew.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlencode

from trafficsim_api.connections import pools_of
from trafficsim_api.layout import Drop, Error
from trafficsim_api.protocol import Load
from trafficsim_api.resource import Expect
from trafficsim_runner.checks import Headers, checks_of
from trafficsim_runner.flow import AGENT
from trafficsim_runner.program import AGAIN_LATER, END, RESTART, Step
from trafficsim_runner.scenario.answers import RequestFailed, Response
from trafficsim_runner.scenario.asking import Ask, AskedStep, SceneStep
from trafficsim_runner.scenario.play import DONE, FAILED, GONE, RAISED, RUN, START, STOP, WAITING, Play
from trafficsim_runner.scenario.scenario import Scenario
from trafficsim_runner.template import in_header, in_path

if TYPE_CHECKING:
    from trafficsim_runner.feeding import Rows
    from trafficsim_runner.http.endpoint import Endpoint
    from trafficsim_runner.scenario.declared import Declared
    from trafficsim_runner.stats.account import Account
    from trafficsim_runner.users import User

__all__ = ["Host", "Scene", "Stage", "UndeclaredAction"]

MS: Final = 1_000_000
# A pause for what will be without end: the coroutine is resumed by a future or a task.
UNTIL_TOLD: Final = -1
STOP_NS: Final = 5_000 * MS
_BALK_NS: Final = 100 * MS
_READY_KEPT: Final = 4096
_STEPS_KEPT: Final = 4096
_NO_PAYLOAD: Final = (None, None, None)
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RESERVED: Final = frozenset({"content-length", "transfer-encoding", "connection", "host"})


class UndeclaredAction(ValueError):
    """A request names an action that its scenario's class does not declare."""


class Host(Protocol):
    """Whose users these are: the engine."""

    def resume(self, user: User) -> None:
        """Lead *user* on: what it awaited is there."""

    def abandon(self, user: User) -> None:
        """Break off the request or pause of *user*."""

    def sent(self, user: User) -> None:
        """Count the user as active."""


class Stage:
    """All scenarios of a worker; *plays* are those of users that are on. *pause_ns*: how long `lead` said to wait."""

    def __init__(
        self, *, account: Account, host: Host, clock: Callable[[], int], on_fault: Callable[[Exception], None]
    ) -> None:  # fmt: skip
        self.account = account
        self.plays: dict[User, Play] = {}
        self.asks: dict[User, Ask] = {}
        self.scenes: dict[str, Scene] = {}
        self._archetypes: tuple[tuple[str, str | None], ...] = ()  # names, with the scenario's reference
        self.given: Mapping[str, str] = {}
        self.closing: frozenset[str] = frozenset()  # groups whose connections close after each answer
        self.verbs: tuple[str, ...] = ()
        self.rows: Mapping[str, Rows] = {}
        self.is_visit = False
        self.starts_wait = False  # the engine is to be asked before an iteration begins
        self.pause_ns = 0
        self.resume = host.resume
        self.abandon = host.abandon
        self._host = host
        self._clock = clock
        self._on_fault = on_fault
        self._ending: dict[asyncio.Task[None], int] = {}
        self._generation = 0  # of the load: users go through the engine before they begin an iteration of another

    # The load.

    def use(self, declared: Mapping[str, Declared], load: Load, endpoint: Endpoint) -> Mapping[str, Step]:
        """Play *declared* from now on, with requests to *endpoint*; return where users of each begin, by reference."""
        self._generation += 1
        self._archetypes = tuple((archetype.name, archetype.scenario) for archetype in load.archetypes)
        groups = (group for scenario in declared.values() for _, group in scenario.actions)
        pools = pools_of(load.connections, groups)
        self.closing = frozenset(name for name, pool in pools.items() if not pool.keep_alive)
        self.given, self.is_visit = load.saved or {}, load.arrivals is not None
        numbers = {action: number for number, action in enumerate(self.account.slab.layout.actions)}
        for reference in [reference for reference in self.scenes if reference not in declared]:
            self.scenes.pop(reference).retire()
        for reference, scenario in declared.items():
            scene = self.scenes.get(reference) or Scene(self, scenario)
            self.scenes[reference] = scene
            scene.aim(endpoint, {name: (group, numbers[name, group]) for name, group in scenario.actions})
        return {reference: scene.top for reference, scene in self.scenes.items()}

    # What the engine asks for.

    def lead(self, user: User, top: Step) -> Step | None:
        """Return the step that follows for *user* at *top*; None when it waits, for *pause_ns*."""
        play = self.plays.get(user)
        if play is None:
            assert isinstance(top, SceneStep)
            play = self.plays[user] = Play(top.scene, user)
            self._adopt(play)
        while True:
            found = play.advance()
            if type(found) is Ask:
                self.asks[user] = found
                if found.problem is None:
                    return found.step
                self._balk(play, found)
                return None
            if type(found) is int:
                self.pause_ns = found
                return None
            if found is DONE or found is FAILED:
                following = self._over(play, is_done=found is DONE)
                if following is not None:
                    return following
                continue
            self.pause_ns = UNTIL_TOLD
            if found is not WAITING:
                self._await(play, found)
            return None

    def heard(self, user: User, status: int, headers: Headers, body: bytes) -> None:
        """Hand an answer to the user's scenario."""
        self.plays[user].answer = Response(status, tuple(headers), body)

    def replied(self, user: User, status: int, headers: Headers, body: bytes) -> Ask | None:
        """
        Hand an answer to the user's scenario, and lead that on to its next request.

        None when that is not what it comes to: then `lead` goes on from there.
        """
        play = self.plays[user]
        coroutine, answer = play.coroutine, Response(status, headers, body)
        if coroutine is None or play.generation != self._generation:
            play.answer = answer
            return None
        try:
            try:
                found = coroutine.send(answer)
            except StopIteration:
                scenario = play.scenario
                if play.phase != RUN or self.is_visit or self.starts_wait or scenario is None:
                    play.comes_to(DONE)
                    return None
                self.account.flows += 1
                user.iteration += 1
                play.coroutine = coroutine = scenario.run()
                found = coroutine.send(None)
        except StopIteration:
            play.comes_to(DONE)
            return None
        except RAISED as error:
            play.comes_to(FAILED, error)
            return None
        if type(found) is Ask and found.problem is None:
            self.asks[user] = found
            return found
        play.come = found
        return None

    def failed(self, user: User) -> Step | None:
        """Let the scenario hear that its request failed; return where it goes on, None when *user* has none."""
        play = self.plays.get(user)
        if play is None:
            return None
        play.answer, play.error = None, RequestFailed(self.account.last_failure)
        return play.scene.top

    def farewell(self, user: User, step: Step) -> Step | None:
        """Return where a user at *step* that leaves goes on, to do what it does last; None when nothing is left."""
        play = self.plays.get(user)
        if play is None or play.scenario is None or play.phase in (START, GONE) or not play.scene.has_stop:
            return None
        if play.phase == STOP:
            return step
        play.close(self._tell)
        self._begin_stop(play)
        return play.scene.top

    def end(self, user: User) -> None:
        """Close what *user* is at, if it has a scenario."""
        play = self.plays.pop(user, None)
        if play is not None:
            self.asks.pop(user, None)
            play.close(self._tell)

    def moves(self, user: User, top: Step) -> None:
        """Hear that *user* goes on at *top*: a scenario that does not begin there is over."""
        play = self.plays.get(user)
        if play is not None:
            if play.scene.top is top:
                self._adopt(play)
            else:
                self.end(user)

    def _adopt(self, play: Play) -> None:
        """Let *play* go by the present load; who came before the edit may have another archetype's number."""
        play.generation, number = self._generation, play.user.archetype
        fitting = [name for name, reference in self._archetypes if reference == play.scene.declared.reference]
        name, _ = self._archetypes[number] if number < len(self._archetypes) else ("", None)
        play.archetype = name if name in fitting else fitting[0]

    def overdue(self, now_ns: int) -> list[User]:
        """Return the users whose stop() takes too long."""
        for task in [task for task, until_ns in self._ending.items() if now_ns > until_ns]:
            task.cancel()
        return [user for user, play in self.plays.items() if play.phase == STOP and now_ns > play.until_ns]

    # What plays ask for.

    def ending(self, task: asyncio.Task[None]) -> None:
        """Keep a task that was cancelled until it is over, and cancel it again when that takes long."""
        self._ending[task] = self._clock() + STOP_NS
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell(error)

    def check(self, user: User, *, passed: bool) -> bool:
        """Count a check of the last answer of *user*."""
        ask = self.asks.get(user)
        if ask is None or ask.step is None:
            raise RuntimeError("check: no request was made yet")
        self.account.checked(ask.step.tally, missed=not passed)
        return passed

    def row(self, user: User, feeder: str) -> dict[str, str]:
        """Return the row that *user* has of *feeder* in its present iteration."""
        rows = self.rows.get(feeder)
        if rows is None:
            raise LookupError(f"data: the simulation has no {feeder!r}, only {', '.join(self.rows) or 'none at all'}")
        row = rows.of(user)
        if row is None:
            raise LookupError(f"data: {feeder} has no row for user {user.place}")
        return dict(zip(rows.columns, row, strict=True))

    def _await(self, play: Play, found: Any) -> None:
        if getattr(found, "_asyncio_future_blocking", None):
            play.wait_for(found)
            return
        self.pause_ns = 0  # a bare yield, as in asyncio.sleep(0): the others' turn
        if found is not None:
            play.error = TypeError(f"a scenario awaits requests, pauses and asyncio's futures, not {found!r}")

    def _balk(self, play: Play, ask: Ask) -> None:
        """Count a request that is not sent, and let the scenario know after a pause."""
        problem = play.error = ask.problem
        if isinstance(problem, RequestFailed) and ask.step is not None:
            self.account.failed(ask.step.tally, Error.FORBIDDEN, ask.step.checks.count)
        else:
            self.account.drop(Drop.INTERNAL)
            if isinstance(problem, UndeclaredAction):
                self._on_fault(problem)
        self._host.sent(play.user)
        self.pause_ns = _BALK_NS

    def _over(self, play: Play, *, is_done: bool) -> Step | None:
        """Return what follows when start(), run() or stop() is over; None: the next of them."""
        scene, is_quiet = play.scene, True
        if not is_done:
            is_quiet = isinstance(play.failure, RequestFailed)  # counted, and paused for already
            if not is_quiet and play.failure is not None:
                self.account.count("scenario_failures")
                self._tell(play.failure)
            play.failure = None
        if play.phase == STOP:
            return self._stopped(play)
        if play.phase == START and is_done:
            play.phase = RUN
            return None
        if self.is_visit:
            play.has_failed = not is_done
            if scene.has_stop and play.phase == RUN:
                self._begin_stop(play)
                return None
            return self._visited(play)
        return scene.end if is_done else scene.again if is_quiet else scene.later

    def _begin_stop(self, play: Play) -> None:
        play.phase, play.until_ns = STOP, self._clock() + STOP_NS

    def _stopped(self, play: Play) -> Step:
        if play.user.leaving:
            play.phase = GONE
            return play.scene.top
        if self.is_visit:
            return self._visited(play)
        self.end(play.user)  # it was about to leave, and stays: somebody new
        return play.scene.again

    def _visited(self, play: Play) -> Step:
        self.end(play.user)
        return play.scene.later if play.has_failed else play.scene.end

    def _tell(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # an exit, or a cancellation
            error = RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
        self._on_fault(error)


class Scene:
    """
    One scenario's class in a worker: how its requests look, and the steps around it.

    *end*: an iteration is done · *again*: it is not, the next begins · *later*: the same, after a pause.
    """

    def __init__(self, stage: Stage, declared: Declared) -> None:
        self.stage = stage
        self.declared = declared
        self.has_start = declared.kind.start is not Scenario.start
        self.has_stop = declared.kind.stop is not Scenario.stop
        self.in_task = bool(declared.kind.task)
        self.top = SceneStep(self)
        self.end, self.again, self.later = Step(END), Step(RESTART), Step(AGAIN_LATER)
        for step in (self.end, self.again, self.later):
            step.next = step.after = self.top
        self.ready: dict[tuple[str, str, str, str | None, int], Ask] = {}
        self._steps: dict[tuple[str, str, str | None, int], AskedStep] = {}
        self._actions: Mapping[str, tuple[str, int]] = {}
        self._endpoint: Endpoint | None = None
        self._prefix = b""

    def aim(self, endpoint: Endpoint, actions: Mapping[str, tuple[str, int]]) -> None:
        """Send requests to *endpoint* and count them as *actions*: name → group and number."""
        self._endpoint, self._actions = endpoint, actions
        self._prefix = in_path(endpoint.prefix)
        self.ready.clear()
        self._steps.clear()
        for user, ask in self.stage.asks.items():
            if self.stage.plays[user].scene is self and ask.problem is None:
                self._dress(ask)

    def retire(self) -> None:
        """Let users go on with the new load: nobody plays this any more, nor sends what it asked for before."""
        self.top.kind = RESTART
        for user, ask in self.stage.asks.items():
            if ask.step is not None and self.stage.plays[user].scene is self:
                ask.step.kind = RESTART

    def ask(
        self, verb: str, path: str, action: str, expect: str | None, redirects: int,
        params: Mapping[str, object] | None = None, headers: Mapping[str, str] | None = None,
        payload: tuple[object, object, object] = _NO_PAYLOAD,
    ) -> Ask:  # fmt: skip
        """Return the request; what is wrong with it stands in its *problem*."""
        try:
            step = self._steps.get((verb, action, expect, redirects)) or self._step(verb, action, expect, redirects)
            if self.stage.verbs and verb not in self.stage.verbs:
                return Ask(step, RequestFailed(Error.FORBIDDEN))
            ask = Ask(step)
            body, content_type = _body_of(verb, payload)
            ask.parts = (
                verb.upper().encode() + b" ",
                _path_of(path, params),
                _lines(headers, content_type, closes=step.group in self.stage.closing),
            )
            ask.behind = b"\r\n" if body is None else b"content-length: %d\r\n\r\n%b" % (len(body), body)
            ask.own_cookie = any(name.lower() == "cookie" for name in headers or {})
        except (ValueError, TypeError) as error:
            return Ask(None, error)
        self._dress(ask)
        if verb == "get" and not params and not headers:
            if len(self.ready) >= _READY_KEPT:
                self.ready.clear()
            self.ready[verb, path, action, expect, redirects] = ask
        return ask

    def _dress(self, ask: Ask) -> None:
        assert self._endpoint is not None
        verb, path, lines = ask.parts
        host = b" HTTP/1.1\r\nhost: " + self._endpoint.authority.encode() + b"\r\n"
        ask.before = verb + self._prefix + path + host + lines
        ask.wire = ask.before + ask.behind

    def _step(self, verb: str, action: str, expect: str | None, redirects: int) -> AskedStep:
        known = self._actions.get(action)
        if known is None:
            raise UndeclaredAction(f"{self.declared.reference}: the action {action!r} is not in its `actions`")
        if not 0 <= redirects <= 10:
            raise ValueError("redirects: 0 to 10 are possible")
        group, number = known
        step = AskedStep(
            action=number, tally=self.stage.account.tallies[number], verb=verb, group=group,
            checks=checks_of(None if expect is None else Expect(status=expect)), redirects=redirects,
            asks=self.stage.asks,
        )  # fmt: skip
        step.next = step.after = self.top
        if self.stage.is_visit:
            step.time()
        if len(self._steps) >= _STEPS_KEPT:
            self._steps.clear()
        self._steps[verb, action, expect, redirects] = step
        return step


def _path_of(path: str, params: Mapping[str, object] | None) -> bytes:
    if not path.startswith("/"):
        raise ValueError(f"a path that starts with / is needed, not {path[:200]!r}: requests go to the target")
    if not params:
        return in_path(path)
    return in_path(path) + (b"&" if "?" in path else b"?") + urlencode(list(params.items())).encode()


def _lines(headers: Mapping[str, str] | None, content_type: str | None, *, closes: bool) -> bytes:
    given = {name.lower() for name in headers or {}}
    lines = [b"connection: close\r\n"] if closes else []
    for name, text in (("user-agent", AGENT), ("accept", "*/*"), ("content-type", content_type)):
        if name not in given and text is not None:
            lines.append(f"{name}: {text}\r\n".encode())
    for name, value in (headers or {}).items():
        encoded = in_header(str(value))
        if encoded is None or not _HEADER.fullmatch(name) or name.lower() in _RESERVED:
            raise ValueError(f"the header {name!r} is no header, has a line break, or is set by the runner")
        lines.append(name.encode() + b": " + encoded + b"\r\n")
    return b"".join(lines)


def _body_of(verb: str, payload: tuple[object, object, object]) -> tuple[bytes | None, str | None]:
    """Return the body and its content type; verbs that carry a body send an empty one rather than none."""
    document, form, body = payload
    if sum(part is not None for part in payload) > 1:
        raise ValueError("only one of json, form, body may be given")
    if document is not None:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), "application/json"
    if isinstance(form, Mapping):
        return urlencode(list(form.items())).encode(), "application/x-www-form-urlencoded"
    if body is not None:
        return body.encode() if isinstance(body, str) else bytes(body), None  # type: ignore[call-overload]
    return (b"", None) if verb in ("post", "put", "patch") else (None, None)
