"""Which cluster a test gets that takes pytest-kubernetes' `k8s`; nothing here starts one."""

from types import SimpleNamespace

import pytest
from pytest_kubernetes.providers import base
from pytest_kubernetes.providers.kind import KindManagerBase

from e2e.providers import BorrowedManager, NodeManager, provider


def a_config(**options):
    """Return a configuration of pytest with these options, named as on the command line."""
    defaults = {"k8s_cluster_name": "pytest"}
    return SimpleNamespace(getoption=(defaults | options).get)


def test_ours_is_the_provider_unless_another_is_named():
    """By the test, or by the command line."""
    assert NodeManager is provider(None, a_config())
    assert NodeManager is provider("node", a_config(k8s_provider="kind"))
    assert issubclass(provider(None, a_config(k8s_provider="kind")), KindManagerBase)
    assert issubclass(provider("kind", a_config()), KindManagerBase)


@pytest.mark.parametrize("option", ["k8s_kubeconfig", "k8s_kubeconfig_override"])
def test_a_cluster_of_somebodys_own_has_to_be_ones_own(option):
    """Tests change a cluster, so a kubeconfig alone is not enough."""
    with pytest.raises(pytest.UsageError, match="--i-own-this-cluster"):
        provider(None, a_config(**{option: "kubeconfig"}))
    found = provider(None, a_config(**{option: "kubeconfig"}, i_own_this_cluster=True))
    assert issubclass(found, BorrowedManager)


def test_somebodys_kubeconfig_is_never_deleted(tmp_path, monkeypatch):
    """The library deletes what it was given; that is a copy."""
    monkeypatch.setattr(base, "sleep", lambda seconds: None)
    original = tmp_path / "kubeconfig"
    original.write_text("a cluster")
    manager = provider("external", a_config(k8s_kubeconfig=str(original), i_own_this_cluster=True))()
    copy = manager.kubeconfig
    assert ("a cluster", 0o600) == (copy.read_text(), copy.stat().st_mode & 0o777)
    manager.delete()
    assert not copy.exists()
    assert "a cluster" == original.read_text()


def test_an_external_cluster_needs_its_kubeconfig():
    """Said before anything is asked of it."""
    found = provider("external", a_config(i_own_this_cluster=True))
    with pytest.raises(pytest.UsageError, match="--k8s-kubeconfig"):
        found()
