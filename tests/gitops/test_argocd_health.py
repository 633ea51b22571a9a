"""Argo CD's health script says of a simulation at every station what the page on GitOps tells."""

import re
from pathlib import Path

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from gitops import verdicts
from gitops.recorded import as_hook
from trafficsim_api.names import GROUP, KIND

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = (DOCS / "argocd-health.lua").read_text()
# Station → what Argo CD shows · the message · what a hook of a sync makes of it.
HEALTH = {
    "applied": ("Progressing", "the operator has not looked at it yet", "Progressing"),
    "pending": ("Progressing", "no Service shop", "Progressing"),
    "preflight": ("Progressing", "0 of 2 runners are ready", "Progressing"),
    "starting": ("Progressing", "is at setup", "Progressing"),
    "running": ("Healthy", "1200 of 1200 users are at work", "Progressing"),
    "silent": ("Degraded", "no answer from shop-", "Progressing"),
    "edited": ("Progressing", "the operator has not looked at it yet", "Progressing"),
    "edit-refused": ("Degraded", "archetypes: at least 1 entry is needed", "Degraded"),
    "suspended": ("Suspended", "spec.suspend is set", "Suspended"),
    "draining": ("Progressing", "the duration is over", "Progressing"),
    "passed": ("Healthy", "Passed: no rule was asked for", "Healthy"),
    "completed": ("Healthy", "Failed: p95(look) < 1ms: 1ms", "Degraded"),
    "inconclusive": ("Healthy", "Inconclusive: 0 requests after the warm-up", "Degraded"),
    "refused": ("Degraded", "users: 1200 are more than the policy's 100", "Degraded"),
    "gave-up": ("Degraded", "gave up after 300 s: no Service shop", "Degraded"),
    "rollout-preparing": ("Progressing", "rollout 1 is Preparing", "Progressing"),
    "rollout-analyzing": ("Progressing", "rollout 1 is Analyzing", "Progressing"),
    "rollout-paused": ("Suspended", "PausedAfterStep: 50% is passed", "Suspended"),
    "rollout-retiring": ("Healthy", "400 of 400 users are at work", "Progressing"),
    "rollout-rejected": ("Degraded", "rejected at 10%: success 81.2%", "Degraded"),
    "deleted": ("Healthy", "1200 of 1200 users are at work", "Progressing"),  # not asked: Argo CD says so by itself
}


def health(found):
    """Return (status, message) as Argo CD would have them: with Lua 5.1 and no library but base, table and os."""
    lua = LuaRuntime(register_eval=False, register_builtins=False)
    lua.execute("getmetatable('').__index = nil; string, math, io, debug, coroutine = nil, nil, nil, nil, nil")
    lua.globals().obj = lua.table_from(found, recursive=True)
    answer = lua.execute(SCRIPT)
    assert {"status", "message"} == set(answer)
    return answer["status"], answer["message"]


@pytest.mark.parametrize("station", HEALTH)
def test_the_health_of_a_simulation(stations, station):
    """The word is one of Argo CD's, the message says why in the operator's words."""
    status, message, _ = HEALTH[station]
    found = health(stations[station])
    assert status == found[0]
    assert message in found[1]


@pytest.mark.parametrize("station", HEALTH)
def test_a_hook_waits_for_its_verdict(stations, station):
    """And the sync fails unless that is Passed."""
    assert HEALTH[station][2] == health(as_hook(stations[station]))[0]


def test_argo_cds_own_interpreter_says_the_same(stations, program):
    """Of every station, as a resource and as a hook."""
    objects = [*stations.values(), *map(as_hook, stations.values())]
    assert [health(found) for found in objects] == verdicts.argo_cd(program, SCRIPT, objects)


def test_no_station_is_left_out(stations):
    """The table has them all."""
    assert HEALTH.keys() == stations.keys()


@pytest.mark.parametrize(
    ("reason", "status"), [("RunnersStarting", "Progressing"), ("RunnersFailing", "Degraded")], ids=str
)
def test_runners_that_start_are_no_failure(stations, reason, status):
    """Scaling up is progress."""
    silent = stations["silent"]
    conditions = [
        condition | ({"reason": reason} if condition["type"] == "RunnersHealthy" else {})
        for condition in silent["status"]["conditions"]
    ]
    assert status == health(silent | {"status": silent["status"] | {"conditions": conditions}})[0]


def test_the_page_shows_the_script():
    """The ConfigMap in the page has the file, under the key of the kind."""
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "gitops.md").read_text(), re.DOTALL)
    [shown] = [found for found in map(yaml.safe_load, (b for b in blocks if "argocd-cm" in b)) if found]
    assert {f"resource.customizations.health.{GROUP}_{KIND}": SCRIPT} == shown["data"]
