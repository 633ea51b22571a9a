"""
What a node might change of the machine, looked at: two looks are equal, or `changes` tells what is another.

Nothing in a look changes by itself on a machine that is otherwise at rest.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from trafficsim_operator.testing.node import namespace

# What a look is: kind → thing → how it is.
Look = Mapping[str, Mapping[str, str]]

# Whole trees: what a container runtime, its network or a kubelet keeps by default.
KEPT = (
    "/etc/cni", "/etc/containerd", "/etc/kubernetes", "/opt/cni", "/opt/containerd", "/run/containerd", "/run/docker",
    "/run/netns", "/run/runc", "/run/xtables.lock", "/usr/libexec", "/var/lib/cni", "/var/lib/containerd",
    "/var/lib/etcd", "/var/lib/kubelet", "/var/lib/trafficsim", "/var/log/containers", "/var/log/pods",
)  # fmt: skip
# And whether anything else is new beside them.
BESIDE = ("/", "/etc", "/opt", "/run", "/var/lib", "/var/log")
COUNTED = re.compile(
    r"kernel/(random/|ns_last_pid|pty/nr|sched_domain/|perf_event_max_sample_rate)|kernel/keys/.*usage"
    r"|net/netfilter/nf_conntrack_count|vm/(stat_refresh|drop_caches|compact_memory)"
)  # the kernel's own counters, what it lowers under load, and files that do something when they are read or written
LIFETIME = re.compile(r"(valid_lft|preferred_lft|expires) \S+")  # of an address that somebody has handed out
# A module of the kernel stays until the machine is started again, and so do the parameters that it brings. Not so those
# of an interface; and with br_netfilter, which has its own in net/bridge, the machine's own bridges are others.
NOT_BROUGHT = re.compile(r"net/ipv[46]/(conf|neigh)/|net/bridge/|module br_netfilter$")
OTHERS = re.compile(r"trafficsim-(image-)?\d+-\d+")  # groups of pods as processes, and of images that are run


def look() -> Look:
    """Return how the machine is."""
    return {
        "network": _network(),
        "packet filter": _packet_filter(),
        "mounts": _mounts(),
        "cgroups": _cgroups(),
        "kernel parameters": _parameters(),
        "files": dict.fromkeys(_files(), ""),
    }


def changes(before: Look, after: Look) -> dict[str, list[str]]:
    """
    Return what is not as it was, by its kind: "+" for what is new, "-" for what is gone, "~" for what is another.

    What a module brings that the kernel has loaded is not counted.
    """
    found: dict[str, list[str]] = {}
    for kind, old in before.items():
        new = after[kind]
        added = new.keys() - old.keys()
        said = [
            *(f"+ {thing}: {new[thing]}" for thing in sorted(added - _brought(added))),
            *(f"- {thing}: {old[thing]}" for thing in sorted(old.keys() - new.keys())),
            *(f"~ {t}: {old[t]} → {new[t]}" for t in sorted(old.keys() & new.keys()) if old[t] != new[t]),
        ]
        if said:
            found[kind] = said
    return found


def _brought(added: Set[str]) -> set[str]:
    """Return modules among what was *added*, and with them the parameters of the network that come with such."""
    modules = {thing for thing in added if thing.startswith("module ")}
    parameters = {thing for thing in added if modules and thing.startswith("net/")}
    return {thing for thing in modules | parameters if not NOT_BROUGHT.match(thing)}


def _network() -> dict[str, str]:
    """Return interfaces with what is set on them, addresses, routes and rules."""
    links = {
        f"link {link['ifname']}": json.dumps({key: link.get(key) for key in ("flags", "mtu", "master", "address")})
        for link in json.loads(_said("ip", "-json", "link"))
    }
    asked = {"address": ("-oneline", "address"), "route": ("route", "show", "table", "all"), "rule": ("rule",)}
    lines = (f"{kind} {line}" for kind, words in asked.items() for line in _said("ip", *words).splitlines())
    return links | dict.fromkeys((LIFETIME.sub("", line) for line in lines), "")


def _packet_filter() -> dict[str, str]:
    """Return the tables of nftables, and those of what came before it: a module may have come that has none."""
    legacy = (Path("/proc/net/ip_tables_names"), Path("/proc/net/ip6_tables_names"))
    tables = {path.name: path.read_text() if path.exists() else "" for path in legacy}
    return {"nft": _said("nft", "--stateless", "list", "ruleset")} | tables


def _mounts() -> dict[str, str]:
    """Return mount point → root, kind, source; one that is mounted over counts, too."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words, _, rest = line.partition(" - ")
        root, point = words.split()[3:5]
        found[point] = found.get(point, "") + f"{root} {' '.join(rest.split()[:2])};"
    return found


def _cgroups() -> dict[str, str]:
    """Return the groups directly below each root, with what each root hands on in version 2."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, directory, kind, *_ = line.split()
        if kind not in ("cgroup", "cgroup2"):
            continue
        groups = (entry.path for entry in os.scandir(directory) if entry.is_dir() and not OTHERS.fullmatch(entry.name))
        found |= dict.fromkeys(groups, "")
        handed = Path(directory, "cgroup.subtree_control")
        if handed.exists():
            found[str(handed)] = handed.read_text().strip()
    return found


def _parameters() -> dict[str, str]:
    """Return the kernel's parameters that are a setting, with the modules that are loaded."""
    found: dict[str, str] = {}
    for top in ("kernel", "net", "vm", "user"):
        for directory, _, names in os.walk(f"/proc/sys/{top}"):
            for name in names:
                path = Path(directory, name)
                short = str(path.relative_to("/proc/sys"))
                if path.stat().st_mode & 0o444 and not COUNTED.match(short):
                    found[short] = _text(path)
    modules = Path("/proc/modules")
    loaded = modules.read_text().splitlines() if modules.exists() else []
    return found | {f"module {line.split()[0]}": "" for line in loaded}


def _files() -> Iterator[str]:
    for top in BESIDE:
        yield from (entry.path for entry in os.scandir(top))
    for top in KEPT:
        for directory, directories, names in os.walk(top):
            yield from (os.path.join(directory, name) for name in (*directories, *names))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError as error:  # a setting that may not be read, or not here
        return str(error.strerror)


def _said(*command: str) -> str:
    environ = namespace.environment()
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
