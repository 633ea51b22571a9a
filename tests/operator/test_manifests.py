"""The objects of a simulation, whole: goldens. `--update` rewrites them; review the difference."""

import pytest
import yaml

from trafficsim_operator.fleet import Owner
from trafficsim_operator.manifests import deployment, keys_map, totals_map

OWNER = Owner(namespace="shop", name="shop", uid="6f1d0f5e-0000-4000-8000-000000000001")
FULL = {
    "image": "registry.example.com/trafficsim/runner:1.2",
    "resources": {"limits": {"cpu": "1500m", "memory": "768Mi"}},
    "env": [{"name": "API_TOKEN", "value": "abc"}],
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccountName": "load",
    "nodeSelector": {"pool": "load"},
    "tolerations": [
        {"key": "load", "operator": "Exists"},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists"},
    ],
    "priorityClassName": "low",
    "labels": {"team": "shop", "sidecar.istio.io/inject": "true", "trafficsim.io/revision": "forged"},
    "annotations": {"note": "hello"},
}
OBJECTS = {
    "deployment-default": deployment(OWNER, "0a1b2c3d", {"image": "trafficsim/runner:1.0"}, 2),
    "deployment-full": deployment(OWNER, "4e5f6a7b", FULL, 5, grace_s=70),
    "keys": keys_map(OWNER, {"0123456789abcdef": "-----BEGIN PUBLIC KEY-----\n"}),
    "totals": totals_map(OWNER, {"runner-1": b"\x1f\x8b"}),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_golden(name, golden):
    golden(f"{name}.yaml", yaml.safe_dump(OBJECTS[name], sort_keys=True, width=120))


def _container(name: str) -> dict:
    return OBJECTS[name]["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("name", ["deployment-default", "deployment-full"])
def test_requests_equal_limits(name):
    """A runner's capacity must not depend on its neighbours; only its disk is a limit with a small request."""
    resources = _container(name)["resources"]
    for amount in ("cpu", "memory"):
        assert resources["requests"][amount] == resources["limits"][amount]
    assert ("256Mi", "10Gi") == tuple(resources[kind]["ephemeral-storage"] for kind in ("requests", "limits"))


@pytest.mark.parametrize("name", ["deployment-default", "deployment-full"])
def test_good_for_the_restricted_standard(name):
    pod = OBJECTS[name]["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert _container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


def test_our_labels_cannot_be_forged():
    """What the user's labels may change is the mesh's injection, not whose runner it is."""
    labels = OBJECTS["deployment-full"]["spec"]["template"]["metadata"]["labels"]
    assert "4e5f6a7b" == labels["trafficsim.io/revision"]
    assert "true" == labels["sidecar.istio.io/inject"]
    assert "shop" == labels["team"]


def test_a_given_toleration_takes_the_place_of_ours():
    given = OBJECTS["deployment-full"]["spec"]["template"]["spec"]["tolerations"]
    assert 1 == sum(toleration["key"] == "node.kubernetes.io/not-ready" for toleration in given)


def test_the_selector_is_the_resource_and_its_revision():
    """A resource made anew under an old name must not select the old one's pods."""
    spec = OBJECTS["deployment-default"]["spec"]
    assert {"trafficsim.io/simulation-uid": OWNER.uid, "trafficsim.io/revision": "0a1b2c3d"} == spec["selector"][
        "matchLabels"
    ]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_users_stay_out():
    """The template follows from spec.runner alone: no edit of users restarts a runner."""
    again = deployment(OWNER, "0a1b2c3d", {"image": "trafficsim/runner:1.0"}, 7)
    assert OBJECTS["deployment-default"]["spec"]["template"] == again["spec"]["template"]
