"""
The steps users walk through: linked objects, made once per load by flow.py.

A request's bytes are complete before the first user comes (*wire*) unless something in it changes from user to user;
then head and body are templates. A step is never changed while it is walked, but for its links: when the load is
edited, the steps of the old program become RESTART and lead there: users go on with the new flow after their current
action, and nobody begins an old one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trafficsim_runner.checks import Checks, Save
from trafficsim_runner.http.shapes import Shape
from trafficsim_runner.stats.account import HeadRecord, Tally
from trafficsim_runner.template import Filling, Template

if TYPE_CHECKING:
    from trafficsim_runner.users import User

__all__ = [
    "AGAIN", "AGAIN_LATER", "CHOOSE", "END", "REPEAT", "REQUEST", "RESTART", "SCENE", "THINK", "Program",
    "RequestStep", "Step", "go_round",
]  # fmt: skip

REQUEST: Final = 0
THINK: Final = 1
REPEAT: Final = 2  # the head of a loop: draws how often
AGAIN: Final = 3  # the foot of a loop
END: Final = 4  # the flow is done: its top follows
RESTART: Final = 5  # the load was edited: the new flow's top follows
CHOOSE: Final = 6  # draws which flow follows
SCENE: Final = 7  # a scenario in Python says what follows
AGAIN_LATER: Final = 8  # the iteration failed: the next one begins after a pause

_HEADS_KEPT: Final = 64
_SHAPES_KEPT: Final = 8
# How often a head must be met again for keeping it to be cheaper than matching its shape.
_WORTH_KEEPING: Final = 8
_PARSED_BEFORE_RETRY: Final = 10_000
_SHAPED_BEFORE_RETRY: Final = 50_000
_NOTHING: Final = HeadRecord(head=b"\0", total=-1, status=200, headers=())


class Step:
    """
    Any step: *kind*, what follows (*next*), and for a loop what follows after it (*after*).

    *pause* gives a think time in ns, *times* how often a loop runs, *pick* the first step of the flow chosen, each
    drawn for a user. *ready* is the step itself when it is a request whose bytes are
    the same for every user without cookies: the hot loop sends it without asking anybody.
    """

    __slots__ = ("after", "kind", "next", "pause", "pick", "ready", "times")

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.next: Step = self
        self.after: Step = self
        self.pause: Callable[[User], int] | None = None
        self.times: Callable[[User], int] | None = None
        self.pick: Callable[[User], Step] | None = None
        self.ready: RequestStep | None = None


class RequestStep(Step):
    """
    A request: what is sent, what is looked at in the answer, and the heads its answers had so far.

    *wire* is the whole request for a user without cookies, None when it must be rendered. *before* and *after_head* are
    what stands before and after the cookie line of a literal request. *group*: of whose pool its connections are, where
    they are pooled. *is_timed*: response times are kept, so the hot
    loop, which knows only of service times, lets its answers be. *differs*: its heads keep differing, so answers are
    matched by *shapes* instead; of the headers called *fixed* (in lower case) somebody wants the value.
    """

    __slots__ = (
        "_body", "_gaps", "_literals", "_to_parse", "checks_body", "extra_bytes", "looks_into", "reads_json",
        "action", "before", "behind", "checks", "differs", "fixed", "group", "heads",
        "is_awaited", "is_head", "is_idempotent", "is_timed", "last", "needs_body", "own_cookie", "redirects", "saves",
        "sends",
        "shapes", "tally", "verb", "wire",
    )  # fmt: skip

    def __init__(
        self, *, action: int, tally: Tally, verb: str, head: Template, body: Template | None, checks: Checks,
        saves: tuple[Save, ...], own_cookie: bool, redirects: int = 0, group: str = "user",
    ) -> None:  # fmt: skip
        super().__init__(REQUEST)
        self.action = action
        self.tally = tally
        self.verb = verb
        self.redirects = redirects
        self.group = group
        self.is_head = verb == "head"
        self.is_idempotent = verb in ("get", "head", "put", "delete", "options")
        self.checks = checks
        self.saves = saves
        self.own_cookie = own_cookie
        self.needs_body = checks.need_body or any(save.needs_body for save in saves)
        self.is_timed = False
        self.is_awaited = False  # somebody waits for the answer itself
        self.checks_body = checks.need_body
        self.looks_into = checks.need_body or bool(saves)
        self.reads_json = bool(checks.paths) or any(save.kind == "json" for save in saves)
        self.sends = 0
        self.extra_bytes = 0
        self.wire: bytes | None = None
        self.last: HeadRecord = _NOTHING
        self.heads: dict[bytes, HeadRecord] = {}
        self.differs = False
        self.shapes: list[Shape] = []
        # An empty Location is an answer, any other leads elsewhere.
        self.fixed = frozenset({name for name, _ in checks.headers} | ({b"location"} if redirects else set()))
        self._to_parse = 0  # answers to parse before anything is kept again
        filling = Filling(head)
        self._literals, self._gaps = filling.parts, filling.gaps
        self._body = None if body is None else Filling(body)
        self.before = filling.literal or b""
        self.behind = b""
        if self._body is None or self._body.literal is not None:
            self.behind = _end_of_head(None if self._body is None else self._body.literal)
            self._body = None
        if self._body is None and filling.literal is not None:
            self.wire = self.before + self.behind
            self.ready = self

    def render(self, user: User) -> bytes | None:
        """Return the request of *user* as bytes; None when a value it needs is missing."""
        cookies = None if self.own_cookie else user.cookie_line
        if self.wire is not None:
            return self.wire if cookies is None else self.before + cookies + self.behind
        filled = self._literals.copy()
        for at, look_up in self._gaps:
            value = look_up(user)
            if value is None:
                return None
            filled[at] = value
        if cookies is not None:
            filled.append(cookies)
        if self._body is None:
            filled.append(self.behind)
        else:
            body = self._body.of(user)
            if body is None:
                return None
            filled.append(_end_of_head(b"".join(body)))
        return b"".join(filled)

    def time(self) -> None:
        """Keep response times from now on: when the request was due → done."""
        self.is_timed = True
        self.ready = None

    def pool(self) -> None:
        """Ask the pool for a connection before each send: the hot loop, which keeps the user's, sends none of these."""
        self.ready = None

    def known(self, data: bytes) -> HeadRecord | None:
        """Return the record of an answer that is *data* and nothing more; None when it must be parsed."""
        for shape in self.shapes:  # there are none while heads are kept
            found = shape.match(data)
            if found is not None and (not shape.is_open or len(data) == found.end() + int(found[1])):
                record = shape.record
                record.size += len(data)
                if record.uses > _SHAPED_BEFORE_RETRY:
                    self._keep_heads_again()
                return record
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        kept = self.heads.get(data[:end])
        return kept if kept is not None and kept.total == len(data) else None

    def memoises(self) -> bool:
        """Say whether to keep the head (or its shape) of the answer just parsed, and count it."""
        if self._to_parse:
            self._to_parse -= 1
        return not self._to_parse

    def memoise(self, record: HeadRecord) -> bool:
        """
        Keep *record* for the next answers; say whether older ones had to go (they must be folded before).

        Heads that change all the time make the memo a cost: when 64 of them were met less than 8 times each, the step's
        next 50 000 answers are matched by their shapes, then heads are tried again.
        """
        full = len(self.heads) >= _HEADS_KEPT
        if full:
            uses = sum(kept.uses + kept.count for kept in self.heads.values())
            self.differs = uses < _WORTH_KEEPING * _HEADS_KEPT
            self.heads.clear()
        self.heads[record.head] = record
        if not self.is_timed:
            self.last = record
        return full

    def learn(self, shape: Shape) -> None:
        """
        Match the next answers by *shape*, too.

        To learn one costs as much as parsing some dozen answers: when 8 were met less than 64 times each, the next
        10 000 answers that fit none are parsed and nothing is learned.
        """
        if len(self.shapes) >= _SHAPES_KEPT:
            uses = sum(shape.record.uses + shape.record.count for shape in self.shapes)
            self._to_parse = _PARSED_BEFORE_RETRY if uses < _SHAPES_KEPT * _HEADS_KEPT else 0
            self.shapes.clear()
        self.shapes = [other for other in self.shapes if other.key != shape.key]
        self.shapes.append(shape)

    def _keep_heads_again(self) -> None:
        self.differs = False
        self.shapes.clear()


def _end_of_head(body: bytes | None) -> bytes:
    return b"\r\n" if body is None else b"content-length: %d\r\n\r\n%b" % (len(body), body)


class Program:
    """The compiled flows of one load: the first step of each archetype, and every step made."""

    __slots__ = ("steps", "tops")

    def __init__(self, tops: tuple[Step, ...], steps: tuple[Step, ...]) -> None:
        self.tops = tops
        self.steps = steps

    def retire(self) -> None:
        """Let every step lead to the flow of the program that follows this one."""
        restart = Step(RESTART)
        for step in self.steps:
            # A request that is out ends as what it was; who comes to the step only now goes on with the new flow.
            step.kind = RESTART
            step.next = step.after = restart


def go_round(user: User, step: Step) -> Step:
    """Enter the loop that *step* is the head of, or at its foot go round it again or leave it; return what follows."""
    loops = user.loops = user.loops if user.loops is not None else []
    if step.kind == REPEAT:
        assert step.times is not None
        loops.append(step.times(user))
    else:
        loops[-1] -= 1
    if loops[-1] > 0:
        return step.next
    loops.pop()
    return step.after
