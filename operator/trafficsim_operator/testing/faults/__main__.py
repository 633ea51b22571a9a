"""`python -m trafficsim_operator.testing.faults`: every fault at every call, in virtual time."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence

from trafficsim_operator.testing.faults.kinds import Fault
from trafficsim_operator.testing.faults.matrix import Point, Result, every_point, one, parts, undisturbed
from trafficsim_operator.testing.faults.scenarios import SCENARIOS


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the points that are asked for, print those that were not survived, and say how many there were."""
    parser = argparse.ArgumentParser(
        prog="python -m trafficsim_operator.testing.faults",
        description="Every fault at every call of the operator, one by one, in virtual time.",
    )
    parser.add_argument("--scenario", action="append", choices=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--fault", action="append", choices=[fault.value for fault in Fault])
    parser.add_argument("--sample", type=int, metavar="N", help="so many points, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="SCENARIO:CALL:FAULT", help="one point, told at length")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args(arguments)
    try:
        return _only(Point.of(options.only)) if options.only else _many(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1


def _only(point: Point) -> int:
    result = one(point)
    print(f"{point} {result.call}, {result.looks} looks")
    for problem in result.problems:
        print(f"  {problem}")
    print(f"1 faults tried, {int(not result.problems)} survived")
    return 1 if result.problems else 0


def _many(options: argparse.Namespace) -> int:
    began = time.monotonic()
    names = options.scenario or [scenario.name for scenario in SCENARIOS]
    points: list[Point] = []
    for name in names:
        plain = undisturbed(name)
        own = [p for p in every_point(name, len(plain.calls)) if not options.fault or p.fault in options.fault]
        print(f"{name}: {len(plain.calls)} calls in {plain.seconds:.0f} s, {plain.looks} looks; {len(own)} points")
        points += own
    if options.sample is not None and options.sample < len(points):
        print(f"{options.sample} of {len(points)} points, seed {options.seed}")
        points = sorted(random.Random(options.seed).sample(points, options.sample))
    results: list[Result] = []
    is_shown = sys.stderr.isatty()
    for found in parts(points, options.processes):
        results += found
        for result in sorted((result for result in found if result.problems), key=lambda result: result.point):
            print(f"--only {result.point}  {result.call}: {'; '.join(result.problems)[:400]}", flush=True)
        if is_shown:
            print(f"\r{len(results)} of {len(points)} faults tried", end="", file=sys.stderr, flush=True)
    if is_shown:
        print(file=sys.stderr)
    failed = [result for result in results if result.problems]
    print(f"{time.monotonic() - began:.0f} s")
    print(f"{len(results)} faults tried, {len(results) - len(failed)} survived")
    return 1 if failed or len(results) != len(points) else 0


if __name__ == "__main__":
    sys.exit(main())
