"""What a runner of the product says about itself, read from its control API as the operator reads it."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from clients import ClientFailed
from processes import Process, command_of, environment_of

from trafficsim_api.statistics import Answer, Vector, histogram, lag_histogram, quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A runner's histograms since it began: how late requests were sent, and how long answers took from there."""

    lag: Vector
    service: Vector

    def since(self, earlier: Account) -> Account:
        """Return what was counted after *earlier*."""
        return Account(lag=self.lag - earlier.lag, service=self.service - earlier.service)

    @property
    def lag_p99_ms(self) -> float | None:
        """Return how late the latest hundredth of requests was sent."""
        return _ms(self.lag, 0.99)

    @property
    def service_p50_ms(self) -> float | None:
        """Return the median service time."""
        return _ms(self.service, 0.5)


def account_of(family: Mapping[int, Process]) -> Account:
    """Return the account of the one runner among the processes of *family*."""
    addresses = [environment_of(pid).get("TRAFFICSIM_LISTEN", "") for pid in family if _is_runner(pid)]
    if len(addresses) != 1:
        raise ClientFailed(f"{len(addresses)} runners instead of one")
    # A sequence far ahead: the account without the windows.
    with urllib.request.urlopen(f"http://{addresses[0]}/v1/statistics?since={10**15}", timeout=10) as answer:
        found = Answer.decode(answer.read())
    return Account(
        lag=lag_histogram(found.layout, found.total), service=histogram(found.layout, found.total, "service")
    )


def _is_runner(pid: int) -> bool:
    return command_of(pid)[1:] == ["-m", "trafficsim_runner"]


def _ms(counts: Vector, quantile: float) -> float | None:
    found = quantiles(counts, (quantile,))[0]
    return None if found is None else found / 1e6
