"""The manifests that the page on GitOps shows fit this repository, its chart and its kind."""

import re
from pathlib import Path

import pytest
import yaml

from trafficsim_api.crd import crd
from trafficsim_api.names import API_VERSION, GROUP, KIND
from trafficsim_operator.chart.files import CHART
from trafficsim_operator.chart.values import Values
from trafficsim_operator.kube import SIMULATIONS

ROOT = Path(__file__).parents[2]
SHOWN = [
    found
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "gitops.md").read_text(), re.DOTALL)
    for found in yaml.safe_load_all(block)
]
OF_KIND = {"apiVersion": API_VERSION, "kind": KIND}
# As their own documentation writes them.
API_VERSIONS = {
    "Application": "argoproj.io/v1alpha1",
    "ConfigMap": "v1",
    "GitRepository": "source.toolkit.fluxcd.io/v1",
    "HelmRelease": "helm.toolkit.fluxcd.io/v2",
    "Kustomization": "kustomize.toolkit.fluxcd.io/v1",
    KIND: API_VERSION,
}
SYNC_OPTIONS = {"CreateNamespace", "RespectIgnoreDifferences", "ServerSideApply", "SkipDryRunOnMissingResource"}


def named(kind):
    """Return what is shown of a kind by its name; a part of an Application has neither."""
    return {found["metadata"]["name"]: found for found in SHOWN if found.get("kind") == kind}


def test_every_kind_has_its_version():
    """And every document but a part of an Application is whole."""
    whole = [found for found in SHOWN if "kind" in found]
    assert API_VERSIONS.items() == {found["kind"]: found["apiVersion"] for found in whole}.items()
    assert [["spec"]] == [sorted(found) for found in SHOWN if "kind" not in found]
    assert {"trafficsim", "load"} == named("Application").keys()
    assert {"trafficsim", "load", "load-test"} == named("Kustomization").keys()


@pytest.mark.parametrize(
    ("path", "values"),
    [
        pytest.param(
            named("Application")["trafficsim"]["spec"]["source"]["path"],
            named("Application")["trafficsim"]["spec"]["source"]["helm"]["valuesObject"],
            id="Argo CD",
        ),
        pytest.param(
            named("HelmRelease")["trafficsim"]["spec"]["chart"]["spec"]["chart"],
            named("HelmRelease")["trafficsim"]["spec"]["values"],
            id="Flux",
        ),
    ],
)
def test_the_chart_is_where_it_is_said_to_be(path, values):
    """With values that it has."""
    assert (ROOT / CHART).samefile(ROOT / path)
    assert "charts" in path
    Values.model_validate(values)


def test_what_is_depended_on_is_shown():
    """Simulations come after what brings their kind, and that is waited for."""
    found = named("Kustomization")
    for name in ("load", "load-test"):
        [before] = found[name]["spec"]["dependsOn"]
        assert found[before["name"]]["spec"]["wait"]
    source = named("HelmRelease")["trafficsim"]["spec"]["chart"]["spec"]["sourceRef"]
    assert source["name"] in named("GitRepository")


def test_health_checks_are_of_the_kind():
    """Each is about simulations, and waits longer than a start may take."""
    for name in ("load", "load-test"):
        spec = named("Kustomization")[name]["spec"]
        assert OF_KIND.items() <= spec["healthCheckExprs"][0].items()
        assert int(spec["timeout"].removesuffix("m")) > 5


def test_what_argo_cd_leaves_alone_is_a_field():
    """The one that `kubectl scale` writes."""
    [part] = [found for found in SHOWN if "kind" not in found]
    [left] = part["spec"]["ignoreDifferences"]
    assert (GROUP, KIND, ["/spec/users"]) == (left["group"], left["kind"], left["jsonPointers"])
    [version] = crd()["spec"]["versions"]
    assert ".spec.users" == version["subresources"]["scale"]["specReplicasPath"]


def test_sync_options_exist():
    """A misspelt one would be passed over in silence."""
    given = [found["spec"]["syncPolicy"]["syncOptions"] for found in SHOWN if "syncPolicy" in found.get("spec", {})]
    assert SYNC_OPTIONS == {option.removesuffix("=true") for options in given for option in options}


def test_every_simulation_shown_is_in_the_namespace_that_is_synced():
    """Of the Application and of the files alike."""
    namespace = named("Application")["load"]["spec"]["destination"]["namespace"]
    assert {namespace} == {found["metadata"]["namespace"] for found in named(SIMULATIONS.kind).values()}
