"""The gate's rules: the bar always holds, the ratio where the committed one is comparable."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gate():
    spec = importlib.util.spec_from_file_location("instruction_gate", ROOT / "bench" / "gate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize(
    ("variant", "request_", "bare", "committed", "wrong"),
    [
        pytest.param("pure", 16_000, 4000, 4.0, 0, id="at-the-bar"),
        pytest.param("pure", 16_001, 4000, 4.0, 1, id="above-the-bar"),
        pytest.param("compiled", 9_001, 9_000, None, 1, id="another-python-still-has-the-bar"),
        pytest.param("pure", 10_000, 4000, None, 0, id="another-python-has-no-ratio"),
        pytest.param("pure", 10_500, 4000, 2.5, 0, id="five-percent-are-let-through"),
        pytest.param("pure", 10_600, 4000, 2.5, 1, id="six-percent-are-not"),
        pytest.param("pure", 20_000, 4000, 2.5, 2, id="both"),
        pytest.param("compiled_varying", 9_001, 9_000, 1.0, 1, id="heads-that-differ-have-the-same-bar"),
    ],
)
def test_faults(gate, variant, request_, bare, committed, wrong):
    """Instructions against the bar, their ratio to the bare loop against 1.05 × the committed one."""
    found = gate.Counted(request=request_, bare=bare)
    assert wrong == len(gate.faults(variant, found, committed and {"ratio": committed}))


def test_a_dumps_total_is_read(gate):
    """callgrind ends each dump with the sum."""
    assert 4711 == gate.total_of("events: Ir\nfn=(1)\n5 4711\n\ntotals: 4711\n")


def test_the_committed_figures_are_below_the_bars(gate):
    """What is committed could not have failed."""
    variants = json.loads((ROOT / "bench" / "gate.json").read_text())["variants"]
    assert {variant + part for variant in gate.BARS for part in gate.PARTS} == variants.keys()
    assert all(figures["instructions"] <= gate.bar_of(name) for name, figures in variants.items())


def test_the_counted_load_counts_every_request():
    """The in-memory load is the real engine's: it fails when a request is not accounted for."""
    done = subprocess.run([sys.executable, ROOT / "bench" / "gate_load.py", "3"], check=False)
    assert 0 == done.returncode
