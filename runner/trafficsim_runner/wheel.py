"""
A hashed timing wheel of 1 ms slots: who is due when.

Whoever parks carries the instant itself, so an entry costs one reference, and moving or cancelling is a write: entries
that no longer say the truth are dropped when their slot comes round. Who is due beyond one turn of the wheel (4.1 s)
waits in a heap first, so that slots hold one instant each and nobody is looked at twice.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["SLOTS", "Parked", "Wheel"]

SLOTS: Final = 4096


class Parked(Protocol):
    """What can be parked. *due_ms* > 0: parked until then · 0: not parked · < 0: taken out, it was due at -due_ms."""

    due_ms: int


P = TypeVar("P", bound=Parked)


class Wheel(Generic[P]):
    """
    Holds parked items until their millisecond comes.

    Slot of an instant = due_ms mod 4096, for instants within the next 4096 ms.
    """

    __slots__ = ("_count", "_far", "_next_ms", "_occupied", "_slots")

    def __init__(self, now_ms: int) -> None:
        self._slots: list[list[P] | None] = [None] * SLOTS
        self._far: list[tuple[int, int, P]] = []
        self._count = 0  # orders equal instants in the heap
        self._next_ms = now_ms  # every slot before this instant was emptied
        self._occupied = 0  # bit i: slot i holds someone

    def park(self, item: P, due_ms: int) -> None:
        """Let *item* be due at *due_ms*, or at the next slot when that is past."""
        if due_ms < self._next_ms:
            due_ms = self._next_ms
        item.due_ms = due_ms
        if due_ms - self._next_ms < SLOTS:
            self._put(item, due_ms)
        else:
            self._count += 1
            heappush(self._far, (due_ms, self._count, item))

    def next_ms(self) -> int | None:
        """Return the instant of the next entry, None without any (an entry may be out of date)."""
        far = self._far[0][0] if self._far else None
        if not self._occupied:
            return far
        start = self._next_ms % SLOTS
        ahead = self._occupied >> start
        if ahead:
            near = self._next_ms + (ahead & -ahead).bit_length() - 1
        else:
            near = self._next_ms + SLOTS - start + (self._occupied & -self._occupied).bit_length() - 1
        return near if far is None or near < far else far

    def take_due(self, now_ms: int) -> list[P]:
        """Return the items due at or before *now_ms*, in the order of their instants, no longer parked."""
        due: list[P] = []
        while True:
            at = self.next_ms()
            if at is None or at > now_ms:
                break
            self._next_ms = at
            self._bring_near()
            index = at % SLOTS
            slot = self._slots[index]
            self._next_ms = at + 1
            if slot is None:
                continue  # what the heap held for now was out of date
            self._slots[index] = None
            self._occupied ^= 1 << index
            for item in slot:
                if item.due_ms == at:
                    item.due_ms = -at
                    due.append(item)
        if now_ms >= self._next_ms:
            self._next_ms = now_ms + 1
        return due

    def _bring_near(self) -> None:
        """Move who is due within one turn from the heap to the slots."""
        far, horizon = self._far, self._next_ms + SLOTS
        while far and far[0][0] < horizon:
            due_ms, _, item = heappop(far)
            if item.due_ms == due_ms:
                self._put(item, due_ms)

    def _put(self, item: P, due_ms: int) -> None:
        index = due_ms % SLOTS
        slot = self._slots[index]
        if slot is None:
            self._slots[index] = [item]
            self._occupied |= 1 << index
        else:
            first = slot[0].due_ms
            if first == due_ms:
                item.due_ms = first  # one object for all of an instant: 28 bytes a user
            slot.append(item)
