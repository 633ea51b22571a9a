"""
The worker's account: counters of the hot path kept beside, and folded into the slab before they are worth a loss.

The hot loop counts answers on the memoised head they matched and sends on their step: two attribute writes instead of
ten writes into the slab. `fold` carries them over. It is called before more events wait than there are active users (at
most 64), and before every snapshot: a worker that is killed loses at most one request per active user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trafficsim_api.histogram import bucket_of
from trafficsim_api.layout import (
    ACTION_INDEX,
    EXTREMES,
    FIRST_ACTION,
    LAG,
    RESPONSE,
    SERVICE,
    STRIDE,
    WORKER_INDEX,
    Drop,
    Error,
)

if TYPE_CHECKING:
    from trafficsim_runner.program import RequestStep
    from trafficsim_runner.stats.slab import SlabWriter

__all__ = ["HeadRecord", "Account", "Tally"]

_SENT: Final = ACTION_INDEX["sent"]
_DONE: Final = ACTION_INDEX["done"]
_FAILED: Final = ACTION_INDEX["failed"]
_CLASS_1XX: Final = ACTION_INDEX["class_1xx"]
_CHECKS: Final = ACTION_INDEX["checks"]
_CHECKS_FAILED: Final = ACTION_INDEX["checks_failed"]
_BYTES_IN: Final = ACTION_INDEX["bytes_in"]
_BYTES_OUT: Final = ACTION_INDEX["bytes_out"]
_SERVICE_NS: Final = ACTION_INDEX["service_ns"]
_RESPONSE_NS: Final = ACTION_INDEX["response_ns"]
_TO_RESPONSE: Final = RESPONSE - SERVICE
_MASK: Final = (1 << 64) - 1
_ERRORS: Final = {kind: ACTION_INDEX[f"error_{kind}"] for kind in Error}
_STATUS: Final = _ERRORS[Error.STATUS]
_ITERATIONS: Final = WORKER_INDEX["iterations"]
_ITERATIONS_DONE: Final = WORKER_INDEX["iterations_done"]
_DROPS: Final = {reason: WORKER_INDEX[f"drop_{reason}"] for reason in Drop}


class Tally:
    """What the hot loop counts of one action: *took_ns* summed, *least* and *most* (ns; least 0: none yet)."""

    __slots__ = ("base", "extremes", "least", "most", "service", "took_ns")

    def __init__(self, action: int) -> None:
        self.base = FIRST_ACTION + action * STRIDE
        self.service = self.base + SERVICE
        self.extremes = action * len(EXTREMES)
        self.took_ns = 0
        self.least = 1 << 62
        self.most = 0


_NOBODYS: Final = Tally(0)  # of a record that no action has yet


class HeadRecord:
    """
    One head an action's answers had, with all that follows from it.

    An answer matches when it begins with *head* and is *total* bytes long. *count*: answers since the last fold, *uses*
    those before. With *total* 0 it is the record of answers told by their shape (see shapes.py), which are of any
    length: *size* sums it up since the last fold, and *headers* are not kept.
    *is_plain*: nothing is to be done but to go on (no cookie, nothing to save, no body to check, connection kept).
    """

    __slots__ = (
        "checks",
        "cookies",
        "count",
        "head",
        "headers",
        "is_plain",
        "missed",
        "size",
        "status",
        "tally",
        "total",
        "uses",
    )

    def __init__(self, *, head: bytes, total: int, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self.head = head
        self.total = total
        self.status = status
        self.headers = headers
        self.count = 0
        self.uses = 0
        self.size = 0
        self.is_plain = False
        self.cookies: tuple[tuple[str, str | None], ...] = ()
        self.checks = 0
        self.missed = 0
        self.tally = _NOBODYS


class Account:
    """Writes the worker's counts into its slab."""

    __slots__ = ("flows", "heads", "last_failure", "live", "pending", "sends", "slab", "tallies", "zero_lag")

    def __init__(self, slab: SlabWriter) -> None:
        self.slab = slab
        self.live = slab.live
        self.tallies = [Tally(action) for action in range(len(slab.layout.actions))]
        self.heads: list[HeadRecord] = []  # those with a count to fold
        self.sends: list[RequestStep] = []  # those with sends to fold
        self.zero_lag = 0  # requests sent at the very instant they were due
        self.flows = 0  # flows finished and begun again at once
        self.pending = 0  # events since the last fold
        self.last_failure = Error.INTERNAL  # why the last request that failed did

    def use(self, slab: SlabWriter) -> None:
        """Go on in *slab*, which holds the counts so far and more actions."""
        self.fold()
        self.slab, self.live = slab, slab.live
        self.tallies += [Tally(action) for action in range(len(self.tallies), len(slab.layout.actions))]

    def fold(self) -> None:
        """Carry what the hot loop counted into the slab."""
        live = self.live
        for record in self.heads:
            tally, count = record.tally, record.count
            record.count = 0
            record.uses += count
            base = tally.base
            live[base + _DONE] += count
            live[base + _CLASS_1XX - 1 + record.status // 100] += count
            live[base + _BYTES_IN] += count * record.total + record.size
            record.size = 0
            live[base + _CHECKS] += count * record.checks
            if record.missed:
                live[base + _CHECKS_FAILED] += count * record.missed
            if record.status >= 500:
                live[base + _FAILED] += count
                live[base + _STATUS] += count
            self._fold_times(tally)
        self.heads.clear()
        for step in self.sends:
            base = step.tally.base
            live[base + _SENT] += step.sends
            live[base + _BYTES_OUT] += step.sends * len(step.wire or b"") + step.extra_bytes
            step.sends = step.extra_bytes = 0
        self.sends.clear()
        if self.zero_lag:
            live[LAG] += self.zero_lag
            self.zero_lag = 0
        if self.flows:
            live[_ITERATIONS] += self.flows
            live[_ITERATIONS_DONE] += self.flows
            self.flows = 0
        self.pending = 0

    def _fold_times(self, tally: Tally) -> None:
        self.live[tally.base + _SERVICE_NS] += tally.took_ns
        tally.took_ns = 0
        extremes, at = self.slab.extremes, tally.extremes
        if tally.least < (extremes[at] or 1 << 62):
            extremes[at] = tally.least
        if tally.most > extremes[at + 1]:
            extremes[at + 1] = tally.most

    # The slower ways write straight into the slab.

    def count(self, counter: str, by: int = 1) -> None:
        """Add to a worker counter."""
        self.live[WORKER_INDEX[counter]] += by

    def drop(self, reason: Drop) -> None:
        """Count work that was due and is not sent."""
        self.live[_DROPS[reason]] += 1

    def lag(self, ns: int) -> None:
        """Record how late a request was begun."""
        if ns:
            self.live[LAG + bucket_of(ns)] += 1
        else:
            self.zero_lag += 1

    def sent(self, tally: Tally, size: int) -> None:
        """Count a request whose first bytes, *size* in all, were handed to the kernel."""
        self.live[tally.base + _SENT] += 1
        self.live[tally.base + _BYTES_OUT] += size

    def passed_on(self, tally: Tally, *, size_in: int = 0, size_out: int = 0) -> None:
        """Count the bytes of a redirect and of the request that follows it; both belong to a request already sent."""
        self.live[tally.base + _BYTES_IN] += size_in
        self.live[tally.base + _BYTES_OUT] += size_out

    def answered(
        self, tally: Tally, *, status: int, took_ns: int, size: int, checks: int, missed: int, interim: int
    ) -> None:
        """Count an answered request; *size* is how many bytes came, *missed* how many of the *checks* failed."""
        live, base = self.live, tally.base
        live[base + _DONE] += 1
        live[base + _CLASS_1XX - 1 + status // 100] += 1
        live[base + _CLASS_1XX] += interim
        live[base + _BYTES_IN] += size
        live[base + _CHECKS] += checks
        live[base + _CHECKS_FAILED] += missed
        if status >= 500:
            live[base + _FAILED] += 1
            live[base + _STATUS] += 1
        live[tally.service + bucket_of(took_ns)] += 1
        tally.took_ns += took_ns
        tally.least = min(tally.least, took_ns)
        tally.most = max(tally.most, took_ns)
        self._fold_times(tally)

    def matched(self, record: HeadRecord, took_ns: int) -> None:
        """Count an answer with a known head, as the hot loop does."""
        if not record.count:
            self.heads.append(record)
        record.count += 1
        tally = record.tally
        assert tally is not None
        self.live[tally.service + bucket_of(took_ns)] += 1
        tally.took_ns += took_ns
        tally.least = min(tally.least, took_ns)
        tally.most = max(tally.most, took_ns)

    def responded(self, tally: Tally, took_ns: int, response_ns: int) -> None:
        """
        Record that an answer counted with *took_ns* came *response_ns* after its request was due.

        Response times are kept as what they differ by from the service times (see slab.py).
        """
        live, first = self.live, tally.service + _TO_RESPONSE
        gains, loses = first + bucket_of(response_ns), first + bucket_of(took_ns)
        if gains != loses:
            live[gains] = (live[gains] + 1) & _MASK
            live[loses] = (live[loses] - 1) & _MASK
        live[tally.base + _RESPONSE_NS] += response_ns - took_ns
        extremes, at = self.slab.extremes, tally.extremes + 2
        if response_ns < (extremes[at] or _MASK):
            extremes[at] = response_ns
        if response_ns > extremes[at + 1]:
            extremes[at + 1] = response_ns

    def checked(self, tally: Tally, *, missed: bool) -> None:
        """Count a check that somebody made of an answer, beside those of its step."""
        self.live[tally.base + _CHECKS] += 1
        if missed:
            self.live[tally.base + _CHECKS_FAILED] += 1

    def missed(self, tally: Tally, count: int) -> None:
        """Count checks of a body that failed; the check itself was counted with the head."""
        self.live[tally.base + _CHECKS_FAILED] += count

    def failed(self, tally: Tally, kind: Error, checks: int, size: int = 0) -> None:
        """
        Count a request without an answer; *size* bytes of one may have come.

        Its checks are missed too, since nothing met them, unless the generator itself is at fault.
        """
        live, base = self.live, tally.base
        self.last_failure = kind
        live[base + _DONE] += 1
        live[base + _FAILED] += 1
        live[base + _ERRORS[kind]] += 1
        live[base + _BYTES_IN] += size
        if not kind.startswith("generator_"):
            live[base + _CHECKS] += checks
            live[base + _CHECKS_FAILED] += checks
