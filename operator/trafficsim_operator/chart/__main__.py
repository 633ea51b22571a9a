"""
Write what is written of the chart and the manifests rendered from it, or with --check compare.

Without helm the rendered manifests are not compared. That is said, and a failure where TRAFFICSIM_REQUIRE names `helm`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from trafficsim_operator.chart.files import CHART, ROOT, written
from trafficsim_operator.chart.rendered import manifests, rendered
from trafficsim_operator.testing import helm
from trafficsim_operator.testing.unavailable import Unavailable, required_levels

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; with --check write nothing and return 1 when one is out of date."""
    parser = argparse.ArgumentParser(prog="python -m trafficsim_operator.chart", description="Generate the chart.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is out of date")
    check = parser.parse_args(arguments).check
    missed = False
    stale = _settle(written((ROOT / CHART / "README.md").read_text(encoding="utf-8")), check)
    try:
        found = helm.find()
    except Unavailable as error:
        print(f"the rendered manifests are not compared: {error}")
        missed = "helm" in required_levels()
    else:
        stale += _settle(rendered(found), check)
    stale += _settle(manifests(), check)
    for path in stale if check else ():
        print(f"{path} is out of date: run `make generate`", file=sys.stderr)
    return 1 if check and (stale or missed) else 0


def _settle(files: Mapping[Path, str], check: bool) -> list[Path]:
    """Return which of *files* are not as they should be; unless it is only a *check* they are written."""
    stale = [path for path, text in files.items() if not _stands(ROOT / path, text)]
    for path in () if check else stale:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(files[path], encoding="utf-8")
    return stale


def _stands(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
