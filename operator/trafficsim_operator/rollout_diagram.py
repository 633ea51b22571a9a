"""
The picture of a rollout's phases in docs/rollout.md: `python -m trafficsim_operator.rollout_diagram [--check]`.

It is drawn from the table of transitions that the machine goes by; a way without words here is an error, and so are
words without a way.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from trafficsim_api.rollout import RolloutPhase
from trafficsim_operator.plan.rollout import TRANSITIONS

__all__ = ["TARGET", "WORDS", "diagram", "main", "page"]

TARGET: Final = Path(__file__).parents[2] / "docs" / "rollout.md"
_BEGIN: Final = "<!-- Written by `python -m trafficsim_operator.rollout_diagram` from the table of transitions. -->\n"
_END: Final = "<!-- end of what is written -->\n"

_P = RolloutPhase
WORDS: Final[Mapping[tuple[RolloutPhase, RolloutPhase], str]] = {
    (_P.STABLE, _P.PREPARING): "another version is asked for",
    (_P.STABLE, _P.REJECTED): "the rejected one is asked for again",
    (_P.PREPARING, _P.SHIFTING): "its runners are ready",
    (_P.PREPARING, _P.ABORTING): "crash, deadline, abort, taken back",
    (_P.PREPARING, _P.SUPERSEDING): "a third version",
    (_P.PREPARING, _P.STABLE): "the run ended",
    (_P.SHIFTING, _P.ANALYZING): "the split is settled",
    (_P.SHIFTING, _P.ABORTING): "silence, crash, deadline, abort, taken back",
    (_P.SHIFTING, _P.SUPERSEDING): "a third version",
    (_P.SHIFTING, _P.STABLE): "the run ended",
    (_P.ANALYZING, _P.SHIFTING): "passed, next step",
    (_P.ANALYZING, _P.PROMOTING): "passed at 100%",
    (_P.ANALYZING, _P.ABORTING): "failed, crash, abort, taken back",
    (_P.ANALYZING, _P.SUPERSEDING): "a third version",
    (_P.ANALYZING, _P.STABLE): "the run ended",
    (_P.PROMOTING, _P.RETIRING): "on record",
    (_P.RETIRING, _P.STABLE): "the old runners are gone",
    (_P.RETIRING, _P.PREPARING): "another version, or the way back",
    (_P.ABORTING, _P.REJECTED): "all users are back",
    (_P.ABORTING, _P.STABLE): "all users are back, nothing was judged",
    (_P.REJECTED, _P.PREPARING): "another version, or retry",
    (_P.REJECTED, _P.STABLE): "the stable one is asked for again",
    (_P.SUPERSEDING, _P.PREPARING): "all users are back",
    (_P.SUPERSEDING, _P.STABLE): "the run ended, or the stable one is asked for",
}


def diagram() -> str:
    """Return the phases and the ways between them as a Mermaid state diagram."""
    ways = {(phase, following) for phase, all_of in TRANSITIONS.items() for following in all_of}
    if ways != WORDS.keys():
        raise AssertionError(f"words and ways differ: {sorted(ways ^ WORDS.keys())}")
    lines = ["stateDiagram-v2", f"    [*] --> {_P.STABLE}"]
    lines += [f"    {phase} --> {following}: {words}" for (phase, following), words in WORDS.items()]
    return "\n".join(["```mermaid", *lines, "```"]) + "\n"


def page(text: str) -> str:
    """Return the page *text* with the diagram between its marks."""
    head, begin, rest = text.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the marks of the diagram are missing in {TARGET.name}")
    return f"{head}{begin}{diagram()}{end}{tail}"


def main(arguments: Sequence[str]) -> int:
    """Write the diagram, or with --check say whether the page is as the table is."""
    text = TARGET.read_text(encoding="utf-8")
    if arguments == ["--check"]:
        if page(text) == text:
            return 0
        print(f"{TARGET.name} is out of date: run `python -m trafficsim_operator.rollout_diagram`", file=sys.stderr)
        return 1
    TARGET.write_text(page(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
