"""What enforces NetworkPolicies on a node for tests, without a node: the rules that it is kept from."""

import os
import subprocess

import pytest

from trafficsim_operator.testing.node import Place, policies


@pytest.fixture
def place(tmp_path):
    """A node that nobody has started; it has its directory."""
    found = Place(name="a-node", parent=tmp_path)
    found.directory.mkdir()
    return found


def test_rules_for_bridges_are_left_out_and_all_others_kept(place, tmp_path, monkeypatch):
    """The machine's own program gets the rest, with the arguments as they were; its exit code is the answer."""
    machine = tmp_path / "machine's"
    machine.mkdir()
    (machine / "iptables-restore").write_text('#!/bin/sh\necho "$@"\ncat\nexit 3\n')
    (machine / "iptables-restore").chmod(0o755)
    monkeypatch.setenv("PATH", f"{machine}:{os.environ['PATH']}")
    rules = ["*filter", "-A FORWARD -m physdev --physdev-is-bridged -d 10.0.0.1 -j POD", "-A FORWARD -j POD", "COMMIT"]
    command = [*policies.without_bridges(place), "iptables-restore", "--wait", "-T", "filter"]
    done = subprocess.run(command, input="\n".join(rules), capture_output=True, text=True, check=False)
    assert ["--wait -T filter", "*filter", "-A FORWARD -j POD", "COMMIT"] == done.stdout.splitlines()
    assert 3 == done.returncode
