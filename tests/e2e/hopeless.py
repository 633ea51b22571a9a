"""Simulations whose runners can't start, one for each cause; the operator gives them up after five minutes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from e2e.story_stand import EVERY_S, RUNNER, Simulation, Stand, a_shop, a_simulation

# Cause → what of the runner is asked for, and the words that the status has for it.
CAUSES: Final[Mapping[str, tuple[dict[str, Any], str]]] = {
    "no such image": ({"image": "trafficsim/runner:missing"}, "ImagePull"),
    "no quota left": ({}, "exceeded quota"),
    "no such node": ({"nodeSelector": {"disk": "none"}}, "Unschedulable"),
}
NAMED_S: Final = 60.0
"""A pod's events, a kubelet that tries to pull an image, and a look of the operator take less."""


@dataclass(kw_only=True)
class Hopeless:
    """A simulation that can't start, since when it is there (monotonic), and what its status said first of why."""

    simulation: Simulation
    words: str
    began: float
    told: str = ""


def begin(stand: Stand) -> dict[str, Hopeless]:
    """Apply one for each cause, in a namespace with room and in one without, and note what is said within a minute."""
    room, full = a_shop(stand.place()), a_shop(stand.place())
    full.kubectl("create", "quota", "full", f"--hard=pods={len(full.listed('pods'))}")
    found = {}
    for number, (cause, (template, words)) in enumerate(CAUSES.items()):
        place = full if cause == "no quota left" else room
        simulation = a_simulation(place, f"hopeless-{number}", runner=RUNNER | template)
        simulation.apply()
        found[cause] = Hopeless(simulation=simulation, words=words, began=time.monotonic())
    while any(_is_untold(one) for one in found.values()):
        time.sleep(EVERY_S)
    return found


def _is_untold(one: Hopeless) -> bool:
    """Look, and say whether the cause may still be told in time."""
    if one.words not in one.told and time.monotonic() < one.began + NAMED_S:
        one.told = one.simulation.status().get("message", "")
        return one.words not in one.told
    return False
