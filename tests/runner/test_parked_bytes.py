"""What a parked user costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PARKED = Path(__file__).parents[2] / "bench" / "parked.py"


def test_a_parked_user_is_250_bytes_at_most():
    """Record, numbers and entry in the wheel together, in a process of their own."""
    done = subprocess.run([sys.executable, "-P", PARKED], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) <= 250
