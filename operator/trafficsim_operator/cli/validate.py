"""`trafficsim validate`."""

from __future__ import annotations

import click

from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.resource import TrafficSimulation, actions_of
from trafficsim_operator.cli.faults import FAULT, as_json, simulation_from, tell, tells_faults
from trafficsim_operator.cli.scenarios import unknown_of

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

    Every problem names its field. Exit code 0 when all are sound, else 3.
    """
    found: list[dict[str, object]] = []
    for file in files:
        simulation, problems = _read(file)
        found.append(
            {
                "file": file,
                "valid": not problems,
                "problems": [{"field": problem.field, "reason": problem.reason} for problem in problems],
                "notChecked": unknown_of(simulation.spec) if simulation else "",
            }
        )
        if as_json_:
            continue
        if simulation is None:
            tell(problems, file)
        else:
            click.echo(f"{file}: sound: {_said_of(simulation)}")
            if unknown := unknown_of(simulation.spec):
                click.echo(f"{file}: not checked: {unknown}")
    if as_json_:
        click.echo(as_json({"files": found}))
    return 0 if all(entry["valid"] for entry in found) else FAULT


def _read(file: str) -> tuple[TrafficSimulation | None, tuple[Problem, ...]]:
    try:
        return simulation_from(file)[1], ()
    except SpecError as error:
        return None, error.problems


def _said_of(simulation: TrafficSimulation) -> str:
    spec = simulation.spec
    actions = actions_of(spec.archetypes)
    counts = [
        (spec.users, "user"), (len(spec.archetypes), "archetype"), (len(actions), "action"),
        (len(spec.thresholds), "threshold"),
    ]  # fmt: skip
    return f"{simulation.metadata.name}, " + ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in counts)
