"""The runner: `trafficsim-runner`, or `python -m trafficsim_runner`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from trafficsim_api import __version__
from trafficsim_api.compiled import compiled_modules, described

__all__ = ["main"]

log: Final = logging.getLogger(__name__)

EXAMPLES: Final = """\
A runner is told what to do over HTTP by its operator; everything it needs to know before stands in the environment:

  TRAFFICSIM_SIMULATION_UID   the simulation it works for (needed)
  TRAFFICSIM_RUNNER_UID       its own name (needed)
  TRAFFICSIM_KEYS             directory of public keys, <kid>.pem (needed)
  TRAFFICSIM_LISTEN           host:port of the control API (default: POD_IP, else 127.0.0.1, port 9646)
  TRAFFICSIM_STATE            directory kept over a restart (default: one below the temporary directory)
  TRAFFICSIM_REVISION         revision it was started as
  TRAFFICSIM_CPU              CPU limit in millicores
  TRAFFICSIM_MEMORY           memory limit in bytes
  TRAFFICSIM_GRACE            seconds a drain may take after SIGTERM (default 30)

examples:
  TRAFFICSIM_SIMULATION_UID=s1 TRAFFICSIM_RUNNER_UID=r1 TRAFFICSIM_KEYS=./keys trafficsim-runner
  curl http://127.0.0.1:9646/readyz
  curl http://127.0.0.1:9646/metrics

SIGTERM or SIGINT: users finish their action, then exit code 0; a second one ends at once.
"""


class _Version(argparse.Action):
    """Prints the version and ends; what is compiled is looked up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and end."""
        print(f"trafficsim-runner {__version__}\n{described(compiled_modules())}")
        parser.exit()


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run a runner until a signal ends it; return the exit code (2: the environment is wrong, or the address taken)."""
    parser = argparse.ArgumentParser(
        prog="trafficsim-runner",
        description="Run virtual users against a target, as the operator assigns them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="say the version, and which modules are compiled")
    parser.parse_args(argv)
    # One thread adds histograms fast enough; a pool of them would cost each runner tens of MiB.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251 - the library reads it when it is loaded
    from trafficsim_runner.logs import set_up
    from trafficsim_runner.settings import Settings, SettingsError

    environ = os.environ if environ is None else environ  # noqa: TID251 - here it is handed down
    try:
        settings = Settings.from_env(environ)
    except SettingsError as error:
        print(f"trafficsim-runner: {error}", file=sys.stderr)
        return 2
    set_up({"simulation.id": settings.simulation, "runner.id": settings.runner})
    from trafficsim_runner.service import serve

    return asyncio.run(serve(settings, (signal.SIGTERM, signal.SIGINT), environ=environ))


if __name__ == "__main__":
    sys.exit(main())
