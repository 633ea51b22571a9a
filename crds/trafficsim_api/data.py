"""
Test data: feeders of rows, which templates look up as `{{data.FEEDER.COLUMN}}`.

| mode | the row of n that an iteration takes; T = `users`, user p in its k-th iteration from 0 on (turn t = p + k·T) |
|---|---|
| `unique` | row p, always: at least `users` rows are needed |
| `circular` | row t mod n |
| `shuffled` | row π(t mod n), π a permutation drawn from the seed and the pass ⌊t ÷ n⌋ |

In the open model arrival number N has turn t = N; with `unique` the user who takes it has its own row there too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from trafficsim_api.flow import Archetype, Step
from trafficsim_api.model import Model, Scalar, exactly_one, fault
from trafficsim_api.tables import Table, of_rows

__all__ = [
    "FEEDER",
    "FILE",
    "MAX_FEEDERS",
    "ConfigMapKey",
    "DataFrom",
    "DataLookup",
    "Feed",
    "Feeder",
    "check_data",
    "lookups_of",
    "missing_column",
    "too_few_rows",
]

FILE: Final = r"\.(csv|jsonl|ndjson)$"
FEEDER: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
MAX_FEEDERS: Final = 16
INLINE_BYTES: Final = 64 * 1024
_LOOKUP: Final = re.compile(r"\{\{\s*data\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_-]*)\s*\}\}")


class ConfigMapKey(Model):
    """A key of a ConfigMap: CSV with a header line (`….csv`) or JSON lines (`….jsonl`, `….ndjson`)."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """The ConfigMap, in the simulation's namespace."""
    key: Annotated[str, StringConstraints(max_length=253, pattern=FILE)]
    """The key; its suffix says the format."""


class DataFrom(Model):
    """Where rows come from; exactly one way."""

    inline: (
        Annotated[tuple[Annotated[dict[str, Scalar], Field(max_length=32)], ...], Field(min_length=1, max_length=4096)]
        | None
    ) = None
    """The rows themselves, each a mapping of the same columns to text; 64 KiB at most."""
    config_map: ConfigMapKey | None = None
    """A key of a ConfigMap; read again every 10s, and a change is live."""
    path: Annotated[str, StringConstraints(max_length=1024, pattern=FILE)] | None = None
    """A file in the runners' image, .csv, .jsonl or .ndjson; with `trafficsim run` relative to the simulation's."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ("inline", "config_map", "path"), "exactly one of inline, configMap, path")
        if self.inline is not None:
            try:
                table = self.table
            except ValueError as error:
                raise fault("inline", str(error)) from None
            if len(table.content.encode()) > INLINE_BYTES:
                raise fault("inline", "at most 64 KiB are allowed; more belongs into a ConfigMap or a file")
        return self

    @property
    def table(self) -> Table:
        """Return the rows given inline."""
        return of_rows((f"row {number}: ", row) for number, row in enumerate(self.inline or (), 1))


class Feeder(Model):
    """Rows of test data that users take from, and how."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=FEEDER)]
    """What the rows are called in templates."""
    from_: Annotated[DataFrom, Field(alias="from")]
    mode: Literal["unique", "shuffled", "circular"] = "circular"
    """One row for each user, the rows in a random order that each pass draws anew, or the rows in turn."""


class Feed(Model):
    """
    A feeder as runners are told: its rows by *digest*, or the *path* of a file in the runner's image.

    With neither the runner goes on with the rows it has under this name.
    """

    name: Annotated[str, StringConstraints(pattern=FEEDER)]
    mode: Literal["unique", "shuffled", "circular"]
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLookup:
    """One `{{data.FEEDER.COLUMN}}`, and where it stands."""

    where: str
    feeder: str
    column: str


def lookups_of(archetypes: Iterable[Archetype]) -> tuple[DataLookup, ...]:
    """Return every lookup of data in *archetypes*."""
    return tuple(
        found
        for index, archetype in enumerate(archetypes)
        for found in _in_flow(archetype.flow or (), f"archetypes[{index}].flow")
    )


def check_data(feeders: tuple[Feeder, ...], archetypes: Iterable[Archetype], users: int) -> None:
    """Raise a fault for a name given twice, a lookup that leads nowhere, and inline rows that are too few."""
    lookups = lookups_of(archetypes)
    names = [feeder.name for feeder in feeders]
    for lookup in lookups:
        if lookup.feeder not in names:
            raise fault(lookup.where, f"there is no data {lookup.feeder}")
    for index, feeder in enumerate(feeders):
        if feeder.name in names[:index]:
            raise fault(f"data[{index}].name", f"{feeder.name} is given twice")
        if feeder.from_.inline is None:
            continue
        if missing := missing_column(feeder.name, feeder.from_.table.columns, lookups):
            raise fault(*missing)
        if feeder.mode == "unique" and (few := too_few_rows(len(feeder.from_.inline), users)):
            raise fault(f"data[{index}]", few)


def missing_column(feeder: str, columns: tuple[str, ...], lookups: Iterable[DataLookup]) -> tuple[str, str] | None:
    """Return field and reason of the first of *lookups* that asks *feeder* for a column it does not have."""
    for lookup in lookups:
        if lookup.feeder == feeder and lookup.column not in columns:
            return lookup.where, f"data {feeder} has no column {lookup.column}, only {', '.join(columns)}"
    return None


def too_few_rows(rows: int, users: int) -> str:
    """Return why *rows* are too few for `unique`, "" when they are not."""
    return f"unique needs a row for each user: {rows} rows are too few for {users} users" if rows < users else ""


def _in_flow(flow: tuple[Step, ...], where: str) -> Iterator[DataLookup]:
    for index, step in enumerate(flow):
        here = f"{where}[{index}]"
        for field, inner in step.nested:
            yield from _in_flow(inner, f"{here}.{field}")
        if step.request is not None:
            for field, value in step.request.model_dump(mode="python", by_alias=True, exclude_none=True).items():
                for feeder, column in _found(value):
                    yield DataLookup(where=f"{here}.request.{field}", feeder=feeder, column=column)


def _found(value: Any) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield from _LOOKUP.findall(value)
        case dict():
            for key, item in value.items():
                yield from _found(key)
                yield from _found(item)
        case list() | tuple():
            for item in value:
                yield from _found(item)
