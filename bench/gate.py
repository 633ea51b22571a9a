"""
Hold the instructions of a request to their bars: `make check` runs it, `bench/gate.py --update` takes new figures.

valgrind's callgrind counts machine instructions, which a busy machine does not change. Two numbers are held, for the
plain modules and for the compiled ones:

    instructions of a request ≤ 16 000 pure, 9 000 compiled
    those ÷ the instructions of one turn of a bare loop in the same process ≤ 1.05 · what gate.json says

The first is the bar, the second finds what makes a request dearer while it is still below the bar. It is compared only
under the Python it was taken with. Both are held for answers that are the same each time, as `varying` for answers
whose heads all differ, and as `flow`, with bars of its own, for requests with templates, saved values and JSON checks.
Exit code 0: all hold, or cannot be measured here (the reason is printed); 1: not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
COMMITTED: Final = HERE / "gate.json"
BARS: Final = {"pure": 16_000, "compiled": 9_000}
FLOW_BARS: Final = {"pure": 40_000, "compiled": 17_000}
SLACK: Final = 1.05
# Which of callgrind's dumps has what (the others are beginning and warming up).
BARE: Final = 2
PARTS: Final = {"": 3, "_varying": 5, "_flow": 7}
ROUNDS: Final = 50
USERS: Final = 64
WITHIN_S: Final = 300


class Unmeasured(Exception):
    """Nothing can be counted here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Instructions of one request, and of one turn of the bare loop."""

    request: float
    bare: float

    @property
    def ratio(self) -> float:
        """Return how many turns of the bare loop a request costs."""
        return self.request / self.bare


def valgrind() -> str:
    """Return where valgrind is; install it where that is possible."""
    if shutil.which("valgrind") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "valgrind"]
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    found = shutil.which("valgrind")
    if found is None:
        raise Unmeasured("valgrind is not installed (as root on Debian it would be)")
    return found


def python_of(variant: str) -> str:
    """Return the Python that has this checkout's modules as *variant* says."""
    if variant == "pure":
        return sys.executable
    done = subprocess.run([str(HERE.parent / "tools" / "compiled")], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Unmeasured("the modules could not be compiled (see above; it takes a C compiler and Python's headers)")
    return done.stdout.strip()


def counted(python: str) -> dict[str, Counted]:
    """Return what callgrind counts in gate_load.py, by part."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        command = [
            valgrind(), "--tool=callgrind", "--dump-before=getsid", f"--callgrind-out-file={out}",
            python, "-P", str(HERE / "gate_load.py"), str(ROUNDS),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=WITHIN_S
            )
        except subprocess.TimeoutExpired as error:
            raise Unmeasured(f"callgrind took longer than {WITHIN_S} s") from error
        if done.returncode or not out.with_name(f"out.{max(PARTS.values())}").exists():
            raise SystemExit(f"gate: {command[-3:]} failed ({done.returncode}): {done.stderr[-1000:]}")
        totals = {dump: total_of(out.with_name(f"out.{dump}").read_text()) for dump in (BARE, *PARTS.values())}
    turns = ROUNDS * USERS
    return {
        part: Counted(request=totals[dump] / turns, bare=totals[BARE] / turns) for part, dump in PARTS.items()
    }  # fmt: skip


def total_of(dump: str) -> int:
    """Return the instructions in one of callgrind's dumps."""
    found = re.search(r"^totals: (\d+)$", dump, re.MULTILINE)
    if found is None:
        raise SystemExit("gate: callgrind left a dump without a total")
    return int(found[1])


def bar_of(variant: str) -> int:
    """Return how many instructions a request may take; heads that differ change nothing about that, a flow does."""
    plain, _, part = variant.partition("_")
    return (FLOW_BARS if part == "flow" else BARS)[plain]


def faults(variant: str, found: Counted, committed: Mapping[str, float] | None) -> list[str]:
    """Return what is wrong with *found*; *committed* is None when it was taken with another Python."""
    wrong: list[str] = []
    bar = bar_of(variant)
    if found.request > bar:
        wrong.append(f"{found.request:.0f} instructions a request, at most {bar} are allowed")
    if committed is not None and found.ratio > SLACK * committed["ratio"]:
        wrong.append(
            f"{found.ratio:.3f} times the bare loop, gate.json has {committed['ratio']:.3f}: a request became "
            f"{found.ratio / committed['ratio'] - 1:.0%} dearer. If it is worth it: bench/gate.py --update"
        )
    return wrong


def told(variant: str, found: Counted, before: Mapping[str, float] | None) -> bool:
    """Print what came of *variant*; return whether something is wrong with it."""
    wrong = faults(variant, found, before)
    compared = f", committed {before['ratio']:.3f}" if before else ""
    print(f"gate: {variant:16} {found.request:6.0f} instructions a request (bar {bar_of(variant)}), "
          f"{found.ratio:.3f} × the bare loop{compared}")  # fmt: skip
    print("".join(f"gate: {variant}: {text}\n" for text in wrong), end="", file=sys.stderr)
    return bool(wrong)


def main() -> int:
    """Count, compare, and say what came of it."""
    parser = argparse.ArgumentParser(description="Hold the instructions of a request to their bars.")
    parser.add_argument("--update", action="store_true", help="write what is counted into gate.json")
    parser.add_argument("--variants", default="pure,compiled", help="comma separated")
    given = parser.parse_args()
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    is_same = committed.get("python") == platform.python_version()
    taken: dict[str, dict[str, float]] = dict(committed.get("variants", {}))
    failed = False
    for variant in given.variants.split(","):
        try:
            measured = {variant + part: found for part, found in counted(python_of(variant)).items()}
        except Unmeasured as reason:
            print(f"gate: {variant} is not measured: {reason}")
            continue
        for name, found in measured.items():
            before = taken.get(name) if is_same and not given.update else None
            failed = told(name, found, before) or failed
            taken[name] = {"instructions": round(found.request), "ratio": round(found.ratio, 3)}
    if given.update:
        COMMITTED.write_text(json.dumps({"python": platform.python_version(), "variants": taken}, indent=2) + "\n")
    elif committed and not is_same:
        print(f"gate: the ratios are not compared: gate.json is of Python {committed.get('python')}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
