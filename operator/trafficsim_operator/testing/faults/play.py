"""
Playing a scenario: to rest before it, the act under a fault, to its end, then to the end of the run; what it came to.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from trafficsim_api.names import Condition, FieldManager, Reason
from trafficsim_api.phases import Phase, Verdict
from trafficsim_operator.keys import keys_of
from trafficsim_operator.kube import CONFIG_MAPS, DEPLOYMENTS, PODS, REPLICA_SETS, SECRETS, Object
from trafficsim_operator.testing.faults.scenarios import Scenario, at_work, completed
from trafficsim_operator.testing.faults.stand import NAMESPACE, Stand, Stuck
from trafficsim_operator.testing.faults.wire import Wire

__all__ = ["Outcome", "play"]

_CALM_S: Final = 60.0
_WITHIN_S: Final = 240.0
_AFTER_S: Final = 2.0
# A run with so many requests has what a verdict needs.
_ENOUGH: Final = 120
_OURS: Final = (CONFIG_MAPS, DEPLOYMENTS, REPLICA_SETS)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a scenario came to: how the world is at the *end*, and the problems it *found*."""

    calls: list[str]
    fired: list[str]
    end: dict[str, Any]
    found: list[str]
    looks: int = 0
    seconds: float = 0.0

    def differs(self, other: Outcome) -> list[str]:
        """Return where the end of *other* is another one."""
        return _differences(self.end, other.end)


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}: {found.get(key)!r} in place of {wanted.get(key)!r}"
        for key in sorted({*wanted, *found})
        if wanted.get(key) != found.get(key)
    ]


async def play(scenario: Scenario, wire: Wire, wanted: Mapping[str, Any] | None = None) -> Outcome:
    """Play *scenario* with its calls on *wire* until the world is as *wanted*, an earlier end; None: any end."""
    log = logging.getLogger("trafficsim_operator")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    stand = Stand(wire=wire, restart_s=scenario.restart_s)
    stand.cluster.image_health.update(scenario.health)
    end: dict[str, Any] = {}
    try:
        await _act(scenario, stand, wanted)
        end |= _objects(stand) | _status(stand)
        if not scenario.ends:
            end |= await _finished(stand)
        elif stand.body is not None:
            end |= _accounts(stand)
    except Stuck as error:
        stand.found.append(str(error))
    finally:
        wire.armed = False
        await stand.end()
        log.setLevel(level)
    return Outcome(
        calls=wire.calls, fired=wire.fired, end=end, found=stand.found, looks=stand.looks,
        seconds=asyncio.get_running_loop().time(),
    )  # fmt: skip


async def _act(scenario: Scenario, stand: Stand, wanted: Mapping[str, Any] | None) -> None:
    def missing(stand: Stand) -> str:
        what = scenario.missing(stand)
        if what or wanted is None:
            return what
        now = _objects(stand) | _status(stand)
        return "; ".join(_differences({key: value for key, value in wanted.items() if key in now}, now))

    if scenario.before is None:
        stand.wire.armed = True
        stand.begin()
    else:
        stand.begin()
        stand.apply(**scenario.before)
        await stand.until(at_work(int(scenario.before["users"])), _CALM_S)
        if scenario.ends and not scenario.is_deleted:
            await _enough(stand)
        stand.wire.armed = True
    stand.most, stand.least = scenario.most, scenario.least
    scenario.act(stand)
    if scenario.is_deleted:
        await stand.pass_by(scenario.missing, _WITHIN_S)
        await asyncio.sleep(_AFTER_S)  # the operator still hears of what went
    else:
        await stand.until(missing, _WITHIN_S)
    stand.wire.armed = False


async def _finished(stand: Stand) -> dict[str, Any]:
    """End the run, when it has what a verdict needs, and return how it is judged."""
    users = stand.active()
    stand.most = stand.least = users
    await _enough(stand)
    stand.least = None
    stand.command("stop")
    await stand.pass_by(completed, _CALM_S)
    return _accounts(stand)


async def _enough(stand: Stand) -> None:
    """Let the run go on until it has the requests that a verdict needs."""
    while sum(runner.done for runner in stand.runners) < _ENOUGH:
        await asyncio.sleep(1.0)
        for runner in stand.cluster.runners.values():
            runner.count(stand.now_ms())


