"""
Print the bytes of one parked user: its record, its numbers and its entry in the wheel.

Ten thousand users are parked for instants between one and two seconds from now, and what Python allocated for them is
divided by their number. Run as a file, so that the figure is that of the modules a client uses.
"""

from __future__ import annotations

import tracemalloc

from trafficsim_runner.draws import key_of
from trafficsim_runner.users import THINKING, User, UserPool
from trafficsim_runner.wheel import Wheel

USERS = 10_000


def main() -> None:
    """Park the users and print."""
    pool, wheel = UserPool(), Wheel[User](1_000_000)
    keys = [key_of(0, place) for place in range(USERS)]
    parked = [pool.acquire(place, 0, keys[place]) for place in range(UserPool.FIRST)]
    tracemalloc.start()
    parked += [None] * USERS  # type: ignore[list-item]  # so that the list itself is not measured
    before = tracemalloc.get_traced_memory()[0]
    for place in range(USERS):
        user = parked[UserPool.FIRST + place] = pool.acquire(place, 0, key_of(0, place))
        user.state = THINKING
        wheel.park(user, 1_001_000 + place * 7919 % 1000)
    print((tracemalloc.get_traced_memory()[0] - before) / USERS)


if __name__ == "__main__":
    main()
