"""What GitOps tools make of a simulation: asked of kstatus, and of CEL in the order that Flux evaluates it in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trafficsim_operator.testing import go_modules
from trafficsim_operator.testing.go_modules import Module

MODULE = Module(called="kstatus", directory=Path(__file__).parent, requires="sigs.k8s.io/cli-utils", package=".")


def build() -> Path:
    """Return the program, built if need be (a minute, once); raise `Unavailable` where it cannot be had."""
    return dict(go_modules.build(MODULE, ["verdicts"]))["verdicts"]


def kstatus(program: Path, objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what kstatus says of each of *objects*: InProgress, Current, Failed, Terminating."""
    return _ask(program, [{"object": found} for found in objects])


def flux(program: Path, expressions: Mapping[str, str], objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what Flux says of each of *objects* by the *expressions* of a health check; Unknown: it waits."""
    return _ask(program, [{"object": found, "expressions": dict(expressions)} for found in objects])


def _ask(program: Path, questions: list[dict[str, Any]]) -> list[str]:
    text = "\n".join(map(json.dumps, questions))
    done = subprocess.run([program], input=text, capture_output=True, text=True, timeout=30, check=False)
    assert 0 == done.returncode, done.stderr
    return [json.loads(line)["status"] for line in done.stdout.splitlines()]