def _accounts(stand: Stand) -> dict[str, Any]:
    """
    Return how the run was judged; what it counted is held to what the runners did.

    Lost user time is stated, so a fault may cost the verdict where it costs more than 1 %, and only there.
    """
    status, run = stand.status, stand.status.run
    assert run is not None
    done = sum(runner.done for runner in stand.runners)
    given = sum(runner.wanted_user_ms for runner in stand.runners)
    if status.accounts.requests != done and not status.accounts.missing:
        stand.found.append(f"{status.accounts.requests} requests are told of, {done} were done, nothing is missing")
    if abs(run.planned_user_ms - run.lost_user_ms - given) > 100 and run.lost_user_ms:
        stand.found.append(f"{run.lost_user_ms} user-ms of {run.planned_user_ms} are told lost, {given} were given")
    verdict, reason = status.verdict, _reason(stand, Condition.PASSED)
    if run.lost_user_ms * 100 > run.planned_user_ms:
        expected = Reason.RUNNERS_LOST if run.lost else Reason.USER_TIME_LOST
        if (verdict, reason) != (Verdict.INCONCLUSIVE, expected):
            stand.found.append(
                f"{run.lost_user_ms} of {run.planned_user_ms} user-ms are lost, and it is {verdict}, {reason}"
            )
        return {"phase": Phase.COMPLETED}
    if (verdict, reason) != (Verdict.PASSED, Reason.PASSED):
        stand.found.append(f"nothing is lost, and the run is {verdict}, {reason}: {status.verdict_reason}")
    return {"phase": Phase.COMPLETED}


def _reason(stand: Stand, kind: str) -> str:
    return next((c.reason for c in stand.status.conditions if c.type == kind), "")


def _objects(stand: Stand) -> dict[str, Any]:
    """Return what stands in the API server, as far as it is to be the same each time."""
    found: dict[str, Any] = {}
    for kind in _OURS:
        for item in stand.server.of(kind, NAMESPACE):
            meta = item["metadata"]
            keys = [entry == f"{_kid(stand)}.pem" for entry in item.get("data") or ()]
            found[f"{kind.plural}/{meta['name']}"] = (
                meta.get("labels"),
                item.get("spec"),
                keys,
                _is_scaled_by_us(item),
            )
    pods = [pod for pod in stand.server.of(PODS, NAMESPACE) if pod["metadata"].get("ownerReferences")]
    found["pods"] = sorted(pod["metadata"]["ownerReferences"][0]["name"] for pod in pods)
    found["secrets"] = [item["metadata"]["name"] for item in stand.server.of(SECRETS)]
    return found


def _kid(stand: Stand) -> str:
    """Return the id of the operator's key: it is a new one in every world."""
    [secret] = stand.server.of(SECRETS)
    key = load_pem_private_key(base64.b64decode(secret["data"]["key.pem"]), None)
    assert isinstance(key, Ed25519PrivateKey)
    return keys_of(key).signer.kid


def _is_scaled_by_us(item: Object) -> bool:
    """Say whether replicas are nobody's but ours."""
    holders = {
        entry["manager"]
        for entry in item["metadata"].get("managedFields") or ()
        if "f:replicas" in (entry["fieldsV1"].get("f:spec") or {})
    }
    return holders <= {FieldManager.OBJECTS.value, FieldManager.SCALE.value, "controller"}


def _status(stand: Stand) -> dict[str, Any]:
    """Return what the status says, as far as it is to be the same each time."""
    if stand.body is None:
        return {"status": None}
    status = stand.status
    rollout = status.rollout
    return {
        "phase at rest": status.phase,
        "users": status.users,
        "runners": (status.runners.wanted, status.runners.ready),
        "versions": tuple(v.image if v else None for v in (status.stable, status.candidate, status.previous)),
        "rollout": rollout and (rollout.phase, rollout.attempt, rollout.reason, rollout.rejected, rollout.pause),
        "run": status.run.id if status.run else None,
        "lost runners": status.run.lost_runners if status.run else None,
        "conditions": {c.type: (c.status, c.reason) for c in status.conditions},
        "body": json.dumps((stand.body or {}).get("spec"), sort_keys=True),
        "generation": status.observed_generation,
    }  # fmt: skip
