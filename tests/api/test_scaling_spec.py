"""What a user may say about scaling, and what is refused."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from trafficsim_api.scaling import Scaling


def test_defaults() -> None:
    """Runners are to be 70 % busy, and are started ahead of users who are due."""
    scaling = Scaling()
    assert (7000, True, timedelta(seconds=60)) == (scaling.target_utilisation, scaling.prediction, scaling.look_ahead)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param({"targetUtilisation": "10%"}, ("target_utilisation", 1000), id="least target"),
        pytest.param({"targetUtilisation": "95%"}, ("target_utilisation", 9500), id="highest target"),
        pytest.param({"lookAhead": "15s"}, ("look_ahead", timedelta(seconds=15)), id="shortest look ahead"),
        pytest.param({"lookAhead": "10m"}, ("look_ahead", timedelta(minutes=10)), id="longest look ahead"),
        pytest.param({"prediction": False}, ("prediction", False), id="no prediction"),
    ],
)
def test_read(written: dict[str, Any], read: tuple[str, Any]) -> None:
    """Each field as it is written."""
    name, value = read
    assert value == getattr(Scaling.model_validate(written), name)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        pytest.param({"targetUtilisation": "9.99%"}, "from 10% to 95% is needed", id="below the least target"),
        pytest.param({"targetUtilisation": "95.01%"}, "from 10% to 95% is needed", id="above the highest target"),
        pytest.param({"lookAhead": "14s"}, "from 15s to 10m is needed", id="too short a look ahead"),
        pytest.param({"lookAhead": "10m1s"}, "from 15s to 10m is needed", id="too long a look ahead"),
        pytest.param({"minRunners": 3, "maxRunners": 2}, "must not be above maxRunners", id="min above max"),
    ],
)
def test_refused(written: dict[str, Any], reason: str) -> None:
    """Each bound, with what is needed."""
    with pytest.raises(ValidationError, match=reason):
        Scaling.model_validate(written)
