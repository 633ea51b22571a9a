"""The objects that helm renders from the chart, and the manifests for those who install without helm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from trafficsim_operator.chart.files import CHART, ROOT
from trafficsim_operator.manifests.installation import NAMESPACE, SCOPES, Wanted, installation
from trafficsim_operator.manifests.text import documents, read_documents
from trafficsim_operator.testing import helm as program
from trafficsim_operator.testing.go_modules import KUBERNETES

__all__ = ["RenderError", "manifests", "own", "rendered", "template"]

_PACKAGE: Final = Path("operator/trafficsim_operator/manifests")
_HEAD: Final = (
    "# Rendered from charts/trafficsim by `python -m trafficsim_operator.chart`; edit the chart, not this file.\n"
)
_MANIFESTS: Final = Path("manifests")
# What says that a release of Helm owns the object: here none does.
_OF_HELM: Final = frozenset({"helm.sh/chart", "app.kubernetes.io/managed-by", "helm.sh/resource-policy"})

Object = dict[str, Any]


class RenderError(Exception):
    """Helm refuses the values or can't render the templates; the message is its own."""


def rendered(helm: Path) -> Mapping[Path, str]:
    """Return the package's files, from which an installation is made: all but the CRD, which the models give."""
    return {
        _PACKAGE / file: _HEAD + documents(map(own, template(helm, "--skip-tests", *options)))
        for file, options in (
            (SCOPES[False], ("--set", "crds.install=false")),
            (SCOPES[True], ("--set", "rbac.scope=namespaced")),
        )
    }


def manifests() -> Mapping[Path, str]:
    """Return the manifests as `trafficsim install` prints them, with and without --role-only."""
    return {
        _MANIFESTS / file: _HEAD + documents(installation(Wanted(role_only=role_only)))
        for role_only, file in SCOPES.items()
    }


def template(helm: Path, *options: str, release: str = "trafficsim", namespace: str = NAMESPACE) -> list[Object]:
    """Return the objects that the chart consists of under *options* of `helm template`; raise RenderError."""
    where = ("--namespace", namespace, "--kube-version", KUBERNETES.version())
    done = program.run(helm, "template", release, str(ROOT / CHART), *where, *options)
    if done.returncode:
        raise RenderError(done.stderr.strip())
    return read_documents(done.stdout)


def own(found: Object) -> Object:
    """Return *found* without what says that a release of Helm owns it, in its pods' template as well."""
    kept = {**found, "metadata": _free(found["metadata"])}
    if pod := found.get("spec", {}).get("template"):
        kept["spec"] = {**found["spec"], "template": {**pod, "metadata": _free(pod["metadata"])}}
    return kept


def _free(meta: Object) -> Object:
    free: Object = {
        kind: {name: value for name, value in meta[kind].items() if name not in _OF_HELM}
        for kind in ("labels", "annotations")
        if kind in meta
    }
    return {key: free.get(key, value) for key, value in meta.items() if free.get(key, value)}
