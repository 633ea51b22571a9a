"""
Test data: whether the rows found are what the document asks of them, and what the runners are told.

Rows are sent once: a runner says which it has, and gets the others with its assignment. While a run is on, rows that
are gone or spoilt change nothing for the runners that have them; new runners wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from trafficsim_api.data import DataLookup, Feed, Feeder, lookups_of, missing_column, too_few_rows
from trafficsim_api.errors import Problem
from trafficsim_api.protocol import Acknowledgement, Load
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_operator.observed import RowsSeen

__all__ = ["PACKED_BYTES", "Fed", "fed", "gives_first", "rows_for"]

# A runner takes assignments of 16 MiB at most; the rest is for the load.
PACKED_BYTES: Final = 12 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """
    What runners are told of the data: *feeds*, their rows *packed* by digest, and the *problems* with them.

    *missing* is what may still come: a ConfigMap that is not there.
    """

    feeds: tuple[Feed, ...] | None = None
    packed: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    missing: str = ""


def fed(spec: TrafficSimulationSpec, seen: Mapping[str, RowsSeen]) -> Fed:
    """Return the data of *spec*, its rows being as *seen*; the numbers in problems are those of the spec's list."""
    lookups = lookups_of(spec.archetypes) if spec.data else ()
    feeds: list[Feed] = []
    packed: dict[str, str] = {}
    problems: list[Problem] = []
    missing = ""
    for index, feeder in enumerate(spec.data):
        rows = seen.get(feeder.name, RowsSeen())
        found = [*_unfit(index, feeder, rows, lookups, spec.users)]
        problems += found
        if rows.absent:
            missing = missing or f"data[{index}].from.{rows.problem}"
        digest = rows.digest if rows.digest and not found else None
        if digest is not None:
            packed[digest] = rows.packed
        path = feeder.from_.path if not (rows.digest or rows.problem) else None
        feeds.append(Feed(name=feeder.name, mode=feeder.mode, digest=digest, path=path))
    size = sum(map(len, packed.values()))
    if size > PACKED_BYTES:
        reason = f"the rows of all feeders are {size >> 20} MiB packed; at most {PACKED_BYTES >> 20} are possible"
        problems.append(Problem(field="data", reason=reason))
        feeds, packed = [feed.model_copy(update={"digest": None}) for feed in feeds], {}
    return Fed(feeds=tuple(feeds) or None, packed=packed, problems=tuple(problems), missing=missing)


def _unfit(index: int, feeder: Feeder, rows: RowsSeen, lookups: Iterable[DataLookup], users: int) -> Iterator[Problem]:
    """Yield why *rows* cannot be what the document asks of them."""
    if rows.absent:
        return
    if rows.problem:
        yield Problem(field=f"data[{index}].from", reason=rows.problem)
    elif rows.digest:
        if lacking := missing_column(feeder.name, rows.columns, lookups):
            yield Problem(field=lacking[0], reason=lacking[1])
        if feeder.mode == "unique" and (few := too_few_rows(rows.count, users)):
            yield Problem(field=f"data[{index}]", reason=few)


def rows_for(load: Load, packed: Mapping[str, str], seen: Acknowledgement | None) -> dict[str, str]:
    """Return the rows of *load* that a runner needs with its assignment; *seen* says which it has."""
    wanted = dict.fromkeys(feed.digest for feed in load.data or () if feed.digest)
    has = seen.rows if seen is not None else ()
    return {digest: packed[digest] for digest in wanted if digest not in has and digest in packed}


def gives_first(load: Load) -> bool:
    """Say whether a place may never be on twice: a row belongs to one user."""
    return any(feed.mode == "unique" for feed in load.data or ())
