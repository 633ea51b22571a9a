"""
Find the control plane's programs, or build them.

Order: `KUBEBUILDER_ASSETS`; the cache `$XDG_CACHE_HOME/trafficsim/kubernetes`; a build from the Go modules in
tests/cluster/kubernetes of a checkout (some 8 minutes on two cores, once for a version of them). etcd comes from
`KUBEBUILDER_ASSETS`, `PATH`, or, for root on Debian, from the package etcd-server.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trafficsim_operator.testing import go_modules, packages
from trafficsim_operator.testing.go_modules import KUBERNETES
from trafficsim_operator.testing.unavailable import Unavailable

_BUILT: Final = ("kubectl", "kube-apiserver", "kube-controller-manager")


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """Where each program of a control plane is."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path


def find(environ: Mapping[str, str] = os.environ, *, build: bool = True) -> Binaries:
    """Return the programs, building what is missing if *build*; raise `Unavailable` where they cannot be had."""
    paths = {name.replace("-", "_"): path for name, path in kubernetes(_BUILT, environ, build=build).items()}
    return Binaries(etcd=etcd(environ), **paths)


def kubernetes(names: Iterable[str], environ: Mapping[str, str] = os.environ, *, build: bool = True) -> dict[str, Path]:
    """Return the programs of Kubernetes called *names*, building what is missing if *build*."""
    if not sys.platform.startswith("linux"):
        raise Unavailable("the test control plane needs Linux")
    found = {name: _existing(name, environ) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        if not build:
            raise Unavailable(f"{', '.join(missing)} not built yet")
        found |= dict(go_modules.build(KUBERNETES, missing, environ))
    return {name: path for name, path in found.items() if path is not None}


def etcd(environ: Mapping[str, str] = os.environ) -> Path:
    """Return etcd, which root on Debian gets installed."""
    assets = environ.get("KUBEBUILDER_ASSETS")
    if assets and os.access(Path(assets) / "etcd", os.X_OK):
        return Path(assets) / "etcd"
    return packages.programs({"etcd": "etcd-server"})["etcd"]


def _existing(name: str, environ: Mapping[str, str]) -> Path | None:
    directories = [Path(assets)] if (assets := environ.get("KUBEBUILDER_ASSETS")) else []
    candidates = [directory / name for directory in directories]
    if not directories or not all(path.exists() for path in candidates):
        built = go_modules.cache(KUBERNETES, environ)
        go_modules.use(built)
        candidates.append(built / name)
    return next((path for path in candidates if os.access(path, os.X_OK)), None)
