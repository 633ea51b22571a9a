"""
What GitOps tools make of a simulation: asked of kstatus, of CEL in Flux's order, and of the Lua that Argo CD runs.

`python tests/gitops/verdicts.py` builds what answers from its Go modules: a minute or some, once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trafficsim_operator.testing import go_modules
from trafficsim_operator.testing.go_modules import Module
from trafficsim_operator.testing.unavailable import Unavailable

MODULE = Module(called="kstatus", directory=Path(__file__).parent, requires="sigs.k8s.io/cli-utils", package=".")
NAME = "verdicts"


def program(*, build: bool = True) -> Path:
    """Return the program, built if need be and *build*; raise `Unavailable` where it cannot be had."""
    if not build and not (go_modules.cache(MODULE) / NAME).exists():
        raise Unavailable("kstatus is not built yet: python tests/gitops/verdicts.py")
    return dict(go_modules.build(MODULE, [NAME]))[NAME]


def argo_cd(asked: Path, script: str, objects: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (status, message) that Argo CD's interpreter gets from a health *script* for each of *objects*."""
    answers = _ask(asked, [{"object": found, "script": script} for found in objects])
    return [(answer["status"], answer["message"]) for answer in answers]


def kstatus(asked: Path, objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what kstatus says of each of *objects*: InProgress, Current, Failed, Terminating."""
    return [answer["status"] for answer in _ask(asked, [{"object": found} for found in objects])]


def flux(asked: Path, expressions: Mapping[str, str], objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what Flux says of each of *objects* by the *expressions* of a health check; Unknown: it waits."""
    answers = _ask(asked, [{"object": found, "expressions": dict(expressions)} for found in objects])
    return [answer["status"] for answer in answers]


def _ask(asked: Path, questions: list[dict[str, Any]]) -> list[dict[str, str]]:
    text = "\n".join(map(json.dumps, questions))
    done = subprocess.run([asked], input=text, capture_output=True, text=True, timeout=30, check=False)
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    try:
        print(program())
    except Unavailable as error:
        sys.exit(f"unavailable: {error}")
