"""The policy document from a mounted file."""

import pytest

from trafficsim_api.errors import SpecError
from trafficsim_api.policy import DEFAULT
from trafficsim_operator.policy_file import PolicyFile


def test_without_a_file_the_shipped_default_holds():
    assert DEFAULT == PolicyFile(None)()


def test_a_change_takes_effect(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("maxUsers: 5\n")
    policy = PolicyFile(path)
    assert 5 == policy().max_users
    path.write_text("maxUsers: 7\n")
    assert 7 == policy().max_users


def test_a_wrong_change_leaves_the_last_policy_and_is_said(tmp_path, caplog):
    """A typing error must not open or close everything."""
    path = tmp_path / "policy.yaml"
    path.write_text("maxUsers: 5\n")
    policy = PolicyFile(path)
    path.write_text("maxUsers: many\n")
    assert 5 == policy().max_users
    assert 5 == policy().max_users
    assert 1 == caplog.text.count("the policy file is wrong")
    path.unlink()
    assert 5 == policy().max_users


def test_an_operator_does_not_start_with_a_wrong_policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("targets: [{host: a, cidr: 10.0.0.0/8}]\n")
    with pytest.raises(SpecError, match="exactly one of"):
        PolicyFile(path)
    with pytest.raises(OSError, match="missing"):
        PolicyFile(tmp_path / "missing.yaml")
