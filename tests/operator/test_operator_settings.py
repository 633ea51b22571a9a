"""The operator's settings: read once, wrong ones named."""

from pathlib import Path

import pytest

from trafficsim_api import __version__
from trafficsim_operator.settings import ENVIRONMENT, Settings, SettingsError


def test_nothing_set_has_good_defaults():
    settings = Settings.from_env({})
    assert () == settings.namespaces
    assert ("0.0.0.0", 8080) == (settings.host, settings.port)
    assert settings.policy is None
    assert ("trafficsim-operator", "") == (settings.lease, settings.address)
    assert settings.log_json
    assert f"trafficsim/runner:{__version__}" == settings.image, "never one that changes by itself"


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
            "POD_IP": "fd00::7",
            "TRAFFICSIM_LEASE": "shop-operators",
            "KUBECONFIG": "/tmp/kubeconfig",
        }
    )
    expected = Settings(
        image="registry.example.com/trafficsim/runner:1.2", namespaces=("shop", "cart"),
        policy=Path("/etc/trafficsim/policy.yaml"), host="::1", port=9090, workers=2, resync_s=30, log_level="debug",
        log_json=False, own_namespace="trafficsim-system", identity="operator-0", kubeconfig="/tmp/kubeconfig",
        lease="shop-operators", address="[fd00::7]:9090",
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
        ("TRAFFICSIM_LEASE", "Not_a_name"),
        ("TRAFFICSIM_LEASE", "-"),
    ],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({name: value})


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"TRAFFICSIM_LISTEN": "10.0.0.7:9090"}, "10.0.0.7:9090"),
        ({"TRAFFICSIM_LISTEN": ":9090"}, ""),
        ({"TRAFFICSIM_LISTEN": "[::]:9090"}, ""),
        ({"TRAFFICSIM_LISTEN": ":9090", "POD_IP": "10.0.0.7"}, "10.0.0.7:9090"),
        ({"TRAFFICSIM_LISTEN": "127.0.0.1:9090", "POD_IP": "10.0.0.7"}, "10.0.0.7:9090"),
    ],
)
def test_where_other_replicas_reach_it(environ, address):
    """At the pod's address, else at the one it listens on, if that is one."""
    assert address == Settings.from_env(environ).address


@pytest.mark.parametrize("text", ["off", "OFF"])
def test_off_means_alone(text):
    assert "" == Settings.from_env({"TRAFFICSIM_LEASE": text}).lease


def test_every_variable_is_explained():
    """`--help` lists what from_env reads."""
    read: set[str] = set()

    class Asked(dict[str, str]):
        def get(self, key, default=None):
            read.add(key)
            return default

    Settings.from_env(Asked())
    assert read == set(ENVIRONMENT)
