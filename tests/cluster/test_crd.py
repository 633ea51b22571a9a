"""The CRD against a real API server: accepted as it stands, and it refuses what it can with the field's name."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from trafficsim_api import crd, document
from trafficsim_api.errors import SpecError

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
# Files that are wrong in what they say; those wrong in how they are written never get past kubectl.
SPOKEN = ("both", "conflict", "deep", "half", "missing", "range", "rule", "shape", "template", "type", "unknown")
# Not asked: null is pruned there and the default holds; another version is no resource of the server's at all.
APART = {"type-null-users", "unknown-version"}
CORPUS = sorted(
    p for p in (REPOSITORY / "tests/api/corpus").glob("*.yaml") if p.stem.startswith(SPOKEN) and p.stem not in APART
)
# What neither OpenAPI nor CEL within its budget can say: the operator answers these in the condition Accepted.
ANSWERED_LATER = {
    "both-bodies",
    "conflict-choose-weights",
    "conflict-no-request",
    "conflict-pool-heartbeat",
    "conflict-pool-min-built-in",
    "conflict-pool-unused",
    "deep-flow",
    "deep-json",
    "range-actions",
    "range-cpu",
    "range-duration-long",
    "range-memory",
    "range-pool-heartbeat",
    "range-port",
    "range-port-zero",
    "range-repeat",
    "range-repeat-falling",
    "range-rate",
    "rule-action",
    "rule-action-as-metric",
    "rule-action-without-unit",
    "rule-count",
    "rule-metric",
    "rule-metric-unnamed",
    "rule-no-scenario",
    "rule-over",
    "rule-service",
    "rule-share",
    "rule-share-high",
    "rule-unit",
    "shape-ca-inline",
    "shape-header-break",
    "shape-header-name",
    "shape-header-name-break",
    "shape-header-reserved",
    "shape-path-space",
    "shape-save-name",
    "shape-save-reserved",
    "shape-save-source",
    "template-in-choose",
    "template-in-expect",
    "template-in-json",
    "template-in-repeat",
    "template-later",
    "template-shape",
    "template-unknown",
    "unknown-nested-field",
}


@pytest.fixture(scope="module")
def dry_run(control_plane):
    """The CRD as it is generated, established; and what the server says to a file, which it does not keep."""

    def run(*arguments):
        command = [control_plane.kubectl, "--kubeconfig", control_plane.kubeconfig, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    done = run("apply", "--server-side", "--force-conflicts", "-f", str(crd.FILE))
    assert done.returncode == 0, done.stderr
    # `kubectl wait` gives up on an object that has no conditions yet, and discovery follows the condition by a moment.
    deadline = time.monotonic() + 30
    while run("get", "tsim").returncode != 0:
        assert time.monotonic() < deadline, "the resource is not served"
        time.sleep(0.1)

    def said(path):
        done = run("create", "--dry-run=server", "--validate=strict", "-f", str(path))
        return done.stdout + done.stderr

    return said


def test_the_definition_is_what_was_generated(dry_run, kubectl):
    """Nothing of the schema is dropped or rewritten by the API server, and no condition speaks against it."""
    found = kubectl("get", "crd", crd.crd()["metadata"]["name"], "-o", "json")
    assert not [c for c in found["status"]["conditions"] if c["type"] == "NonStructuralSchema"]
    assert crd.crd()["spec"]["versions"] == found["spec"]["versions"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_apply(dry_run, path):
    """Every example passes strict validation on the server."""
    assert "created" in dry_run(path)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_wrong_files_are_refused_by_name(dry_run, path):
    """The API server names the field, or the file is one of those that are answered later."""
    with pytest.raises(SpecError) as error:
        document.load(path.read_bytes(), path.name)
    said = dry_run(path)
    if path.stem in ANSWERED_LATER:
        assert "created" in said
        return
    assert "created" not in said
    for problem in error.value.problems:
        assert f"spec.{problem.field}" in said or re.findall(r"[A-Za-z_]\w*", problem.field)[-1] in said, said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("both-verbs", "spec.archetypes[0].flow[0].request: .*one of get, head, post, put, patch, delete, options is"),
        ("missing-segment", r"spec.profile\[0\]: .*exactly one of ramp, hold, steps, spike, sine, curve is needed"),
        ("half-think-form", r"flow\[1\].think: .*constant, or min and max, or median and p95 is needed"),
        ("conflict-warm-up", "warmUp: must be shorter than duration"),
        ("conflict-runners", "spec.scaling: .*minRunners: must not be above maxRunners"),
        ("conflict-resources", "requests.cpu: must be equal to limits.cpu"),
        ("range-ramp", r"spec.profile\[0\].ramp: .*to: at most 100% is needed"),
        ("range-name-long", "metadata.name: at most 40 characters are allowed"),
        ("rule-words", r"spec.thresholds\[0\]: .*rule: a rule such as"),
    ],
)
def test_rules_speak_in_the_users_words(dry_run, name, message):
    """CEL says the same as the models."""
    assert re.search(message.replace("[0].", r"\[0\]."), dry_run(REPOSITORY / f"tests/api/corpus/{name}.yaml"))


def test_every_limit_at_once_is_within_the_budget(dry_run, kubectl):
    """The largest document that the bounds allow is still judged: CEL's cost holds at run time too."""
    simulation = yaml.safe_load(EXAMPLES[0].read_text())
    step = {"request": {"get": "/" + "x" * 40, "headers": {"a": "b"}}, "expect": {"status": 200}}
    flow = [step, {"think": {"median": "1s", "p95": "3s"}}, {"think": {"min": "1s", "max": "3s"}}] * 42
    simulation["spec"]["archetypes"] = [{"name": f"a{n}", "flow": flow} for n in range(32)]
    simulation["spec"]["thresholds"] = [{"rule": "p99.9.service(" + "x" * 120 + ") < 250ms over 30s"}] * 32
    assert "created" in kubectl("create", "--dry-run=server", "-f", "-", stdin=simulation)


