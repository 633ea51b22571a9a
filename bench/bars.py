"""The bars: what the product promises of its speed, held against what was measured."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Outcome(StrEnum):
    """What became of a bar."""

    PASS = "pass"
    MISSED = "MISSED"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One promise about *client* in *case*: *measured* is to be within *limit*; *why* it was not measured."""

    case: str
    client: str
    text: str
    limit: str
    measured: str
    outcome: Outcome
    why: str = ""


# By client: at most so many times wrk, and at most this share (1 ÷ x) of the others.
_KEEPALIVE: Final = {
    "ours_pure": {"wrk": 1.3, "k6": 1 / 6.5, "vegeta": 1 / 3.5, "locust": 1 / 11},
    "ours_compiled": {"wrk": 1.0, "k6": 1 / 8, "vegeta": 1 / 4.5, "locust": 1 / 14},
}
_PROFILED: Final = 1.2  # of wrk, pure, when Python itself was built with profile-guided optimisation
_VARYING: Final = 1.4
_SCENARIO: Final = 1.5
_TLS: Final = 1.35
_FLOW: Final = {"k6": 1 / 5, "locust": 1 / 10}
_BYTES: Final = 1024
_TLS_BYTES: Final = 24 * 1024
_PARKED_BYTES: Final = 250
_LAG_MS: Final = 3.0
_SERVICE_MS: Final = 0.15
_SERVICE_TEXT: Final = "ms service time p50"
_WAITED: Final = 0.05
_SHARE: Final = (0.45, 0.55)
_WORKERS_CPU: Final = 1.05
_WORKERS_RATE: Final = 1.9
_K6: Final = "k6 is under the AGPL and not used here (bench/peers/README.md)"

Cases = Mapping[str, Mapping[str, Mapping[str, Any]]]


def is_profiled() -> bool:
    """Return whether this Python was built with profile-guided optimisation."""
    return "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")


def bars_of(cases: Cases, absent: Mapping[str, str], *, cores: int) -> list[Bar]:
    """Return every bar of the clients that were measured; *absent* says why a client is not there."""
    ours = sorted({name for case in cases.values() for name in case if name in _KEEPALIVE}, reverse=True)
    return [bar for client in ours for bar in _of(client, cases, absent, cores)]


def _of(client: str, cases: Cases, absent: Mapping[str, str], cores: int) -> Iterator[Bar]:
    for peer, most in _KEEPALIVE[client].items():
        at_most = _PROFILED if peer == "wrk" and client == "ours_pure" and is_profiled() else most
        yield _ratio(cases, "keepalive64", client, peer, at_most, absent)
    if client == "ours_pure":
        yield _ratio(cases, "varying_heads64", client, "wrk", _VARYING, absent)
        yield _ratio(cases, "scenario64", client, "wrk", _SCENARIO, absent)
    yield _ratio(cases, "tls64", client, "wrk", _TLS, absent)
    for peer, most in _FLOW.items():
        yield _ratio(cases, "flow", client, peer, most, absent)
    yield _figure(cases, "users5000", client, "bytes_per_user", _BYTES, "B a user")
    yield _figure(cases, "users5000", client, "parked_bytes", _PARKED_BYTES, "B a parked record")
    yield _figure(cases, "users5000_tls", client, "bytes_per_user", _TLS_BYTES, "B a user with TLS")
    yield _share(cases, client)
    waited = _median(cases, "users10000", client, "waited_share") or 0.0
    for figure, most, text in (("lag_p99_ms", _LAG_MS, "ms lag p99"), ("service_p50_ms", _SERVICE_MS, _SERVICE_TEXT)):
        bar = _figure(cases, "users10000", client, figure, most, text)
        # A worker without its core is late, whatever it is: that says something of its neighbours.
        yield _unless(bar, waited <= _WAITED, f"others had the worker's core for {waited:.0%} of the time")
    yield from _workers(cases, client, cores)


