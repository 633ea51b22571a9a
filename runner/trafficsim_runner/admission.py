"""Whether an assignment can be worked on at all, asked before it replaces the one in force. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final

from trafficsim_api.layout import MAX_ACTIONS
from trafficsim_api.protocol import Assignment
from trafficsim_api.resource import actions_of

__all__ = ["objection"]

MAX_PROCESSES: Final = 64


def objection(assignment: Assignment, known: Sequence[tuple[str, str]]) -> str | None:
    """
    Return why *assignment* cannot be worked on, None when it can; *known* are the actions counted in its run so far.

    A layout only grows within a run, so the actions of all its loads together count against the limit.
    """
    for name in ("run", "epoch", "users", "processes", "warm_up_ms"):
        if getattr(assignment, name) < 0:
            return f"{name}: a number from 0 on is needed"
    if assignment.processes > MAX_PROCESSES:
        return f"processes: {assignment.processes} are more than {MAX_PROCESSES}"
    if any(not 0 <= start <= stop for start, stop in assignment.places):
        return "places: half-open ranges [start, stop) are needed"
    actions = set(known) | set(actions_of(assignment.load.archetypes))
    if len(actions) > MAX_ACTIONS:
        return f"load: {len(actions)} actions since the run began, at most {MAX_ACTIONS} are possible"
    if assignment.end_ms < assignment.start_at_ms:
        return "endMs: the end lies before the start"
    for allowed in assignment.limits.targets:
        try:
            ip_network(allowed.network, strict=False)
        except ValueError:
            return f"limits.targets: {allowed.network!r} is no network"
    if assignment.load.ca is not None:
        try:
            ssl.create_default_context(cadata=assignment.load.ca)
        except (ssl.SSLError, ValueError):
            return "load.ca: PEM certificates are needed"
    return None
