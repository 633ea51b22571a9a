"""What a worker's mistake looks like in one line."""

from __future__ import annotations

import traceback

import pytest

from trafficsim_runner.crew import _in_short


def test_a_fault_in_short_is_the_error_and_its_place():
    """The innermost frame is where the mistake is."""
    try:
        {}["id"]
    except KeyError as error:
        text = "".join(traceback.format_exception(error))
        line = error.__traceback__.tb_lineno
    assert f"KeyError: 'id' (test_worker_faults.py, line {line})" == _in_short(text)


@pytest.mark.parametrize(("text", "short"), [("", ""), ("ValueError: no\n", "ValueError: no"), ("x" * 999, "x" * 300)])
def test_what_is_no_traceback_is_cut(text, short):
    """It stands in a status."""
    assert short == _in_short(text)
