"""`python -m trafficsim_operator.testing.histories`: random histories of rollouts, at length."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from trafficsim_operator.testing.histories.driver import many, report, shortfalls


def main(arguments: Sequence[str] | None = None) -> int:
    """Run histories, print what they came to, and say whether every invariant held and nothing was left out."""
    parser = argparse.ArgumentParser(description="Run random histories of rollouts under a clock that is only moved.")
    parser.add_argument("--count", type=int, default=10_000, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args(arguments)
    began = time.monotonic()
    visits, broken = many(options.first, options.count, options.processes)
    for line in report(visits):
        print(line)
    print(f"{options.count} histories in {time.monotonic() - began:.0f} s")
    missed = shortfalls(visits, options.count)
    for line in (*broken[:20], *missed):
        print(line, file=sys.stderr)
    print(f"{len(broken)} broken, {len(missed)} left out")
    return 1 if broken or missed else 0


if __name__ == "__main__":
    sys.exit(main())
