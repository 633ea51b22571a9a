"""
How long somebody has looked on: waiting for runners counts only while an operator is there to tell them.

    without a break   since the newest look that came more than 12 s after the one before
    in a phase        the sum of the times between looks in it, 12 s at most of each

Looks that come too rarely for the first, as of an operator that has more to do than it can, still reach the end of the
second; an operator that was away, or stood still, does not by that alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Attention"]

# A longer break between two looks is one of the operator's own: nobody asked for what is missing of it. A look that
# waits in vain for a runner, twice for five seconds, is none.
_BREAK_MS: Final = 12_000


@dataclass(slots=True, kw_only=True)
class Attention:
    """
    The looks at one run: the newest at *looked_ms*, without a break since *since_ms* (wall clock ms, 0: none yet).

    *in_phase_ms* is how long somebody has looked on in the phase that began at *phase_since*.
    """

    looked_ms: int = 0
    since_ms: int = 0
    in_phase_ms: int = 0
    phase_since: str = ""

    def look(self, phase_since: str, now_ms: int) -> bool:
        """Take note of a look in the phase that began at *phase_since*; return whether it comes after a break."""
        is_new = not self.looked_ms or now_ms - self.looked_ms > _BREAK_MS
        lasted_ms = min(now_ms - self.looked_ms, _BREAK_MS) if self.looked_ms else 0
        self.in_phase_ms = lasted_ms + (self.in_phase_ms if phase_since == self.phase_since else 0)
        self.phase_since, self.looked_ms = phase_since, now_ms
        self.since_ms = now_ms if is_new else self.since_ms
        return is_new
