"""The runner's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from trafficsim_runner.settings import Settings, SettingsError

NEEDED = {"TRAFFICSIM_SIMULATION_UID": "s", "TRAFFICSIM_RUNNER_UID": "r", "TRAFFICSIM_KEYS": "/keys"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, ("127.0.0.1", 9646), id="loopback when nothing is said"),
        pytest.param({"POD_IP": "10.0.0.7"}, ("10.0.0.7", 9646), id="the pod's address"),
        pytest.param({"TRAFFICSIM_LISTEN": ":81", "POD_IP": "10.0.0.7"}, ("10.0.0.7", 81), id="only a port"),
        pytest.param({"TRAFFICSIM_LISTEN": "127.0.0.3:0", "POD_IP": "10.0.0.7"}, ("127.0.0.3", 0), id="a host"),
        pytest.param({"TRAFFICSIM_LISTEN": "[::1]:9"}, ("::1", 9), id="IPv6"),
    ],
)
def test_where_it_listens(environ, expected):
    """A host given wins over the pod's address."""
    settings = Settings.from_env(NEEDED | environ)
    assert expected == (settings.host, settings.port)


def test_all_of_it():
    """Limits of 0 mean that there are none."""
    settings = Settings.from_env(
        NEEDED
        | {
            "TRAFFICSIM_CPU": "2000",
            "TRAFFICSIM_MEMORY": "0",
            "TRAFFICSIM_STATE": "/state",
            "TRAFFICSIM_REVISION": "abc",
            "TRAFFICSIM_GRACE": "5",
        }
    )
    assert ("s", "r", "abc", 2000, None, 5) == (
        settings.simulation, settings.runner, settings.revision, settings.cpu, settings.memory, settings.grace_s
    )  # fmt: skip
    assert (Path("/keys"), Path("/state")) == (settings.keys, settings.state)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRAFFICSIM_SIMULATION_UID", ""),
        ("TRAFFICSIM_RUNNER_UID", ""),
        ("TRAFFICSIM_KEYS", ""),
        ("TRAFFICSIM_LISTEN", "nowhere"),
        ("TRAFFICSIM_LISTEN", "host:99999"),
        ("TRAFFICSIM_CPU", "two"),
        ("TRAFFICSIM_MEMORY", "1Gi"),
    ],
)
def test_what_is_wrong_is_named(name, value):
    """The message names the variable."""
    with pytest.raises(SettingsError, match=name):
        Settings.from_env(NEEDED | {name: value})
