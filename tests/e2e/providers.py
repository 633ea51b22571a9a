"""
Our node as a provider of pytest-kubernetes; with kind, and a cluster of somebody's own, beside it.

The library's list of providers is closed, so `k8s_manager` is replaced. Its commands are text for a shell; ours are run
without one, in the node's network namespace.
"""

import shlex
import tempfile
from pathlib import Path
from typing import Any

import pytest
from pytest_kubernetes.options import ClusterOptions
from pytest_kubernetes.providers import select_provider_manager
from pytest_kubernetes.providers.base import AClusterManager
from pytest_kubernetes.providers.external import ExternalManagerBase

from trafficsim_operator.testing.node import Cluster

OWN = "i_own_this_cluster"


def provider(name: str | None, config: pytest.Config) -> type[AClusterManager]:
    """Return the provider called *name*, or by the command line's options; ours without either."""
    kubeconfig = config.getoption("k8s_kubeconfig") or config.getoption("k8s_kubeconfig_override")
    name = name or config.getoption("k8s_provider") or ("external" if kubeconfig else "node")
    match name:
        case "node":
            return NodeManager
        case "external":
            if not config.getoption(OWN):
                raise pytest.UsageError("tests change a cluster: say --i-own-this-cluster with its kubeconfig")
            return type("Borrowed", (BorrowedManager,), {"original": kubeconfig and Path(kubeconfig)})
        # kind wants a container engine that starts systemd in a container, and its node's image from a registry.
        # Untested.
        case _:
            options = {"cluster_name": config.getoption("k8s_cluster_name"), "version": config.getoption("k8s_version")}
            return select_provider_manager(name, options)


class NodeManager(AClusterManager):
    """The node of `trafficsim_operator.testing.node`; one that was up before is left as it is."""

    _cluster = Cluster()

    def __init__(
        self, cluster_name: str | None = None, provider_config: str | None = None, kubeconfig: Path | None = None
    ):
        super().__init__(cluster_name, provider_config, kubeconfig)
        self._cluster_options.kubeconfig_path = self._cluster.kubeconfig  # deleted by the library with the node only

    @classmethod
    def get_binary_name(cls) -> str:
        return "nsenter"

    def kubectl(self, args: list[str], as_dict: bool = True, timeout: int = 60) -> dict[str, Any] | str:
        """Run kubectl; *args* are words as for a shell. A failure is a RuntimeError, as the library has it."""
        words = shlex.split(" ".join(args))
        answer: dict[str, Any] | str = self._cluster.kubectl(*words, *(["-o", "json"] if as_dict else []))
        return answer

    def apply(self, input: Path | dict[str, Any]) -> None:
        """Apply a file or an object, whatever quotes are in it."""
        file, stdin = ("-", input) if isinstance(input, dict) else (str(input), None)
        self._cluster.kubectl("apply", "-f", file, stdin=stdin)

    def load_image(self, image: str) -> None:
        """Import an archive, as `docker save` writes it: there is no engine that would know a name."""
        self._cluster.import_image(Path(image))

    def port_forwarding(self, *arguments: Any, **options: Any) -> Any:
        """Pods and Services have addresses: see `Cluster.entered`."""
        raise NotImplementedError("use the address of the pod or the Service inside the node's namespace")

    def _on_create(self, cluster_options: ClusterOptions, **kwargs: Any) -> None:
        self._cluster.start(bound=True)

    def _on_delete(self) -> None:
        self._cluster.stop()


class BorrowedManager(ExternalManagerBase):
    """A cluster that exists; the library deletes the kubeconfig in the end, so it gets a copy."""

    original: Path | None = None

    def __init__(
        self, cluster_name: str | None = None, provider_config: str | None = None, kubeconfig: Path | None = None
    ):
        source = kubeconfig or self.original
        if source is None:
            raise pytest.UsageError("an external cluster needs --k8s-kubeconfig")
        descriptor, name = tempfile.mkstemp(prefix="trafficsim-kubeconfig-")  # which only we may read
        with open(descriptor, "wb") as copy:
            copy.write(Path(source).read_bytes())
        super().__init__(cluster_name, provider_config, Path(name))
