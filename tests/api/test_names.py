"""Every string that reaches an API is final; phases lead to an end."""

import pytest

from trafficsim_api import names
from trafficsim_api.phases import TRANSITIONS, WAITING, Phase, standard_conditions


def test_names_are_final(golden):
    """Group, labels, field managers and object names: what is in clusters already must not change."""
    lines = [
        f"api {names.API_VERSION} {names.KIND} {names.PLURAL} {names.SHORT_NAME}",
        f"command {names.COMMAND_ANNOTATION}",
        *(f"label {label.name} {label}" for label in names.Label),
        *(f"manager {manager.name} {manager}" for manager in names.FieldManager),
        f"revision {names.revision_of({'image': 'runner:1.0', 'env': []})}",
        f"deployment {names.deployment_name('shop', 'uid-1', '0123abcd')}",
        f"keys {names.keys_name('shop', 'uid-1')}",
        f"totals {names.totals_name('shop', 'uid-1')}",
    ]
    golden("names.txt", "\n".join(lines) + "\n")


def test_object_names_fit():
    """A name of 40 characters leaves room for every suffix, and for the pod's own."""
    longest = "x" * 40
    made = (
        names.deployment_name(longest, "u", "r"),
        names.keys_name(longest, "u"),
        names.totals_name(longest, "u"),
    )
    assert all(len(name) <= 63 for name in made)
    assert len(names.deployment_name(longest, "u", "r")) + len("-0123456789-abcde") <= 253


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_reaches_an_end(phase):
    """From any phase a finished one can be reached, and Failed is always possible but from itself."""
    reached, frontier = {phase}, [phase]
    while frontier:
        for following in TRANSITIONS[frontier.pop()] - reached:
            reached.add(following)
            frontier.append(following)
    assert {Phase.COMPLETED, Phase.FAILED} <= reached
    assert phase is Phase.FAILED or Phase.FAILED in TRANSITIONS[phase]


@pytest.mark.parametrize("phase", Phase)
def test_conditions_of_a_phase(phase):
    """Exactly one of the three is true, and what waits is reconciling."""
    ready, reconciling, stalled = standard_conditions(phase)
    assert 1 == ready + reconciling + stalled
    assert reconciling == (phase in WAITING)
    assert stalled == (phase is Phase.FAILED)
