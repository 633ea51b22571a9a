"""Scenario classes: found by the name that stands in the resource, and what they declare."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trafficsim_api.layout import Layout
from trafficsim_api.model import NAME
from trafficsim_api.resource import Archetype
from trafficsim_runner.scenario.metrics import Counter, Trend
from trafficsim_runner.scenario.scenario import Scenario

if TYPE_CHECKING:
    from trafficsim_runner.stats.account import Account

__all__ = ["Declared", "ScenarioProblem", "bind", "declared_by"]

_METRIC: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAME: Final = re.compile(NAME)


class ScenarioProblem(ValueError):
    """A scenario cannot be played; the text names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A scenario's class with its *actions*, (name, group), and *metrics*."""

    reference: str
    kind: type[Scenario]
    actions: tuple[tuple[str, str], ...]
    metrics: tuple[Counter | Trend, ...]

    @property
    def layout(self) -> Layout:
        """Return its actions and metrics as a layout."""
        return Layout(actions=self.actions, metrics=tuple(metric.key for metric in self.metrics))


def bind(account: Account, declared: Iterable[Declared]) -> None:
    """Count the metrics of *declared* where the slab of *account* has them now."""
    layout = account.slab.layout
    places = {metric: number for number, metric in enumerate(layout.metrics)}
    for scenario in declared:
        for metric in scenario.metrics:
            metric.bind(account, layout.metric(places[metric.key]))


def declared_by(
    archetypes: Sequence[Archetype], known: Mapping[str, Declared], directory: str = ""
) -> Mapping[str, Declared]:  # fmt: skip
    """
    Return the scenarios of *archetypes* by their reference; those *known* are not looked for again.

    Modules are also looked for in *directory*, after everything else. Raises ScenarioProblem.
    """
    found: dict[str, Declared] = {}
    if directory and directory not in sys.path:
        sys.path.append(directory)
    for number, archetype in enumerate(archetypes):
        reference = archetype.scenario
        if reference is not None and reference not in found:
            try:
                found[reference] = known.get(reference) or _declared(reference, _class(reference))
            except ScenarioProblem as problem:
                raise ScenarioProblem(f"archetypes[{number}].scenario: {problem}") from problem
    _check_metrics(found)
    return found


def _class(reference: str) -> type[Scenario]:
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ScenarioProblem(f"no module named {module_name} in the runner's image") from error
        raise ScenarioProblem(f"{module_name} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:  # whatever a module does while it is imported
        raise ScenarioProblem(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if found is None:
        raise ScenarioProblem(f"{module_name} has no class {name}")
    if not (isinstance(found, type) and issubclass(found, Scenario)) or found is Scenario:
        raise ScenarioProblem(f"{reference} is no subclass of trafficsim_runner.scenario.Scenario")
    return found


def _declared(reference: str, kind: type[Scenario]) -> Declared:
    for method in ("start", "run", "stop"):
        if not inspect.iscoroutinefunction(getattr(kind, method)):
            raise ScenarioProblem(f"{reference}: {method} must be an async method")
    if kind.run is Scenario.run:
        raise ScenarioProblem(f"{reference} has no run()")
    actions: object = kind.actions
    if not isinstance(actions, Mapping) or not actions:
        raise ScenarioProblem(f'{reference}: actions must name at least one, with its group: {{"export": "bulk"}}')
    for text in (*actions.keys(), *actions.values()):
        if not isinstance(text, str) or len(text) > 128 or not _NAME.fullmatch(text):
            raise ScenarioProblem(f"{reference}: {text!r} in actions is no name of letters, digits and _ . / : -")
    metrics: dict[str, Counter | Trend] = {}
    for name, metric in inspect.getmembers_static(kind, lambda one: isinstance(one, Counter | Trend)):
        if not _METRIC.fullmatch(metric.name):
            raise ScenarioProblem(f"{reference}: metric {name}: small letters, digits and _ are needed in its name")
        if metric.name in actions:
            raise ScenarioProblem(f"{reference}: {metric.name} is both an action and a metric")
        metrics[metric.name] = metric
    return Declared(
        reference=reference, kind=kind, actions=tuple(actions.items()), metrics=tuple(metrics.values())
    )  # fmt: skip


def _check_metrics(found: Mapping[str, Declared]) -> None:
    """Refuse two metrics of one name that could not be added: another kind or unit."""
    keys: dict[str, tuple[str, str, str]] = {}
    for declared in found.values():
        for metric in declared.metrics:
            if keys.setdefault(metric.name, metric.key) != metric.key:
                raise ScenarioProblem(f"{declared.reference}: {metric.name} is something else in another scenario")
