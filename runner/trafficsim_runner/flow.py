"""Compile the archetypes' flows to linked steps (see program.py)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from trafficsim_api import __version__
from trafficsim_api.connections import pools_for
from trafficsim_api.protocol import Load
from trafficsim_api.resource import Archetype, Request, Think, examined
from trafficsim_api.resource import Step as StepSpec
from trafficsim_runner import draws
from trafficsim_runner.checks import checks_of, saves_of
from trafficsim_runner.http.endpoint import Endpoint
from trafficsim_runner.program import AGAIN, CHOOSE, END, REPEAT, THINK, Program, RequestStep, Step
from trafficsim_runner.template import Lookup, Template, Words, in_header, in_path, in_query, joined, plain

if TYPE_CHECKING:
    from trafficsim_runner.feeding import Rows
    from trafficsim_runner.stats.account import Tally
    from trafficsim_runner.users import User

__all__ = ["AGENT", "choice_draw", "closing_groups", "compile_load", "pause_of"]

_NO_ROWS: Final[Mapping[str, Rows]] = {}
_NO_SCENES: Final[Mapping[str, Step]] = {}
AGENT: Final = f"trafficsim/{__version__}"
_WITH_BODY: Final = ("post", "put", "patch")


def compile_load(
    load: Load,
    endpoint: Endpoint,
    actions: Mapping[tuple[str, str], int],
    tallies: list[Tally],
    environ: Mapping[str, str],
    rows: Mapping[str, Rows] = _NO_ROWS,
    scenes: Mapping[str, Step] = _NO_SCENES,
) -> Program:
    """
    Return the program of *load*.

    *actions* numbers each (name, group), *environ* is what {{env.X}} reads, *rows* what {{data.X.Y}} does, *scenes* are
    where users of the scenarios begin, by reference.
    """
    compiler = _Compiler(endpoint, actions, tallies, environ, rows, load.saved or {}, closing_groups(load))
    tops = tuple(
        compiler.archetype(archetype) if archetype.scenario is None else scenes[archetype.scenario]
        for archetype in load.archetypes
    )
    is_pooled = load.connections.mode == "pooled"
    for step in compiler.steps:
        if isinstance(step, RequestStep):
            if load.arrivals is not None:
                step.time()
            if is_pooled:
                step.pool()
    return Program(tops, tuple(compiler.steps))


class _Compiler:
    def __init__(
        self,
        endpoint: Endpoint,
        actions: Mapping[tuple[str, str], int],
        tallies: list[Tally],
        environ: Mapping[str, str],
        rows: Mapping[str, Rows],
        given: Mapping[str, str],
        closing: frozenset[str],
    ) -> None:
        self.endpoint = endpoint
        self.actions = actions
        self.tallies = tallies
        self.environ = environ
        self.rows = rows
        self.given = given
        self.steps: list[Step] = []
        self.closing = closing  # groups whose connections close after each answer
        self.choices = 0  # numbers the choices of an archetype, whose draws they tell apart

    def archetype(self, archetype: Archetype) -> Step:
        self.choices = 0
        end = self._made(Step(END))
        words = Words(archetype.name, self.environ, self.rows, self.given, examined(archetype.steps).saved)
        end.next = self._flow(archetype.steps, end, words)
        return end.next

    def _made(self, step: Step) -> Step:
        self.steps.append(step)
        return step

    def _flow(self, flow: tuple[StepSpec, ...], after: Step, words: Words) -> Step:
        """Compile *flow* from its last step to its first, each linked to the one after it."""
        for spec in reversed(flow):
            if spec.repeat:
                after = self._repeat(spec, after, words)
            elif spec.choose:
                after = self._choose(spec, after, words)
            elif spec.think:
                step = self._made(Step(THINK))
                step.pause = pause_of(spec.think)
                step.next = after
                after = step
            else:
                request = self._made(self._request(spec, words))
                request.next = after
                after = request
        return after

    def _repeat(self, spec: StepSpec, after: Step, words: Words) -> Step:
        assert spec.repeat is not None
        foot, head = self._made(Step(AGAIN)), self._made(Step(REPEAT))
        low, high = spec.repeat.bounds
        head.next = foot.next = self._flow(spec.repeat.flow, foot, words)
        head.after = foot.after = after
        head.times = lambda user: low if low == high else draws.whole(user.key, user.next_draw(), low, high)
        return head

    def _choose(self, spec: StepSpec, after: Step, words: Words) -> Step:
        assert spec.choose is not None
        number, self.choices = self.choices, self.choices + 1
        weights = [choice.weight for choice in spec.choose]
        bounds, whole = list(accumulate(weights)), sum(weights)
        tops = [self._flow(choice.flow, after, words) for choice in spec.choose]
        step = self._made(Step(CHOOSE))
        step.next = step.after = after
        step.pick = lambda user: tops[bisect_right(bounds, choice_draw(user, number, whole))]
        return step

    def _request(self, spec: StepSpec, words: Words) -> RequestStep:
        assert spec.request is not None
        group = spec.group or "user"
        action = self.actions[spec.name, group]
        body, kind = _body_of(spec.request, words)
        return RequestStep(
            action=action, tally=self.tallies[action], verb=spec.request.verb, redirects=spec.request.redirects,
            group=group, head=self._head_of(spec.request, kind, words, closes=group in self.closing), body=body,
            saves=saves_of(spec),
            checks=checks_of(spec.expect, len(spec.save or ())),
            own_cookie=any(name.lower() == "cookie" for name in spec.request.headers or {}),
        )  # fmt: skip

    def _head_of(self, request: Request, content_type: str | None, words: Words, *, closes: bool) -> Template:
        """Return request line and headers, without the cookie line, Content-Length and the empty line."""
        given = {name.lower() for name in request.headers or {}}
        parts: list[bytes | Lookup] = [request.verb.upper().encode() + b" ", in_path(self.endpoint.prefix)]
        parts += words.split(request.path, in_path)
        separator = b"&" if b"?" in request.path.encode() else b"?"
        for name, value in (request.params or {}).items():
            parts += (separator, *words.split(name, in_query), b"=", *words.split(value, in_query))
            separator = b"&"
        parts.append(b" HTTP/1.1\r\nhost: " + self.endpoint.authority.encode() + b"\r\n")
        if closes:
            parts.append(b"connection: close\r\n")
        defaults = {"user-agent": AGENT, "accept": "*/*", "content-type": content_type}
        for name, text in defaults.items():
            if name not in given and text is not None:
                parts.append(f"{name}: {text}\r\n".encode())
        for name, value in (request.headers or {}).items():
            parts += (name.encode() + b": ", *words.split(value, in_header), b"\r\n")
        return joined(parts)


def closing_groups(load: Load) -> frozenset[str]:
    """Return the groups whose connections close after each answer: their requests say so."""
    pools = pools_for(load.connections, load.archetypes)
    return frozenset(name for name, pool in pools.items() if not pool.keep_alive)


def _body_of(request: Request, words: Words) -> tuple[Template | None, str | None]:
    """Return the body and its content type; verbs that carry a body send an empty one rather than none."""
    if request.json_ is not None:
        return words.json(request.json_), "application/json"
    if request.form is not None:
        parts: list[bytes | Lookup] = []
        for name, value in request.form.items():
            parts += (b"&" if parts else b"", *words.split(name, in_query), b"=", *words.split(value, in_query))
        return joined(parts), "application/x-www-form-urlencoded"
    if request.body is not None:
        return words.split(request.body, plain), None
    return ((), None) if request.verb in _WITH_BODY else (None, None)


def choice_draw(user: User, number: int, whole: int) -> int:
    """
    Return a number in [0, *whole*) for choice *number* of a flow.

        draw(key(…key(key(user, number), iteration)…, rounds left of each loop), 0)

    It depends on where the user is and not on how many draws were made before: an iteration that failed half way
    shifts nothing.
    """
    key = draws.key_of(draws.key_of(user.key, number), user.iteration)
    for left in user.loops or ():
        key = draws.key_of(key, left)
    return draws.whole(key, 0, 0, whole - 1)


def _ns(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // timedelta(microseconds=1) * 1000


def pause_of(think: Think) -> Callable[[User], int]:
    """
    Return the function that draws a user's pause (ns).

        constant: that · min, max: evenly in [min, max] · median, p95: log-normal, σ = ln(p95 ÷ median) ÷ 1.6449
    """
    if think.constant is not None:
        constant = _ns(think.constant)
        return lambda user: constant
    if think.median is not None:
        median, sigma = _ns(think.median), draws.sigma_of(_ns(think.median), _ns(think.p95))
        return lambda user: int(draws.log_normal(user.key, user.next_draw(), median, sigma))
    low, high = _ns(think.min), _ns(think.max)
    return lambda user: draws.whole(user.key, user.next_draw(), low, high)
