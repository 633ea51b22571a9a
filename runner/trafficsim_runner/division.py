"""How a runner divides its places, and what policy allows it, over its worker processes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trafficsim_api.places import Places

__all__ = ["divide", "givers", "pool_limits", "pool_shares", "shares"]

BLOCK: Final = 16


def divide(held: Sequence[Places], places: Places, workers: int) -> tuple[Places, ...]:
    """
    Return which of *places* each worker has, given what each of them holds now.

        kept(i) = held(i) ∩ places;  the rest goes to the emptiest workers, in blocks of at most 16, lowest first

    A place never moves between workers, so it is never on in two of them and no user is parked by a new worker; a
    worker never goes away. Blocks rather than halves, because runners give up their *highest* places first: after a
    shrink every worker has lost its share.
    """
    count = max(len(held), workers)
    kept = [held[i] & places if i < len(held) else Places() for i in range(count)]
    if not count:
        return ()
    new = places - Places.union(kept)
    wanted = _filled([len(part) for part in kept], len(new))
    dealt: list[list[tuple[int, int]]] = [[] for _ in kept]
    for start, stop in new.ranges:
        while start < stop:
            worker = max(range(count), key=lambda i: (wanted[i], -i))
            end = min(stop, start + BLOCK, start + wanted[worker])
            dealt[worker].append((start, end))
            wanted[worker] -= end - start
            start = end
    return tuple(part | Places.of(gained) for part, gained in zip(kept, dealt, strict=True))


def givers(had: Sequence[Places], given: Places, workers: int) -> tuple[Places, ...]:
    """
    Return whose arrivals of the places *given* away are still to begin: each worker's own, of what each of them *had*.

    What none of them had is the first one's: after a restart the runner remembers its assignment, not the division.
    """
    parts = [had[i] & given if i < len(had) else Places() for i in range(workers)]
    rest = given - Places.union(parts)
    return tuple(part | rest if i == 0 else part for i, part in enumerate(parts))


def _filled(sizes: Sequence[int], amount: int) -> list[int]:
    """
    Return how much of *amount* each of *sizes* gains so that the smallest ones become as equal as can be.

    Sizes 0, 4, 9 and 10 more: 7, 3, 0.
    """
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], i))
    filled, below = 0, 0
    for filled in range(1, len(order) + 1):
        below += sizes[order[filled - 1]]
        if filled == len(order) or (below + amount) // filled < sizes[order[filled]]:
            break
    level, extra = divmod(below + amount, filled)
    gains = [0] * len(sizes)
    for rank, worker in enumerate(order[:filled]):
        gains[worker] = level + (rank < extra) - sizes[worker]
    return gains


def shares(limit: int, weights: Sequence[int]) -> tuple[int, ...]:
    """
    Return *limit* as exact shares by *weights* (all 0: equal ones); they add up to *limit*.

        share(i) = ⌊limit·W(i+1) ÷ W⌋ - ⌊limit·W(i) ÷ W⌋          W(i) the sum of the weights before i

    1000 over weights 600 and 400 are 600 and 400: when *limit* covers the sum, every share covers its weight.
    """
    parts = list(weights) if any(weights) else [1] * len(weights)
    whole, before, given = sum(parts), 0, []
    for part in parts:
        given.append(limit * (before + part) // whole - limit * before // whole)
        before += part
    return tuple(given)


def pool_shares(most: int, weights: Sequence[int]) -> tuple[int, ...]:
    """
    Return *most* connections of a group's pool as shares by *weights*, at least 1 each where there are as many.

        `shares`, then every 0 takes one from the largest share that has more than one, workers with places first

    50 over 300 and 300: 25 and 25. 4 over 90, 5 and 5: 2, 1 and 1. A share of 0 would keep a worker's users waiting
    for ever; acceptance sees to it that max is not below the number of processes.
    """
    given = list(shares(most, weights))
    for worker in sorted(range(len(given)), key=lambda i: (not weights[i], i)):
        richest = max(range(len(given)), key=lambda i: (given[i], -i))
        if not given[worker] and given[richest] > 1:
            given[worker], given[richest] = 1, given[richest] - 1
    return tuple(given)


def pool_limits(limit: int, pooled: Sequence[int], weights: Sequence[int]) -> tuple[int, ...]:
    """
    Return *limit* connections as shares that cover what each worker's pools may hold (*pooled*), the rest by *weights*.

    1000 over pools of 175 and 175 and equal weights: 500 and 500. When the pools may hold more than *limit*, it is
    shared by what they may hold.
    """
    rest = limit - sum(pooled)
    if rest < 0:
        return shares(limit, pooled)
    return tuple(held + more for held, more in zip(pooled, shares(rest, weights), strict=True))
