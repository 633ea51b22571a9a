"""Errors by fault: the user's document, the world, or (everything else) us."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Problem", "SpecError", "Unavailable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a document: *field* in dotted path notation, *reason* in the user's words."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


class SpecError(Exception):
    """The user's document is at fault; it names each field and is not retried until the document changes."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


class Unavailable(Exception):
    """The world did not answer or lacks something now; the message says what, and a later try may succeed."""
