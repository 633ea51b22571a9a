"""The operator's settings: read once, wrong ones named."""

from pathlib import Path

import pytest

from trafficsim_operator.settings import ENVIRONMENT, Settings, SettingsError


def test_nothing_set_has_good_defaults():
    settings = Settings.from_env({})
    assert () == settings.namespaces
    assert ("0.0.0.0", 8080) == (settings.host, settings.port)
    assert settings.policy is None
    assert settings.log_json


def test_everything_set():
    settings = Settings.from_env(
        {
            "TRAFFICSIM_RUNNER_IMAGE": "registry.example.com/trafficsim/runner:1.2",
            "TRAFFICSIM_NAMESPACES": "shop, cart,",
            "TRAFFICSIM_POLICY": "/etc/trafficsim/policy.yaml",
            "TRAFFICSIM_LISTEN": "[::1]:9090",
            "TRAFFICSIM_WORKERS": "2",
            "TRAFFICSIM_RESYNC": "30",
            "TRAFFICSIM_LOG_LEVEL": "DEBUG",
            "TRAFFICSIM_LOG_FORMAT": "text",
            "POD_NAMESPACE": "trafficsim-system",
            "POD_NAME": "operator-0",
            "KUBECONFIG": "/tmp/kubeconfig",
        }
    )
    expected = Settings(
        image="registry.example.com/trafficsim/runner:1.2", namespaces=("shop", "cart"),
        policy=Path("/etc/trafficsim/policy.yaml"), host="::1", port=9090, workers=2, resync_s=30, log_level="debug",
        log_json=False, own_namespace="trafficsim-system", identity="operator-0", kubeconfig="/tmp/kubeconfig",
    )  # fmt: skip
    assert expected == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRAFFICSIM_LISTEN", "8080"),
        ("TRAFFICSIM_LISTEN", ":0"),
        ("TRAFFICSIM_LISTEN", ":99999"),
        ("TRAFFICSIM_WORKERS", "0"),
        ("TRAFFICSIM_WORKERS", "many"),
        ("TRAFFICSIM_RESYNC", "-1"),
        ("TRAFFICSIM_LOG_LEVEL", "loud"),
        ("TRAFFICSIM_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({name: value})


def test_every_variable_is_explained():
    """`--help` lists what from_env reads."""
    read: set[str] = set()

    class Asked(dict[str, str]):
        def get(self, key, default=None):
            read.add(key)
            return default

    Settings.from_env(Asked())
    assert read == set(ENVIRONMENT)
