"""`trafficsim run`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.units import milliseconds, parse_duration
from trafficsim_operator.cli.faults import as_json, policy_from, simulation_from, tells_faults
from trafficsim_operator.cli.live import LineView, LiveView, Quiet
from trafficsim_operator.cli.summary import document_of, print_summary
from trafficsim_operator.fleet.environments import mapping_of
from trafficsim_operator.local import Options, Outcome, View
from trafficsim_operator.local import run as run_local

__all__ = ["follow", "history_at", "perform", "run"]

_PIPED: Final = 240

EPILOG: Final = """\b
Ctrl-C ends the run: users finish their action, then the verdict. A second one stops at once (exit code 2).

\b
Exit codes: 0 passed, 1 failed, 2 inconclusive, 3 the file or the environment is at fault.

\b
Examples:
  trafficsim run examples/shop.yaml
  trafficsim run shop.yaml --watch                               edit the file: the load follows
  trafficsim run shop.yaml --allow-target shop.example.com:443   beside loopback and private addresses
  trafficsim run shop.yaml --json > result.json
  trafficsim run shop.yaml --runner registry.example.com/shop-runner:2=.venvs/shop-2
"""


@click.command(epilog=EPILOG, short_help="Run a simulation on this machine, with a verdict.")
@click.argument("file", metavar="FILE")
@click.option("--watch", is_flag=True, help="Take over every edit of FILE while it runs.")
@click.option("--json", "as_json_", is_flag=True, help="Print one JSON document at the end, and nothing else.")
@click.option("--policy", metavar="FILE", help="The policy to run under (default: loopback and private addresses).")
@click.option(
    "--allow-target", "allowed", metavar="HOST:PORT", multiple=True,
    help="Allow one more target; it is written into the history. Can be given several times.",
)  # fmt: skip
@click.option(
    "--runner", "images", metavar="IMAGE=DIR", multiple=True,
    help="What an image is here: a virtual environment, or a directory with packages or modules.",
)  # fmt: skip
@click.option(
    "--history",
    metavar="FILE|none",
    help="Where past runs are kept (default: trafficsim/history.db of the XDG state directory).",
)
@click.option(
    "--start-within", "start", metavar="DURATION", default="60s", show_default=True,
    help="How long runners and target may take to be ready.",
)  # fmt: skip
@tells_faults
def run(
    file: str,
    watch: bool,
    as_json_: bool,
    policy: str | None,
    allowed: tuple[str, ...],
    images: tuple[str, ...],
    history: str | None,
    start: str,
) -> int:
    """
    Run the simulation in FILE on this machine and judge it; `-` is standard input.

    Runners are processes instead of pods; everything else is as in a cluster.
    """
    if watch and file == "-":
        raise SpecError(Problem(field="--watch", reason="standard input cannot be watched"))
    body, simulation = simulation_from(file)
    options = Options(
        body={**body, "metadata": {**body["metadata"], "name": simulation.metadata.name}},
        source=file,
        policy=policy_from(policy, allowed),
        allowed=allowed,
        images=mapping_of(images),
        history=history_at(history, os.environ),  # noqa: TID251  # the shell: settings are read here
        environ=os.environ,  # noqa: TID251
        base=Path() if file == "-" else Path(file).absolute().parent,
        file=Path(file) if watch else None,
        start_ms=_start_ms(start),
    )
    return perform(options, as_json_=as_json_)


def perform(options: Options, *, as_json_: bool) -> int:
    """Run with *options*, show it the way the terminal allows, print what came of it, and return the exit code."""
    outcome = follow(options, _view(as_json_))
    if as_json_:
        click.echo(as_json(document_of(outcome)))
    else:
        console = Console()
        # What is piped has no width: nothing is cut to that of a terminal.
        print_summary(outcome, console if console.is_terminal else Console(width=_PIPED))
    return outcome.exit


def follow(options: Options, view: View) -> Outcome:
    """Run with *options* and show it in *view*, what is logged as a warning among its notes; return what came of it."""
    handler = _Notes(view)
    logging.getLogger("trafficsim_operator").addHandler(handler)
    try:
        return asyncio.run(run_local(options, view))
    finally:
        view.close()
        logging.getLogger("trafficsim_operator").removeHandler(handler)


def history_at(text: str | None, environ: Mapping[str, str]) -> Path | None:
    """
    Return the file of the history, None for none.

    `none` keeps none; nothing given is `trafficsim/history.db` in XDG_STATE_HOME (default ~/.local/state), or none when
    that cannot be written: a run is not refused for it.
    """
    if text == "none":
        return None
    if text is not None:
        path = Path(text).expanduser()
        if not path.absolute().parent.is_dir():
            raise SpecError(Problem(field="--history", reason=f"there is no directory {path.parent}"))
        return path
    try:
        state = environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
        directory = Path(state) / "trafficsim"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):
        return None
    return directory / "history.db" if os.access(directory, os.W_OK) else None


def _start_ms(text: str) -> int:
    try:
        return milliseconds(parse_duration(text))
    except ValueError as error:
        raise SpecError(Problem(field="--start-within", reason=str(error))) from error


def _view(as_json_: bool) -> View:
    if as_json_:
        return Quiet()
    console = Console(stderr=True)
    return LiveView(console) if console.is_terminal else LineView(console)


class _Notes(logging.Handler):
    """Shows what is logged as a warning among the notes of the view, each text once."""

    def __init__(self, view: View) -> None:
        super().__init__(logging.WARNING)
        self._view = view
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show *record* with its fields."""
        known = logging.makeLogRecord({}).__dict__
        fields = [str(value) for key, value in record.__dict__.items() if key not in known and key != "message"]
        text = ": ".join([record.getMessage(), *fields])
        if text not in self._told:
            self._told.add(text)
            self._view.note(text, warning=True)