def _median(cases: Cases, case: str, client: str, figure: str) -> float | None:
    spread = cases.get(case, {}).get(client, {}).get(figure)
    return None if spread is None else float(spread["median"])


def _ratio(
    cases: Cases, case: str, client: str, peer: str, at_most: float, absent: Mapping[str, str],
    figure: str = "cpu_us_per_request",
) -> Bar:  # fmt: skip
    mine, theirs = _median(cases, case, client, figure), _median(cases, case, peer, figure)
    limit = f"≤ {at_most:g} ×" if at_most >= 1 else f"≤ 1/{1 / at_most:g}"
    bar = {"case": case, "client": client, "text": f"CPU per request against {peer}", "limit": limit}
    if mine is None or theirs is None:
        missing = peer if theirs is None else client
        why = _K6 if peer == "k6" else absent.get(missing, f"{missing} has no figure")
        return Bar(**bar, measured="–", outcome=Outcome.NOT_MEASURED, why=why)
    found = mine / theirs
    measured = f"{found:.2f} ×" if at_most >= 1 else f"1/{1 / found:.1f}"
    return Bar(**bar, measured=measured, outcome=Outcome.PASS if found <= at_most else Outcome.MISSED)


def _figure(cases: Cases, case: str, client: str, figure: str, at_most: float, unit: str) -> Bar:
    found = _median(cases, case, client, figure)
    bar = {"case": case, "client": client, "text": unit, "limit": f"≤ {at_most:g}"}
    if found is None:
        return Bar(**bar, measured="–", outcome=Outcome.NOT_MEASURED, why=f"{client} has no figure")
    measured = f"{found:.0f}" if at_most >= 100 else f"{found:.2f}"
    return Bar(**bar, measured=measured, outcome=Outcome.PASS if found <= at_most else Outcome.MISSED)


def _share(cases: Cases, client: str) -> Bar:
    """Return whether the worker was at half load: without that the figures beside it say something else."""
    found = _median(cases, "users10000", client, "core_share")
    least, most = _SHARE
    bar = {
        "case": "users10000", "client": client, "text": "the worker's share of its core",
        "limit": f"{least:.0%} to {most:.0%}",
    }  # fmt: skip
    if found is None:
        return Bar(**bar, measured="–", outcome=Outcome.NOT_MEASURED, why=f"{client} has no figure")
    return Bar(**bar, measured=f"{found:.1%}", outcome=Outcome.PASS if least <= found <= most else Outcome.MISSED)


def _workers(cases: Cases, client: str, cores: int) -> Iterator[Bar]:
    """Return two workers against one; with fewer cores than workers and server need, what was seen says nothing."""
    one = f"{client}_one_worker"
    cpu = _ratio(cases, "workers2", client, one, _WORKERS_CPU, {})
    yield _unless(cpu, cores >= 3, f"3 cores are needed, this machine has {cores}")
    mine = _median(cases, "workers2", client, "requests_per_second")
    alone = _median(cases, "workers2", one, "requests_per_second")
    found = mine / alone if mine is not None and alone else None
    rate = Bar(
        case="workers2", client=client, text=f"requests a second against {one}", limit=f"≥ {_WORKERS_RATE:g} ×",
        measured="–" if found is None else f"{found:.2f} ×",
        outcome=Outcome.NOT_MEASURED if found is None else Outcome.PASS if found >= _WORKERS_RATE else Outcome.MISSED,
        why="" if found is not None else f"{client} has no figure",
    )  # fmt: skip
    yield _unless(rate, cores >= 4, f"4 cores are needed, this machine has {cores}")


def _unless(bar: Bar, counts: bool, why: str) -> Bar:
    """Return *bar*, as not measured unless what was seen *counts*."""
    if counts or bar.outcome is Outcome.NOT_MEASURED:
        return bar
    return Bar(
        case=bar.case, client=bar.client, text=bar.text, limit=bar.limit, measured=f"({bar.measured})",
        outcome=Outcome.NOT_MEASURED, why=why,
    )  # fmt: skip
