"""
How many runners users need: by what a runner carries (u*), the users now, and those to come.

    now       what there is, while users ÷ u* lies within a tenth of it (0.9 … 1.1); else ⌈users ÷ u*⌉
    ahead     ⌈users to come ÷ u*⌉ when they are more than now: they are a number, not a measurement, so no tolerance
    needed    the most of both and of the static size

At u* = 100: 320 users on 3 runners need 3 (3.2 is within a tenth), 340 need 4, 250 need 3, 200 need 2. On 3 runners 320
users with 340 to come need 4.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Need", "need", "runners_for_users"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is needed, *now* and *ahead* (0: nothing is measured, nobody more comes), and the *static* size."""

    static: int
    now: int = 0
    ahead: int = 0

    @property
    def runners(self) -> int:
        """Return the runners needed."""
        return max(self.static, self.now, self.ahead)


def runners_for_users(users: int, milliusers: int) -> int:
    """Return ⌈*users* ÷ u*⌉, u* in thousandths of a user; 0 while that is not measured: 1013 at 400 000 need 3."""
    return -(-users * 1000 // milliusers) if milliusers else 0


def need(users: int, ahead: int, *, milliusers: int, there: int, static: int) -> Need:
    """Return what *users* need, and those *ahead*, where so many runners are *there* (asked for)."""
    exact = 10_000 * users
    is_enough = 9 * there * milliusers <= exact <= 11 * there * milliusers
    return Need(
        static=static,
        now=there if milliusers and is_enough else runners_for_users(users, milliusers),
        ahead=runners_for_users(ahead, milliusers) if ahead > users else 0,
    )
