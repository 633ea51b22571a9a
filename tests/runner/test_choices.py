"""Choices in a flow: what is drawn depends on seed, user, iteration and place in the flow, and on nothing else."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.protocol import Load
from trafficsim_api.resource import actions_of
from trafficsim_runner.draws import key_of
from trafficsim_runner.flow import choice_draw, compile_load
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.program import CHOOSE, REQUEST
from trafficsim_runner.stats.account import Tally
from trafficsim_runner.users import User


def a_user(place=0, iteration=0, loops=None, seed=0):
    user = User()
    user.place, user.key, user.iteration, user.loops = place, key_of(seed, place), iteration, loops
    return user


def compiled(flow):
    document = {"target": {"url": "http://t"}, "archetypes": [{"name": "one", "flow": flow}]}
    load = Load.model_validate_json(json.dumps(document))
    numbers = {action: n for n, action in enumerate(actions_of(load.archetypes))}
    return compile_load(load, endpoint_of(load.target), numbers, [Tally(n) for n in range(len(numbers))], {})


def get(path):
    return {"request": {"get": path}}


def choose(*weighted):
    return {"choose": [{"weight": weight, "flow": flow} for weight, flow in weighted]}


@given(
    st.integers(0, 2**53), st.integers(0, 10**6), st.integers(0, 10**6), st.lists(st.integers(1, 10_000), max_size=4),
    st.integers(1, 16_000),
)  # fmt: skip
def test_a_choice_does_not_count_draws(seed, place, iteration, loops, whole):
    """It is within bounds, and the same however many draws the user made before."""
    user = a_user(place, iteration, loops, seed)
    drawn = choice_draw(user, 0, whole)
    user.draws = 17
    assert 0 <= drawn < whole
    assert drawn == choice_draw(user, 0, whole)


@pytest.mark.parametrize("varied", ["place", "iteration", "loops", "number"])
def test_choices_follow_the_weights(varied):
    """Over users, iterations, rounds of a loop and choices of a flow alike: 70 of 100, within 5 standard deviations."""
    drawn = []
    for n in range(10_000):
        user = a_user(**{"place": 3, "iteration": 5, "loops": [2]} | ({varied: [n] if varied == "loops" else n}
                                                                     if varied != "number" else {}))  # fmt: skip
        drawn.append(choice_draw(user, n if varied == "number" else 0, 100))
    assert abs(sum(value < 70 for value in drawn) - 7000) < 5 * (10_000 * 0.7 * 0.3) ** 0.5


def test_every_choice_leads_on_to_what_follows():
    """A flow of weight 0 is never chosen; whatever was chosen, the step after the choice comes next."""
    program = compiled([choose((0, [get("/never")]), (1, [get("/a")]), (3, [get("/b"), get("/c")]), (0, [get("/no")])),
                        get("/end")])  # fmt: skip
    top = program.tops[0]
    assert CHOOSE == top.kind
    ways = Counter()
    for iteration in range(1000):
        step, way = top.pick(a_user(iteration=iteration)), []
        while step.kind == REQUEST:
            way.append(step.wire.split()[1].decode())
            step = step.next
        ways[" ".join(way)] += 1
    assert {"/a /end", "/b /c /end"} == ways.keys()
    assert abs(ways["/a /end"] - 250) < 5 * (1000 * 0.25 * 0.75) ** 0.5
