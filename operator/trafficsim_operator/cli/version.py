"""`trafficsim version`."""

from __future__ import annotations

import platform

import click

from trafficsim_api import __version__
from trafficsim_api.compiled import compiled_modules, described
from trafficsim_api.layout import FORMAT
from trafficsim_api.names import API_VERSION
from trafficsim_api.protocol import PROTOCOL
from trafficsim_operator.cli.faults import as_json, tells_faults

__all__ = ["version"]


@click.command(
    epilog="\b\nExamples:\n  trafficsim version\n  trafficsim version --json", short_help="Print the version."
)
@click.option("--json", "as_json_", is_flag=True, help="One JSON document.")
@tells_faults
def version(as_json_: bool) -> int:
    """Print the version of trafficsim and of what it speaks, and which modules are compiled."""
    modules = compiled_modules()
    facts = {
        "version": __version__, "api": API_VERSION, "protocol": PROTOCOL, "statistics": FORMAT,
        "python": platform.python_version(), "compiled": modules,
    }  # fmt: skip
    if as_json_:
        click.echo(as_json(facts))
        return 0
    click.echo(f"trafficsim {__version__}")
    click.echo(f"{API_VERSION}, runner protocol {PROTOCOL}, statistics format {FORMAT}, Python {facts['python']}")
    click.echo(described(modules))
    return 0
