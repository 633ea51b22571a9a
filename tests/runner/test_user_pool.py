"""The user pool: 100 at first, 100 more when empty, 1000 kept; a record never remembers its last user."""

from __future__ import annotations

import socket

from hypothesis import given
from hypothesis.strategies import booleans, lists

from trafficsim_runner.http.connection import Connection
from trafficsim_runner.program import END, Step
from trafficsim_runner.users import ACTED, BEGUN, PARKED, User, UserPool


def test_the_pool_grows_by_a_hundred_and_keeps_a_thousand():
    """Taking the 101st makes 100 more; of 1500 given back, 1000 stay."""
    pool = UserPool()
    assert (100, 100) == (pool.pooled, pool.made)
    users = [pool.acquire(n, 0, n) for n in range(101)]
    assert (99, 200) == (pool.pooled, pool.made)
    users += [pool.acquire(n, 0, n) for n in range(101, 1500)]
    assert 1500 == pool.made
    for user in users:
        pool.release(user)
    assert 1000 == pool.pooled


def dirty(user):
    user.iteration, user.draws, user.backoff_ms, user.due_ms, user.state = 5, 9, 400, 77, 3
    user.leaving, user.marks = True, BEGUN | ACTED
    user.saved, user.cookie_line, user.loops = {"token": "t"}, b"cookie: a=b\r\n", [3]
    user.step = Step(END)
    with socket.socket() as raw:
        user.connection = Connection(raw, user, None, 0)


def fields(user):
    values = {name: getattr(user, name) for name in dir(user) if not name.startswith("_")}
    return {name: value for name, value in values.items() if not callable(value)}


@given(lists(booleans(), max_size=60))
def test_nothing_of_a_user_is_left_for_the_next(takes):
    """However records come and go, one that is taken is as clean as a new one."""
    pool, out = UserPool(), []
    clean = fields(User())
    for take in takes:
        if take:
            user = pool.acquire(3, 1, 4)
            assert clean | {"place": 3, "archetype": 1, "key": 4} == fields(user)
            dirty(user)
            out.append(user)
        elif out:
            pool.release(out.pop())
    assert len({id(user) for user in out}) == len(out)


def test_a_new_record_is_parked():
    """A record of nobody is on nowhere."""
    assert PARKED == User().state
