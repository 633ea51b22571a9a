"""
The command line `trafficsim`.

Exit codes of every command: 0 passed (or done), 1 failed, 2 inconclusive, 3 the file or the environment is at fault.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Final

import click

from trafficsim_api import __version__
from trafficsim_operator.cli.faults import FAULT

__all__ = ["main", "trafficsim"]

_ROLLOUT: Final = "trafficsim_operator.cli.rollout"
# Name → module, function and one line of help: a command's module is imported when it is called, so that each starts
# fast, and the ones against a cluster don't bring their client along.
_COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "run": ("trafficsim_operator.cli.run", "run", "Run a simulation on this machine, with a verdict."),
    "demo": ("trafficsim_operator.cli.demo", "demo", "A demo shop and three kinds of users, for about a minute."),
    "demo-rollout": (
        "trafficsim_operator.cli.demo_rollout",
        "demo_rollout",
        "A good version promoted, a bad one rolled back, with a picture.",
    ),
    "validate": ("trafficsim_operator.cli.validate", "validate", "Say whether files are sound, and what is not."),
    "plan": ("trafficsim_operator.cli.plan", "plan", "Say what would be run and why: tier, runners, memory."),
    "install": ("trafficsim_operator.cli.install", "install", "Print or apply what the operator consists of."),
    "get": ("trafficsim_operator.cli.cluster", "get", "Show simulations in a cluster."),
    "watch": ("trafficsim_operator.cli.cluster", "watch", "Follow a simulation in a cluster."),
    "wait": ("trafficsim_operator.cli.cluster", "wait", "Wait for the verdict; the exit code is the verdict's."),
    "stop": ("trafficsim_operator.cli.cluster", "stop", "End a simulation in a cluster, in good order."),
    "rerun": ("trafficsim_operator.cli.cluster", "rerun", "Start the next run of a finished simulation."),
    "promote": (_ROLLOUT, "promote", "Go on with a rollout that waits; accept its promotion."),
    "promote-full": (_ROLLOUT, "promote_full", "Give all users to the new version, and promote it unjudged."),
    "skip-step": (_ROLLOUT, "skip_step", "Pass a rollout's present step unjudged."),
    "pause": (_ROLLOUT, "pause", "Hold a rollout where it is."),
    "resume": (_ROLLOUT, "resume", "Let a paused rollout go on."),
    "abort": (_ROLLOUT, "abort", "Give all users back to the version before."),
    "retry": (_ROLLOUT, "retry", "Try a rejected version once more."),
    "version": ("trafficsim_operator.cli.version", "version", "Print the version."),
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order people need them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command; importing its module is what takes time."""
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


EPILOG: Final = """\b
Exit codes: 0 passed, 1 failed, 2 inconclusive, 3 the file or the environment is at fault.

\b
Examples:
  trafficsim demo
  trafficsim run examples/shop.yaml --watch
  trafficsim validate simulations/*.yaml
"""


@click.group(cls=_Lazy, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trafficsim")
def trafficsim() -> None:
    """Run virtual users against a target: the same file on this machine and in a cluster."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; a wrong option is 3, like anything else that the user can mend."""
    try:
        code = trafficsim.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return FAULT
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return 2
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing more can be said there, not even at the interpreter's end.
        sys.stdout = None
        return 2
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    raise SystemExit(main())
