"""Everything a node runs: built from Go modules, or from the distribution, or made here."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import binaries, go_modules, leftovers, packages
from trafficsim_operator.testing.go_modules import COREDNS, KUBE_ROUTER
from trafficsim_operator.testing.node import policies
from trafficsim_operator.testing.node.archive import archive
from trafficsim_operator.testing.node.worker import PAUSE
from trafficsim_operator.testing.unavailable import Unavailable

_KUBERNETES: Final = (
    "kubectl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
# Program → Debian package. kube-proxy calls nft, containerd its shim and runc.
_DISTRIBUTION: Final = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "sysctl": "procps",
    "mount": "mount",
    "umount": "mount",
    **policies.CALLED,
}
_PLUGINS: Final = {"ptp": "containernetworking-plugins", "host-local": "containernetworking-plugins"}
_PLUGIN_DIRECTORIES: Final = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")

DNS: Final = "localhost/coredns:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where each program is."""

    kubernetes: Mapping[str, Path]
    etcd: Path
    containerd: Path
    ctr: Path
    policies: Path
    plugins: Path  # the directory of the network plugins
    pause: Path  # image archives
    dns: Path


def find(environ: Mapping[str, str] = os.environ) -> Programs:
    """Return the programs; build, install and make what is missing, or raise `Unavailable`."""
    if not sys.platform.startswith("linux"):
        raise Unavailable("a node needs Linux")
    if os.geteuid() != 0:
        raise Unavailable("a node needs root: for namespaces, mounts and cgroups")
    distribution = packages.programs(_DISTRIBUTION)
    plugins = packages.programs(_PLUGINS, _plugin)
    return Programs(
        kubernetes=binaries.kubernetes(_KUBERNETES, environ),
        etcd=binaries.etcd(environ),
        containerd=distribution["containerd"],
        ctr=distribution["ctr"],
        policies=_policies(environ),
        plugins=plugins["ptp"].parent,
        pause=_pause(environ),
        dns=_dns(environ),
    )


def kubectl(environ: Mapping[str, str] = os.environ) -> Path:
    """Return kubectl as it is used with a node that is up."""
    return binaries.kubernetes(["kubectl"], environ)["kubectl"]


def _plugin(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join(_PLUGIN_DIRECTORIES))


def _pause(environ: Mapping[str, str]) -> Path:
    directory = go_modules.cached(environ) / "pause"
    program, source = directory / "pause", Path(__file__).with_name("pause.c")
    image = directory / "pause.tar"
    if not image.exists() or image.stat().st_mtime < source.stat().st_mtime:
        compiler = packages.programs({"gcc": "gcc libc6-dev"})["gcc"]
        directory.mkdir(parents=True, exist_ok=True)
        command = [str(compiler), "-static", "-Os", "-s", "-o", str(program), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"the pause program could not be compiled: {go_modules.last_line(done.stderr)}")
        _replace(image, archive(PAUSE, {"pause": program}, entrypoint=["/pause"]))
    return image


def _dns(environ: Mapping[str, str]) -> Path:
    [(_, program)] = go_modules.build(COREDNS, ["coredns"], environ)
    image = program.with_name("coredns.tar")
    if not image.exists() or image.stat().st_mtime < program.stat().st_mtime:
        _replace(image, archive(DNS, {"coredns": program}, entrypoint=["/coredns"]))
    return image


def _policies(environ: Mapping[str, str]) -> Path:
    [(_, program)] = go_modules.build(KUBE_ROUTER, [policies.NAME], environ)
    return program


def _replace(path: Path, content: bytes) -> None:
    unfinished = leftovers.unfinished(path)
    unfinished.write_bytes(content)
    unfinished.replace(path)
