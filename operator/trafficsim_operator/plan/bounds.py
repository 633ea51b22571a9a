"""
The status stays within 16 KiB: when it would not, what says least goes first.

In order: rules that hold, then all but two missing shares and two not kept, two lost runners (and those whose end
nobody saw), eight rules and a rollout's three newest windows, then the demand by hours (forecasts learn it anew), then
messages beyond 128 characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from trafficsim_api.status import DemandMeans, Status

__all__ = ["LIMIT", "fitted", "named", "size_of"]

LIMIT: Final = 16 * 1024
_SHORT: Final = 128
_WINDOWS: Final = 3
_LOSSES: Final = 2
_MISSING: Final = 2
_MORE: Final = re.compile(r"and (\d+) more")


def size_of(status: Status) -> int:
    """Return the bytes of *status* as JSON."""
    return len(status.model_dump_json(by_alias=True, exclude_none=True).encode())


def named(texts: Iterable[str], room: int) -> tuple[str, ...]:
    """
    Return the first of *texts*, and how many more there are, in *room* entries.

    Of nine in eight entries seven are told, "and 2 more"; an entry that says so already counts for as many as it says.
    """
    told, more = [], 0
    for text in texts:
        match = _MORE.fullmatch(text)
        told += [text] if match is None else []
        more += int(match[1]) if match is not None else 0
    if len(told) + bool(more) > room:
        told, more = told[: room - 1], more + len(told) - (room - 1)
    return (*told, f"and {more} more") if more else tuple(told)


def fitted(status: Status) -> Status:
    """Return *status*, shortened as far as it must be."""
    for shorten in (_broken_rules_only, _few_rules, _without_hours, _short_messages):
        if size_of(status) <= LIMIT:
            break
        status = shorten(status)
    return status


def _broken_rules_only(status: Status) -> Status:
    return status.model_copy(update={"rules": tuple(rule for rule in status.rules if rule.holds != "True")})


def _few_rules(status: Status) -> Status:
    told = status.accounts
    accounts = told.model_copy(update={"missing": named(told.missing, _MISSING + 1), "unkept": told.unkept[:2]})
    rollout = status.rollout
    if rollout is not None:
        rollout = rollout.model_copy(update={"windows": rollout.windows[-_WINDOWS:]})
    run = status.run
    if run is not None:
        newest = run.lost[-_LOSSES:]
        run = run.model_copy(update={"lost": tuple(lost for lost in run.lost if lost.end_unseen or lost in newest)})
    return status.model_copy(update={"rules": status.rules[:8], "accounts": accounts, "rollout": rollout, "run": run})


def _without_hours(status: Status) -> Status:
    scaling = status.scaling
    if scaling is None:
        return status
    demand = scaling.demand.model_copy(update={"hours": DemandMeans()})
    return status.model_copy(update={"scaling": scaling.model_copy(update={"demand": demand})})


def _short_messages(status: Status) -> Status:
    cut = tuple(c.model_copy(update={"message": c.message[:_SHORT]}) for c in status.conditions)
    texts = {"message": status.message[:_SHORT], "verdict_reason": status.verdict_reason[:_SHORT]}
    run = status.run
    if run is not None:
        tasks = {"setup": run.setup, "teardown": run.teardown}
        shortened = {
            name: task and task.model_copy(update={"message": task.message[:_SHORT]}) for name, task in tasks.items()
        }
        run = run.model_copy(update=shortened)
    rollout = status.rollout
    if rollout is not None:
        plan = rollout.plan and rollout.plan.model_copy(update={"note": rollout.plan.note[:_SHORT]})
        rollout = rollout.model_copy(update={"message": rollout.message[:_SHORT], "plan": plan})
    scaling = status.scaling
    if scaling is not None:
        versions = tuple(v.model_copy(update={"message": v.message[:_SHORT]}) for v in scaling.versions)
        scaling = scaling.model_copy(update={"message": scaling.message[:_SHORT], "versions": versions})
    return status.model_copy(update={"conditions": cut, "run": run, "rollout": rollout, "scaling": scaling} | texts)
