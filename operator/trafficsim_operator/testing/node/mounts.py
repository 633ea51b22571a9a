"""
The node's mount namespace. Directories that its programs insist on are the node's own in there.

containerd makes the namespace and the kubelet enters it, so that each sees what the other mounts. It ends with the last
of its processes, and with it every mount of a pod: none is ever on the machine.
"""

from typing import Final

from trafficsim_operator.testing.node.place import Place

# There is no setting for them: sockets of containerd's shims, what the network plugins remember, where the kubelet
# meets device plugins, its links to logs. They have to exist on the machine to be mounted on.
PRIVATE: Final = ("/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers")
_BOUND: Final = 'while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done; shift; exec "$@"'


def separated(place: Place) -> list[str]:
    """
    Return what goes before a command line to run it in a new mount namespace, and make the directories for it.

    What the machine mounts or unmounts later is so in there, too; what is mounted in there is nowhere else.
    """
    pairs: list[str] = []
    for directory in PRIVATE:
        own = place.private / directory.lstrip("/")
        own.mkdir(parents=True)
        pairs += [str(own), directory]
    return ["unshare", "--mount", "--propagation=slave", "sh", "-ec", _BOUND, "sh", *pairs, "--"]


def joined(pid: int) -> list[str]:
    """Return what goes before a command line to run it in the mount namespace of process *pid*."""
    return ["nsenter", f"--mount=/proc/{pid}/ns/mnt"]
