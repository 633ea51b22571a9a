"""
A hashed timing wheel of 1 ms slots: who is due when.

Whoever parks carries the instant itself, so an entry costs one reference, and moving or cancelling is a write: entries
that no longer say the truth are dropped when their slot comes round.
"""

from __future__ import annotations

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

    Slot of an instant = due_ms mod 4096; an item due in a later round stays in its slot until then.
    """

    __slots__ = ("_next_ms", "_occupied", "_slots")

    def __init__(self, now_ms: int) -> None:
        self._slots: list[list[P] | None] = [None] * SLOTS
        self._next_ms = now_ms  # every slot before this instant was emptied
        self._occupied = 0  # bit i: slot i holds someone

    def park(self, item: P, due_ms: int) -> None:
        """Let *item* be due at *due_ms*, or at the next slot when that is past."""
        if due_ms < self._next_ms:
            due_ms = self._next_ms
        item.due_ms = due_ms
        index = due_ms % SLOTS
        slot = self._slots[index]
        if slot is None:
            self._slots[index] = [item]
            self._occupied |= 1 << index
        else:
            slot.append(item)

    def next_ms(self) -> int | None:
        """Return the instant of the next occupied slot (its items may be due a round later); None: all are empty."""
        if not self._occupied:
            return None
        start = self._next_ms % SLOTS
        ahead = self._occupied >> start
        if ahead:
            return self._next_ms + (ahead & -ahead).bit_length() - 1
        return self._next_ms + SLOTS - start + (self._occupied & -self._occupied).bit_length() - 1

    def take_due(self, now_ms: int) -> list[P]:
        """Return the items due at or before *now_ms*, in the order of their instants, no longer parked."""
        due: list[P] = []
        while True:
            at = self.next_ms()
            if at is None or at > now_ms:
                break
            index = at % SLOTS
            slot = self._slots[index]
            self._slots[index] = None
            self._occupied ^= 1 << index
            assert slot is not None
            # Subtle: more than a round may have passed (a stopped process): what was due earlier is due as well.
            later = [item for item in slot if item.due_ms > now_ms and item.due_ms % SLOTS == index]
            for item in slot:
                if 0 < item.due_ms <= now_ms and item.due_ms % SLOTS == index:
                    item.due_ms = -item.due_ms
                    due.append(item)
            if later:
                self._slots[index] = later
                self._occupied |= 1 << index
            self._next_ms = at + 1
        if now_ms >= self._next_ms:
            self._next_ms = now_ms + 1
        return due
