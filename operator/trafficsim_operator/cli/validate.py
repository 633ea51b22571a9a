"""`trafficsim validate`."""

from __future__ import annotations

from pathlib import Path

import click

from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.resource import TrafficSimulation, actions_of
from trafficsim_operator.cli.data import elsewhere, rows_beside
from trafficsim_operator.cli.faults import FAULT, as_json, simulation_from, tell, tells_faults
from trafficsim_operator.cli.figures import counted
from trafficsim_operator.cli.scenarios import unknown_of
from trafficsim_operator.plan.data import fed

__all__ = ["validate"]

EPILOG = """\b
Examples:
  trafficsim validate examples/shop.yaml
  trafficsim validate simulations/*.yaml --json
  kubectl get tsim shop -o yaml | trafficsim validate -
"""


@click.command(epilog=EPILOG, short_help="Say whether files are sound, and what is not.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--json", "as_json_", is_flag=True, help="One JSON document.")
@tells_faults
def validate(files: tuple[str, ...], as_json_: bool) -> int:
    """
    Say whether each FILE is a sound simulation; `-` is standard input.

    Every problem names its field. All mistakes of shape are told (fields, types, units, rules that can't be read), 25
    at most; of what must fit together (templates, names) the first in each object whose fields are right.
    Exit code 0 when all are sound, else 3. Rows of test data are read where their file is here.
    """
    found: list[dict[str, object]] = []
    for file in files:
        simulation, problems, unchecked = _read(file)
        found.append(
            {
                "file": file,
                "valid": not problems,
                "problems": [{"field": problem.field, "reason": problem.reason} for problem in problems],
                "notChecked": "; ".join(unchecked),
            }
        )
        if as_json_:
            continue
        if simulation is None:
            tell(problems, file)
        else:
            click.echo(f"{file}: sound: {_said_of(simulation)}")
            for text in unchecked:
                click.echo(f"{file}: not checked: {text}")
    if as_json_:
        click.echo(as_json({"files": found}))
    return 0 if all(entry["valid"] for entry in found) else FAULT


def _read(file: str) -> tuple[TrafficSimulation | None, tuple[Problem, ...], tuple[str, ...]]:
    """Return the simulation in *file* (None when it is not sound), what is wrong with it, and what was not checked."""
    try:
        simulation = simulation_from(file)[1]
    except SpecError as error:
        return None, error.problems, ()
    rows = rows_beside(simulation.spec, Path() if file == "-" else Path(file).absolute().parent)
    if problems := fed(simulation.spec, rows).problems:
        return None, problems, ()
    unchecked = (elsewhere(simulation.spec, rows), unknown_of(simulation.spec))
    return simulation, (), tuple(text for text in unchecked if text)


def _said_of(simulation: TrafficSimulation) -> str:
    spec = simulation.spec
    actions = actions_of(spec.archetypes)
    counts = [
        (spec.users, "user"), (len(spec.archetypes), "archetype"), (len(actions), "action"),
        (len(spec.thresholds), "threshold"),
    ]  # fmt: skip
    return f"{simulation.metadata.name}, " + ", ".join(counted(n, what) for n, what in counts)
