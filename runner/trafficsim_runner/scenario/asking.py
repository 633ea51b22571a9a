"""
The steps that a scenario's requests are: to engine and client they are steps as any.

    SceneStep → (the scenario asks for something) → AskedStep, sent → its answer → SceneStep

One AskedStep serves all requests of an action that are looked at alike, so its memoised heads are met again whatever
the path; what a user asks for now stands beside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trafficsim_runner.program import SCENE, RequestStep, Step

if TYPE_CHECKING:
    from trafficsim_runner.checks import Checks
    from trafficsim_runner.stats.account import Tally
    from trafficsim_runner.users import User

__all__ = ["Ask", "AskedStep", "SceneStep"]


class Ask:
    """
    One request as its bytes: *wire* for a user without cookies, *before* and *behind* stand round the cookie line.

    *parts* are what follows the target's prefix and what follows its name: with another target it is made anew.
    *problem* is why it will not be sent.
    """

    __slots__ = ("before", "behind", "own_cookie", "parts", "problem", "step", "wire")

    def __init__(self, step: AskedStep | None, problem: Exception | None = None) -> None:
        self.step = step
        self.problem = problem
        self.before = self.behind = self.wire = b""
        self.own_cookie = False
        self.parts: tuple[bytes, bytes, bytes] = (b"", b"", b"")


class AskedStep(RequestStep):
    """A request of a scenario; *asks* has what each user asks for now."""

    __slots__ = ("asks",)

    def __init__(
        self, *, action: int, tally: Tally, verb: str, group: str, checks: Checks, redirects: int, asks: dict[User, Ask]
    ) -> None:  # fmt: skip
        super().__init__(
            action=action, tally=tally, verb=verb, head=(), body=None, checks=checks, saves=(), own_cookie=False,
            redirects=redirects, group=group,
        )  # fmt: skip
        # Rendered for each user, and its answer is handed to the scenario: never the hot loop's.
        self.wire = self.ready = None
        self.needs_body = self.is_awaited = True
        self.asks = asks

    def render(self, user: User) -> bytes | None:
        """Return the request of *user* as bytes."""
        ask = self.asks[user]
        cookies = user.cookie_line
        return ask.wire if cookies is None or ask.own_cookie else ask.before + cookies + ask.behind


class SceneStep(Step):
    """Where the users of a scenario come back to: *scene* says what follows."""

    __slots__ = ("scene",)

    def __init__(self, scene: Any) -> None:
        super().__init__(SCENE)
        self.scene = scene
