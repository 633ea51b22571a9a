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


JUMP = '-A FORWARD -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD'


@pytest.mark.parametrize(
    ("rules", "code", "are"),
    [
        pytest.param(["-P FORWARD ACCEPT", JUMP, "-A FORWARD -j OTHER"], 0, True, id="the jump"),
        pytest.param(["-P FORWARD ACCEPT", "-A FORWARD -j OTHER"], 0, False, id="no jump"),
        pytest.param(["-P FORWARD ACCEPT", "-A FORWARD -j KUBE-ROUTER-FORWARD-2"], 0, False, id="another chain"),
        pytest.param([], 4, False, id="no answer"),
    ],
)
def test_policies_are_enforced_once_the_machine_jumps_to_their_rules(place, tmp_path, monkeypatch, rules, code, are):
    """A chain that is there and that nobody jumps to keeps nobody from anything."""
    (tmp_path / "rules").write_text("".join(f"{rule}\n" for rule in rules))
    entering = tmp_path / "bin" / "nsenter"
    entering.parent.mkdir()
    entering.write_text(
        f'#!/bin/sh\n[ "$*" = "--net={place.namespace} iptables --wait --list-rules FORWARD" ] || exit 99\n'
        f"cat {tmp_path / 'rules'}\nexit {code}\n"
    )
    entering.chmod(0o755)
    monkeypatch.setenv("PATH", f"{entering.parent}:{os.environ['PATH']}")
    assert are is policies.are_enforced(place)
