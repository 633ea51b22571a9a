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


def test_the_place_is_the_users():
    """What our code says of an argument is a mistake where it was given."""
    text = (
        'Traceback (most recent call last):\n  File "/a/trafficsim_runner/scenario/stage.py", line 9, in play\n    x\n'
        '  File "/shop/flows.py", line 31, in run\n    x\n'
        '  File "/a/trafficsim_runner/scenario/metrics.py", line 75, in add\n    x\nValueError: no\n'
    )
    assert "ValueError: no (flows.py, line 31)" == _in_short(text)
    assert "ValueError: no (metrics.py, line 75)" == _in_short(text.replace("/shop/", "/a/trafficsim_runner/"))
