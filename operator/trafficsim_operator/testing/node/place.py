"""Where a node is: directories, addresses, ports. Pure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Inside a network namespace of its own nobody else has these; every node has the same.
ADDRESS: Final = "10.245.0.1"  # the node's, on an interface without a cable
API_PORT: Final = 6443
PODS: Final = "10.244.0.0/24"
SERVICES: Final = "10.96.0.0/16"
API_SERVICE: Final = "10.96.0.1"  # the first of SERVICES, always
DNS_SERVICE: Final = "10.96.0.10"
DOMAIN: Final = "cluster.local"
NODE: Final = "node"

PARENT: Final = Path("/var/lib/trafficsim")  # a disk: images on a memory file system would be memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The names of one node; two nodes with different names share nothing but the kernel."""

    name: str = "trafficsim"
    parent: Path = PARENT

    @property
    def directory(self) -> Path:
        """All state, removed when the node is."""
        return self.parent / self.name

    @property
    def lock(self) -> Path:
        """Held by whoever starts or ends the node."""
        return self.parent / f"{self.name}.lock"

    @property
    def machine(self) -> Path:
        """How the machine was before the first node; it is the machine's, not one node's."""
        return self.parent / "machine.json"

    @property
    def reaper_log(self) -> Path:
        """What the reaper said; it is there while one watches, and after one that could not do its work."""
        return self.parent / f"{self.name}-reaper.log"

    @property
    def owner(self) -> Path:
        """Whose node it is: id and start of the process that it ends with, or "-" where it stays."""
        return self.directory / "owner"

    @property
    def ids(self) -> Path:
        """A file for each program with its process id and start."""
        return self.directory / "ids"

    @property
    def logs(self) -> Path:
        """A log for each program."""
        return self.directory / "logs"

    @property
    def certificates(self) -> Path:
        """Keys and certificates."""
        return self.directory / "certificates"

    @property
    def containerd(self) -> Path:
        """What containerd keeps: images, containers, its socket."""
        return self.directory / "containerd"

    @property
    def socket(self) -> Path:
        """Where containerd listens; a socket's path may have 107 characters."""
        return self.containerd / "containerd.sock"

    @property
    def kubelet(self) -> Path:
        """What the kubelet keeps: volumes, its certificate."""
        return self.directory / "kubelet"

    @property
    def private(self) -> Path:
        """What the node's programs have instead of some directories of the machine's."""
        return self.directory / "private"

    @property
    def namespace(self) -> Path:
        """The file that stands for the network namespace, which is mounted on it."""
        return self.directory / "network"

    @property
    def cgroup(self) -> str:
        """The cgroup, directly below the root of every hierarchy."""
        return f"{self.name}-node"

    def kubeconfig(self, user: str = "admin") -> Path:
        """Return the kubeconfig of *user*."""
        return self.directory / f"{user}.kubeconfig"