def test_scale_changes_users(dry_run, kubectl):
    """`kubectl scale` sets spec.users, and generation with it."""
    kubectl("create", "-f", str(EXAMPLES[0]))
    kubectl("scale", f"tsim/{EXAMPLES[0].stem}", "--replicas=37")
    found = kubectl("get", "tsim", EXAMPLES[0].stem, "-o", "json")
    assert (37, 2) == (found["spec"]["users"], found["metadata"]["generation"])


def test_only_users_and_suspend_are_defaulted(dry_run, kubectl):
    """What git says is what the object says: a diff stays clean."""
    kubectl("create", "-f", str(EXAMPLES[0]))
    given = yaml.safe_load(EXAMPLES[0].read_text())["spec"]
    assert {"users": 10, "suspend": False, **given} == kubectl("get", "tsim", EXAMPLES[0].stem, "-o", "json")["spec"]


def test_status_is_a_subresource_with_columns(dry_run, kubectl):
    """The columns read what the operator writes; a status written with the object is dropped."""
    simulation = {**yaml.safe_load(EXAMPLES[0].read_text()), "status": {"phase": "Running"}}
    kubectl("create", "-f", "-", stdin=simulation)
    assert "status" not in kubectl("get", "tsim", EXAMPLES[0].stem, "-o", "json")
    status = {
        "phase": "Running", "tier": "micro", "version": "1.0", "verdict": "Passed",
        "users": {"active": 37}, "runners": {"ready": 1}, "figures": {"rps": "12.5", "p95": "8ms", "errorRate": "0.1%"},
    }  # fmt: skip
    patch = json.dumps({"status": status})
    kubectl("patch", "tsim", EXAMPLES[0].stem, "--subresource=status", "--type=merge", "-p", patch)
    header, row = kubectl("get", "tsim").splitlines()
    assert ["NAME", *(name for name, _, _ in crd.COLUMNS)] == header.split()
    assert [EXAMPLES[0].stem, "Running", "37", "12.5", "8ms", "0.1%", "micro", "1", "1.0", "Passed"] == row.split()[:-1]


def test_explain_tells_the_docs(dry_run, kubectl):
    """The models' docstrings are what `kubectl explain` prints."""
    said = " ".join(kubectl("explain", "tsim.spec.target.timeouts.connect").split())
    assert "Until the connection stands, TLS handshake included. Default: 1s." in said
