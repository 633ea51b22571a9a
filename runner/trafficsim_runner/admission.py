"""Whether an assignment can be worked on at all, asked before it replaces the one in force. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from ipaddress import ip_network

from trafficsim_api.layout import MAX_ACTIONS
from trafficsim_api.protocol import Assignment
from trafficsim_api.resource import actions_of

__all__ = ["objection"]


def objection(assignment: Assignment, known: Sequence[tuple[str, str]]) -> str | None:
    """
    Return why *assignment* cannot be worked on, None when it can; *known* are the actions counted in its run so far.

    A layout only grows within a run, so the actions of all its loads together count against the limit.
    """
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
