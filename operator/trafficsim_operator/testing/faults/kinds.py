"""
The faults, and what each is at each kind of call.

| fault | at a call to the API server | at a call to a runner |
|---|---|---|
| `refused` | 409 to what writes; 429 to what reads: no 409 answers that | 409 to an assignment; 503 to what reads |
| `error` | 500 | 500 |
| `time-out` | nothing is done, no answer for 15 s | nothing is done, no answer for 5 s |
| `reset` | the connection ends, nothing is done | the same |
| `lost-answer` | it is done, and the connection ends | the same |
| `killed-before` | the operator's process is killed, nothing is done | the same |
| `killed-after` | it is done, and the operator's process is killed | the same |
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["API_TIMEOUT_S", "Fault", "refusal"]

API_TIMEOUT_S: Final = 15.0


class Fault(StrEnum):
    """What happens to one call."""

    REFUSED = "refused"
    ERROR = "error"
    TIME_OUT = "time-out"
    RESET = "reset"
    LOST_ANSWER = "lost-answer"
    KILLED_BEFORE = "killed-before"
    KILLED_AFTER = "killed-after"


def refusal(method: str, *, is_runner: bool) -> int:
    """Return the status with which a call that uses *method* is refused."""
    if method != "GET":
        return 409
    return 503 if is_runner else 429
