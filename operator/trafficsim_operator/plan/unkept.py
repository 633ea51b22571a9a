"""
Last numbers that the record did not take: they are in this process alone, and gone with it.

    refused for good (no right, a quota, a webhook, no room)   told, tried again each minute
    no answer for now                                          told, tried again at each look

What is told stands in `status.accounts.unkept` before a runner that we let go is gone. So an operator that comes after
one that was killed knows what was lost with it, and says so; not of a runner that is there still.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from trafficsim_api.statistics import Answer, total
from trafficsim_api.status import UnkeptShare
from trafficsim_api.units import format_instant

__all__ = ["PATIENCE_MS", "Unkept", "after", "gone_with_it", "holds_up", "is_due", "told"]

PATIENCE_MS: Final = 10_000
"""So long a runner waits for what will be lost with it to be on record; then it goes all the same."""
_AGAIN_MS: Final = 60_000
_MOST: Final = 8
_REASON: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Unkept:
    """
    The last *answer* of the runner *name*, and why the record did not take it.

    Not since *since_ms*, when last tried at *tried_ms* (wall clock ms); *refused*: it will not soon either.
    """

    name: str
    answer: Answer
    reason: str
    refused: bool
    since_ms: int
    tried_ms: int


def after(before: Unkept | None, tried: Unkept) -> Unkept:
    """Return what is not kept after another try: since the first one, in the words it was told in."""
    if before is None:
        return tried
    reason = before.reason if before.refused is tried.refused else tried.reason
    return replace(tried, since_ms=before.since_ms, reason=reason)


def is_due(unkept: Unkept, now_ms: int) -> bool:
    """Say whether it is to be tried again."""
    return not unkept.refused or now_ms - unkept.tried_ms >= _AGAIN_MS


def holds_up(uid: str, unkept: Unkept, on_record: Iterable[str], now_ms: int) -> bool:
    """
    Say whether the runner *uid* is not to go yet: its numbers may still be kept, or nobody has been told.

    *on_record* are the UIDs of the runners whose share the status tells of; it has no room for all.
    """
    return not unkept.refused or (uid not in on_record and now_ms - unkept.since_ms < PATIENCE_MS)


def told(unkept: Mapping[str, Unkept], earlier: Iterable[UnkeptShare] = ()) -> tuple[UnkeptShare, ...]:
    """
    Return what the status says of *unkept*, by UID: the oldest, as many as there is room for.

    First of those *earlier* ones that another operator told of, while nobody can say yet whether they are gone with it.
    """
    oldest = sorted(unkept.items(), key=lambda item: (item[1].since_ms, item[0]))
    own = tuple(
        UnkeptShare(
            runner=share.name,
            uid=uid,
            requests=total(share.answer.layout, share.answer.total, "done"),
            since=format_instant(share.since_ms),
            reason=share.reason[:_REASON],
        )
        for uid, share in oldest
    )
    return (*(share for share in earlier if share.uid not in unkept), *own)[:_MOST]


def gone_with_it(share: UnkeptShare) -> str:
    """Return what is said of a share that was lost with the operator that had it."""
    why = f"not on record ({share.reason}), and gone with the operator that had them"
    return f"{share.runner}, {share.requests} requests: {why}"
