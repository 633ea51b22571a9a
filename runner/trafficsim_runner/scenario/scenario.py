"""The class that users written in Python are subclasses of."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from types import coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from trafficsim_runner import draws
from trafficsim_runner.scenario.answers import Response
from trafficsim_runner.scenario.asking import Ask
from trafficsim_runner.scenario.person import Person

if TYPE_CHECKING:
    from trafficsim_runner.scenario.play import Play

__all__ = ["Scenario"]

T = TypeVar("T")
_SECOND: Final = 1_000_000_000


class Scenario:
    """
    What one user does, in Python.

    Subclasses declare *actions* and metrics on the class and write `run`. There is one instance for each user that is
    on (in the open model: for each arrival); its attributes are the user's own.
    """

    actions: ClassVar[Mapping[str, str]] = {}
    """The actions it may make, with the endpoint group of each: {"export": "bulk"}."""
    task: ClassVar[bool] = False
    """Run it in an asyncio task. Needed by what asks for the current task, as `asyncio.timeout` does; costs some µs."""

    _play: Play

    async def start(self) -> None:
        """Do what the user does first, once."""

    async def run(self) -> None:
        """Do one iteration. It begins anew when it is over, while the user is on."""
        raise TypeError(f"{type(self).__name__} has no run()")

    async def stop(self) -> None:
        """Do what the user does when it leaves, within 5 s; `run` has been closed then, wherever it was."""

    # Requests. The user waits for the answer; whatever its status, it is an answer. Without one they raise
    # RequestFailed. *expect* are the statuses that pass the request's check, as in flows: "2xx", "200,404"; without
    # it those below 400.

    @coroutine
    def get(
        self, path: str, *, action: str, params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None, expect: str | None = None, redirects: int = 0,
    ) -> Generator[Ask, Response, Response]:  # fmt: skip
        """GET *path*, counted as *action*."""
        ask = self._play.scene.ready.get(("get", path, action, expect, redirects))
        if ask is None or params or headers:
            ask = self._play.scene.ask("get", path, action, expect, redirects, params, headers)
        return (yield ask)

    @coroutine
    def head(
        self, path: str, *, action: str, params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None, expect: str | None = None, redirects: int = 0,
    ) -> Generator[Ask, Response, Response]:  # fmt: skip
        """HEAD *path*, counted as *action*."""
        return (yield self._play.scene.ask("head", path, action, expect, redirects, params, headers))

    @coroutine
    def options(
        self, path: str, *, action: str, params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None, expect: str | None = None, redirects: int = 0,
    ) -> Generator[Ask, Response, Response]:  # fmt: skip
        """Ask OPTIONS of *path*, counted as *action*."""
        return (yield self._play.scene.ask("options", path, action, expect, redirects, params, headers))

    @coroutine
    def post(
        self, path: str, *, action: str, json: object = None, form: Mapping[str, object] | None = None,
        body: bytes | str | None = None, params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None, expect: str | None = None, redirects: int = 0,
    ) -> Generator[Ask, Response, Response]:  # fmt: skip
        """POST to *path*, counted as *action*; at most one of *json*, *form* and *body* is sent."""
        payload = (json, form, body)
        return (yield self._play.scene.ask("post", path, action, expect, redirects, params, headers, payload))

    @coroutine
    def put(
        self, path: str, *, action: str, json: object = None, form: Mapping[str, object] | None = None,
        body: bytes | str | None = None, params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None, expect: str | None = None, redirects: int = 0,
    ) -> Generator[Ask, Response, Response]:  # fmt: skip
        """PUT *path*, counted as *action*; the body as in `post`."""
        payload = (json, form, body)
        return (yield self._play.scene.ask("put", path, action, expect, redirects, params, headers, payload))

    @coroutine
    def patch(
        self, path: str, *, action: str, json: object = None, form: Mapping[str, object] | None = None,
        body: bytes | str | None = None, params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None, expect: str | None = None, redirects: int = 0,
    ) -> Generator[Ask, Response, Response]:  # fmt: skip
        """PATCH *path*, counted as *action*; the body as in `post`."""
        payload = (json, form, body)
        return (yield self._play.scene.ask("patch", path, action, expect, redirects, params, headers, payload))

    @coroutine
    def delete(
        self, path: str, *, action: str, params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None, expect: str | None = None, redirects: int = 0,
    ) -> Generator[Ask, Response, Response]:  # fmt: skip
        """DELETE *path*, counted as *action*."""
        return (yield self._play.scene.ask("delete", path, action, expect, redirects, params, headers))

    # What is not a request.

    @coroutine
    def think(
        self, least: float | None = None, most: float | None = None, *, median: float | None = None,
        p95: float | None = None,
    ) -> Generator[int, Any, None]:  # fmt: skip
        """
        Pause: `think(1.0)` s, evenly between two as in `think(1.0, 3.0)`, or log-normal by *median* and *p95*.

        A user that is to leave does so at once. It costs a place in the wheel; `asyncio.sleep` a timer of its own.
        """
        if median is not None and p95 is not None and least is None and most is None and 0 < median <= p95:
            sigma = draws.sigma_of(median, p95)
            user = self._play.user
            yield int(_SECOND * draws.log_normal(user.key, user.next_draw(), median, sigma))
        elif least is not None and median is None and p95 is None and 0 <= least <= (least if most is None else most):
            yield int(_SECOND * (least if most is None else least + (most - least) * self.draw()))
        else:
            raise ValueError("think: a time, two in order, or median and p95 (s) are needed")

    def check(self, passed: object) -> bool:
        """Count a check of the last answer, missed when *passed* is false; say whether it passed."""
        return self._play.check(passed=bool(passed))

    def draw(self) -> float:
        """Return the user's next draw, a number between 0 and 1 from the seed: the same in every run with it."""
        user = self._play.user
        return draws.unit(user.key, user.next_draw())

    def pick(self, options: Sequence[T]) -> T:
        """Return one of *options*, each as likely, by the user's next draw."""
        user = self._play.user
        return options[draws.whole(user.key, user.next_draw(), 0, len(options) - 1)]

    def data(self, feeder: str) -> dict[str, str]:
        """Return the user's row of *feeder* in this iteration, by column: the one `{{data.FEEDER.COLUMN}}` looks up."""
        play = self._play
        return play.scene.stage.row(play.user, feeder)

    @property
    def user(self) -> Person:
        """Return who the user is."""
        return Person(self._play)

    @property
    def saved(self) -> dict[str, str]:
        """Return what is saved for the user: what setup saved, and what the scenario puts there."""
        return self._play.saved
