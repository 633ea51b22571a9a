"""Run a runner: `python -m trafficsim_runner`."""

from __future__ import annotations

import sys

from trafficsim_runner.main import main

if __name__ == "__main__":
    sys.exit(main())
