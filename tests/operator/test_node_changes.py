"""Two looks at a machine: what counts as a change of it. Needs no node."""

import pytest

from e2e.machine import COUNTED, changes

MODULES = ["module bridge", "module nf_conntrack"]


def parameters(*names):
    """Return a look at the kernel's parameters alone, all of which are 0."""
    return {"kernel parameters": dict.fromkeys(names, "0")}


@pytest.mark.parametrize(
    ("new", "counted"),
    [
        pytest.param([*MODULES, "net/nf_conntrack_max"], [], id="modules, and what they bring"),
        pytest.param(["net/nf_conntrack_max"], ["net/nf_conntrack_max"], id="without a module"),
        pytest.param([*MODULES, "net/ipv4/conf/left/mtu"], ["net/ipv4/conf/left/mtu"], id="an interface"),
        pytest.param([*MODULES, "kernel/new"], ["kernel/new"], id="not of the network"),
        pytest.param(
            ["module br_netfilter", "net/bridge/bridge-nf-call-iptables", "net/nf_conntrack_max"],
            ["module br_netfilter", "net/bridge/bridge-nf-call-iptables"],
            id="the machine's own bridges",
        ),
    ],
)
def test_what_a_module_brings_is_no_change(new, counted):
    """The kernel loads it by itself, and keeps it."""
    said = [f"+ {name}: 0" for name in counted]
    assert ({"kernel parameters": said} if said else {}) == changes(parameters("vm/old"), parameters("vm/old", *new))


def test_what_is_changed_or_gone_counts_with_new_modules_too():
    """Also of the network."""
    before = parameters("net/a", "net/gone", "module old")
    after = {"kernel parameters": dict.fromkeys(MODULES, "") | {"net/a": "1"}}
    assert {"kernel parameters": ["- module old: 0", "- net/gone: 0", "~ net/a: 0 → 1"]} == changes(before, after)


@pytest.mark.parametrize("name", ["kernel/perf_event_max_sample_rate", "kernel/random/uuid", "vm/stat_refresh"])
def test_what_the_kernel_changes_by_itself_is_not_looked_at(name):
    """It would be another on a machine at rest."""
    assert COUNTED.match(name)
