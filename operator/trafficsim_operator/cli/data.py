"""Test data in words: how many rows there are, how they are taken, and how often they come again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trafficsim_api.arrivals import UNIT, Course
from trafficsim_api.data import Feeder
from trafficsim_api.profile import Shape
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_operator.cli.figures import count
from trafficsim_operator.fleet.rows import FileRows, inline_rows
from trafficsim_operator.observed import RowsSeen

__all__ = ["elsewhere", "planned_data", "planned_lines", "rows_beside", "used_data", "used_lines"]


def rows_beside(spec: TrafficSimulationSpec, base: Path) -> Mapping[str, RowsSeen]:
    """Return the rows that can be read without a cluster; a path that is not there is one in the runners' image."""
    files, found = FileRows(base), {}
    for feeder in spec.data:
        given = feeder.from_
        if given.inline is not None:
            found[feeder.name] = inline_rows(feeder)
        elif given.path is not None and (base / Path(given.path).expanduser()).exists():
            found[feeder.name] = files.read(given.path)
        else:
            found[feeder.name] = RowsSeen()
    return found


def elsewhere(spec: TrafficSimulationSpec, rows: Mapping[str, RowsSeen]) -> str:
    """Say which feeders' rows could not be looked at, "" when there is none."""
    found = [
        f"data {feeder.name}: {_source(feeder)}"
        for feeder in spec.data
        if not (rows[feeder.name].count or rows[feeder.name].problem)
    ]
    return "; ".join(found)


def planned_lines(spec: TrafficSimulationSpec, rows: Mapping[str, RowsSeen], shape: Shape, end_ms: int) -> list[str]:
    """Say of each feeder what it will do until *end_ms*."""
    return [_line(feeder, _planned(spec, feeder, rows[feeder.name], shape, end_ms)) for feeder in spec.data]


def planned_data(spec: TrafficSimulationSpec, rows: Mapping[str, RowsSeen]) -> list[dict[str, Any]]:
    """Return each feeder for a JSON document; rows are null where only the cluster knows them."""
    return [
        {"name": feeder.name, "mode": feeder.mode, "rows": rows[feeder.name].count or None,
         "columns": list(rows[feeder.name].columns)}
        for feeder in spec.data
    ]  # fmt: skip


def used_lines(spec: TrafficSimulationSpec, rows: Mapping[str, RowsSeen], iterations: int) -> Iterator[str]:
    """Say of each feeder how often its rows were taken by *iterations*."""
    for feeder in spec.data:
        seen = rows.get(feeder.name, RowsSeen())
        if not seen.count:
            yield _line(feeder, "its rows are the runners'")
        elif feeder.mode == "unique":
            yield _line(
                feeder, f"{count(seen.count)} rows, {count(min(spec.users, seen.count))} of them taken by a user each"
            )
        else:
            yield _line(
                feeder, f"{count(seen.count)} rows, each taken {_times(iterations, seen.count)} in {feeder.mode} order"
            )


def used_data(spec: TrafficSimulationSpec, rows: Mapping[str, RowsSeen], iterations: int) -> list[dict[str, Any]]:
    """Return each feeder for a JSON document, with how often a row was taken in the mean."""
    found = planned_data(spec, {feeder.name: rows.get(feeder.name, RowsSeen()) for feeder in spec.data})
    for entry in found:
        is_shared = entry["rows"] and entry["mode"] != "unique"
        entry["timesEach"] = round(iterations / entry["rows"], 2) if is_shared else None
    return found


def _line(feeder: Feeder, text: str) -> str:
    return f"{feeder.name}: {text}"


def _planned(spec: TrafficSimulationSpec, feeder: Feeder, seen: RowsSeen, shape: Shape, end_ms: int) -> str:
    if not seen.count:
        return f"{feeder.mode}; {_source(feeder)}"
    head = f"{count(seen.count)} rows, {feeder.mode}: "
    if feeder.mode == "unique":
        rest = seen.count - spec.users
        return f"{head}user p has row p" + (f"; {count(rest)} are never taken" if rest else "")
    if spec.arrivals is not None and spec.duration is None:
        return f"{head}every {count(seen.count)} arrivals take each once"
    if spec.arrivals is not None:
        planned = Course(shape=shape, rate=spec.arrivals.rate).due(end_ms) // UNIT
        return f"{head}{count(planned)} arrivals take each {_times(planned, seen.count)}"
    if not spec.users:
        return f"{head}no user takes any"
    if seen.count < spec.users:
        return f"{head}{count(spec.users)} users are {_number(spec.users / seen.count)} to a row"
    each = _number(seen.count / spec.users)
    return f"{head}{count(spec.users)} users take each once in {each} iterations of each user"


def _source(feeder: Feeder) -> str:
    if feeder.from_.path is not None:
        return f"{feeder.from_.path} is not here: its rows are in the runners' image and known only then"
    return "its rows are in the ConfigMap and known only then"


def _times(takes: int, rows: int) -> str:
    return "once at most" if takes <= rows else f"{_number(takes / rows)} times"


def _number(value: float) -> str:
    return count(round(value)) if value >= 100 or value == round(value) else f"{value:.1f}"
