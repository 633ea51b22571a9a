"""The cases: what is asked of which clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from clients import Client, Load

MANY: Final = 5000
FEW: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    One case: *load* for our clients and for *peers*.

    *fewer* users are measured beside it for the memory of a user. *share* is how much of its core the worker is to
    use: the think time is found that makes it so. *workers* above 1 measures that many workers against one.
    """

    name: str
    text: str
    load: Load
    peers: tuple[str, ...] = ()
    fewer: int = 0
    share: float = 0.0
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a case: *client* under the *name* that its results get, with its *load*."""

    name: str
    client: Client
    load: Load


_THINKING: Final = Load(users=MANY, shape="thinking", ramp_s=5, think_ms=(1000, 2000))

CASES: Final = (
    Case(
        name="keepalive64",
        text="64 connections that stay open, one fixed GET, 78 bytes of JSON",
        load=Load(users=64),
        peers=("wrk", "vegeta", "locust"),
    ),
    Case(
        name="varying_heads64",
        text="the same, with two headers that differ in each response",
        load=Load(users=64, path="/varying"),
        peers=("wrk", "vegeta", "locust"),
    ),
    Case(
        name="tls64",
        text="the same over TLS 1.3, one cipher for everybody",
        load=Load(users=64, is_tls=True),
        peers=("wrk", "vegeta", "locust"),
    ),
    Case(
        name="scenario64",
        text="the same GET, each user a coroutine in Python",
        load=Load(users=64, shape="scenario"),
        peers=("wrk", "locust"),
    ),
    Case(
        name="flow",
        text="64 users of three kinds: log in, save the token, templated lookups, JSON checks",
        load=Load(users=64, shape="flow"),
        peers=("locust",),
    ),
    Case(
        name="users5000",
        text="5 000 users who think 1–2 s, each on a connection of its own; memory against 500 users",
        load=_THINKING,
        fewer=FEW,
        peers=("locust",),
    ),
    Case(
        name="users5000_tls",
        text="the same over TLS",
        load=replace(_THINKING, is_tls=True, ramp_s=15),
        fewer=FEW,
    ),
    Case(
        name="users10000",
        text="10 000 users on one core, who think as long as makes the worker use half of it",
        load=replace(_THINKING, users=10_000, ramp_s=10),
        share=0.5,
    ),
    Case(
        name="workers2",
        text="64 connections, two workers on two cores against one",
        load=Load(users=64),
        workers=2,
    ),
)


def entries(case: Case, clients: Sequence[Client]) -> list[Entry]:
    """Return who takes part in *case*, in turn."""
    found: list[Entry] = []
    for client in clients:
        if client.is_ours and case.workers > 1:
            found.append(Entry(name=f"{client.name}_one_worker", client=client, load=case.load))
            found.append(Entry(name=client.name, client=client, load=replace(case.load, processes=case.workers)))
        elif client.is_ours or client.name in case.peers:
            found.append(Entry(name=client.name, client=client, load=case.load))
    return found
