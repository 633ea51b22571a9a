"""What one look at the world brings: plain values for `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from trafficsim_api.errors import Problem
from trafficsim_api.policy import Policy
from trafficsim_api.protocol import Acknowledgement
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.status import Status, UnkeptShare

__all__ = [
    "ColourWindow",
    "Command",
    "Desired",
    "Evidence",
    "Fence",
    "Loss",
    "MetricRow",
    "Observed",
    "RevisionSeen",
    "RowsSeen",
    "RuleEvidence",
    "Runner",
    "RunnerLoad",
    "RunnerState",
    "TargetFacts",
    "Unwilling",
]


class RunnerState(StrEnum):
    """How a runner stands, as its fleet sees it."""

    STARTING = "starting"
    """Not ready yet, or ready no more because its container is being restarted."""
    READY = "ready"
    UNREADY = "unready"
    """Alive but not ready: retired and drained, or failing its probe."""
    LEAVING = "leaving"
    """Being deleted: it drains by itself and takes nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """
    One runner. A lost one (container ended for good, pod gone) is not listed; an unreachable one is, not answered.

    *name* is the pod's or process's name, *uid* what assignments are addressed to, *address* host:port once known,
    *cause* the pod-level reason while it doesn't start (`ImagePullBackOff: …`), *acknowledgement* the newest known
    answer (also of an unreachable runner, from an earlier look), *started_ms* when it was made (wall clock).
    """

    name: str
    uid: str
    revision: str
    state: RunnerState
    address: str | None = None
    cause: str = ""
    acknowledgement: Acknowledgement | None = None
    answered: bool = False
    restarts: int = 0
    clock_offset_ms: int = 0
    """How far the runner's wall clock is ahead of ours."""
    clock_error_ms: int = 0
    """By how much that may be wrong: half the round trip it was found in."""
    started_ms: int = 0
    placed_ms: int = 0
    """When it got its node (wall clock), 0: not known, or there are none to get."""
    killed_ms: int = 0
    """When its container was last killed for want of memory (wall clock), 0: never."""
    node_lost: bool = False
    """Its node is not ready: nobody there hears that it is to end, and nobody tells that it did."""
    grace_ends_ms: int = 0
    """When the grace of one that is being deleted ends (wall clock), 0: it isn't."""
    heard_ms: int = 0
    """When it answered last, or was first asked in vain (our clock); 0: never asked."""
    silent_ms: int = 0
    """For how long it has not answered; 0: it answers, or was never asked."""

    @property
    def is_out(self) -> bool:
        """Say whether it is being deleted by a node that hears of it: it drains by itself, and keeps nothing."""
        return self.state is RunnerState.LEAVING and not self.node_lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """
    A runner that was lost in the run, seen at *at_ms*: *users* places it held, numbers missing from *since_ms* on.

    *end_unseen*: nobody saw it end, it may still be at work.
    """

    name: str
    users: int
    since_ms: int
    at_ms: int
    end_unseen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """From which *epoch* on assignments are this operator's own, and since when (wall clock) it goes by that."""

    epoch: int
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwilling:
    """
    A runner that answers, and said no to what it was told, so many *tries* in a row since *since_ms* (wall clock).

    *word* stands for what that was the last time, at *told_ms*; *said* is what it answered.
    """

    word: str
    said: str
    since_ms: int
    told_ms: int
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionSeen:
    """What exists of one revision: *replicas* as asked for, its runners, and why none come (*problem*)."""

    revision: str
    replicas: int
    runners: tuple[Runner, ...] = ()
    problem: str = ""
    unseen: tuple[Runner, ...] = ()
    """Runners that count as lost though nobody saw them end; not among *runners*."""
    foreign: bool = False
    """An object of that name belongs to somebody else: never adopted."""
    drifted: bool = False
    """The object is not as it was applied: EnsureRevision repairs it."""
    scaler: str = ""
    """Under which name another autoscaler sets its replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """
    What the target's URL means here and now.

    *addresses* are what the host resolves to (empty: it does not, *problem* says why); *own_service* says that the host
    is a Service with a selector in the simulation's own namespace.
    """

    host: str
    port: int
    addresses: tuple[str, ...] = ()
    own_service: bool = False
    not_own: str = ""
    """Why a Service of the simulation's own namespace does not count as an own one."""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsSeen:
    """
    The rows of a feeder as found: *packed* under *digest*, or the *problem* that keeps them from being read.

    Without either they stand in a file that only the runners can read.
    """

    columns: tuple[str, ...] = ()
    count: int = 0
    digest: str = ""
    packed: str = ""
    problem: str = ""
    absent: bool = False
    """What the problem is about may still come: a ConfigMap that is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEvidence:
    """A threshold on the merged numbers: *value* in the rule's unit (None: no samples) over *samples* requests."""

    rule: str
    value: float | None
    samples: int
    abort: bool = False
    breached_windows: int = 0
    problem: str = ""
    """Why it cannot be judged at all: it names what no runner counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One metric's numbers; of a counter there is only the *count*. Values in *unit*; *total* is their sum."""

    name: str
    kind: str
    unit: str
    count: int
    total: int = 0
    p50: int | None = None
    p95: int | None = None
    p99: int | None = None
    least: int | None = None
    most: int | None = None


def _no_buckets() -> npt.NDArray[np.uint16]:
    return np.zeros(0, dtype=np.uint16)


def _no_counts() -> npt.NDArray[np.uint64]:
    return np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourWindow:
    """
    What all runners of one version counted in one window of a rollout's step, merged by addition.

    Window *number* is [from + number · length, from + (number + 1) · length) in run time, *from* being
    `rollout.windowsFromMs`. *requests* are finished ones, *in_flight* those under way now, in the newest window only.
    *user_ms* is what users of the version were active in it: nobody else could have finished anything.
    *seen_ms* is what one runner saw of it, at most; it is *whole* once every runner that answers has told of what came
    after it. *time_ns* is the time of all workers, in *waited_ns* of which they waited for a CPU; of the *periods* of
    their quotas so many were *throttled*. *buckets* and *counts* are the histogram of response times, without what is
    empty.
    """

    number: int
    requests: int = 0
    failed: int = 0
    checks: int = 0
    checks_failed: int = 0
    in_flight: int = 0
    user_ms: int = 0
    seen_ms: int = 0
    whole: bool = False
    time_ns: int = 0
    waited_ns: int = 0
    periods: int = 0
    throttled: int = 0
    buckets: npt.NDArray[np.uint16] = field(default_factory=_no_buckets, compare=False, repr=False)
    counts: npt.NDArray[np.uint64] = field(default_factory=_no_counts, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLoad:
    """
    What one *runner* carried in its newest 15 s.

    *users* at work on the average; *utilisation* in permille: max(pod CPU ÷ quota, busiest worker's CPU ÷ one core),
    nothing else in it; *strained*: it could not keep up, lag p99 above 50 ms, more than 5 % of the quota's periods
    throttled, or *crowded*: a worker never paused, and others had the CPU for more than a tenth of the time.
    *covered_ms* is how much of the 15 s was told, *ready_ms* for how long the runner has been ready.
    """

    runner: str
    revision: str
    users: float
    utilisation: int
    strained: bool
    crowded: bool = False
    covered_ms: int
    ready_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """
    What the merged statistics of all runners say: shares and times since the warm-up, figures of the last ten seconds.

    Times in ns. *saturated* is None or the sentence that names runner, window and figure; *missing* names shares of the
    numbers that are missing; *complete* says that every live or ended runner's account was read to its end.
    """

    requests: int = 0
    requests_told: int = 0
    """What an operator before this one told of, until every account was read; 0 from then on."""
    failed: int = 0
    checks: int = 0
    checks_failed: int = 0
    dropped: int = 0
    arrivals_planned: int = 0
    arrivals_started: int = 0
    arrivals_twice: int = 0
    held_back: int = 0
    """Starts delayed or dropped after the warm-up because load was high."""
    judged_requests: int = 0
    wanted_user_ms: int = 0
    active_user_ms: int = 0
    lost_runners: int = 0
    losses: tuple[Loss, ...] = ()
    """Those of them that this operator saw, oldest first."""
    rps: float = 0.0
    error_rate: float | None = None
    p50: int | None = None
    p95: int | None = None
    p99: int | None = None
    rules: tuple[RuleEvidence, ...] = ()
    saturated: str | None = None
    windows: int = 0
    bad_windows: int = 0
    missing: tuple[str, ...] = ()
    unseen_windows: int = 0
    seen_windows: int = 0
    worker_restarts: int = 0
    worker_lost_users: int = 0
    oom_kills: int = 0
    complete: bool = True
    unkept: tuple[UnkeptShare, ...] = ()
    """What the record did not take: gone when this process ends."""
    open: tuple[str, ...] = ()
    """What would be missing besides if the run ended now: of runners that are still there, and of what was told of."""
    metrics: tuple[MetricRow, ...] = ()
    """What scenarios counted and measured, since the warm-up."""
    colours: Mapping[str, tuple[ColourWindow, ...]] = field(default_factory=dict)
    """The windows of the rollout's present step by revision, oldest first; a window that nobody told of is absent."""
    listening_ms: int = 0
    """Since when, in run time, they have been asked for without a break: what is missing before is no finding."""
    attended_ms: int | None = None
    """For how long looks have followed one another without a break; None: ever since."""
    attended_in_phase_ms: int | None = None
    """For how long somebody has looked on in this phase, of a break only its first 12 s; None: all the time."""
    loads: tuple[RunnerLoad, ...] = ()
    """What each runner that answers carries; one that told of nothing within 15 s is absent."""
    starts_ms: tuple[int, ...] = ()
    """How long the runners took to start that came up at this look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A one-shot command from the annotation; *problem* when it could not be read."""

    id: str
    action: str
    attempt: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What the user's object asks for: the accepted spec, or the problems that keep it from being accepted."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: TrafficSimulationSpec | None
    problems: tuple[Problem, ...] = ()
    status: Status = Status()
    command: Command | None = None
    scaler: str = ""
    """Under which name an autoscaler sets `users`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """
    The world around one simulation.

    *image* is the installation's runner image, *cores* the machine's cores when all runners share it (a local run),
    *ca* the PEM that target.tls.caFrom led to, *ca_problem* why it led nowhere.
    """

    revisions: Mapping[str, RevisionSeen] = field(default_factory=dict)
    target: TargetFacts
    policy: Policy
    image: str
    evidence: Evidence = Evidence()
    cores: int | None = None
    ca: str | None = None
    ca_problem: str = ""
    data: Mapping[str, RowsSeen] = field(default_factory=dict)
    """The rows of each feeder of the newest spec, by its name."""
    stop: str = ""
    """Why the run is to be ended now, when somebody at the terminal asks for it."""
    accepted: TrafficSimulationSpec | None = None
    """The newest spec that was accepted before, as far as this operator remembers."""
    saved: Mapping[str, str] | None = field(default=None, repr=False)
    """What the run's setup saved; None while that is not known here."""
    reader: str = ""
    """The key that it is sealed for on its way from the runner."""
    trouble: str = ""
    """What the world last said no to, when the newest actions did not come through."""
    watched: bool = False
    """Somebody looks on: figures every second instead of every five."""
    fence: Fence | None = None
    """What runners must have acknowledged before places move; None: whatever they hold."""
    unwilling: Mapping[str, Unwilling] = field(default_factory=dict)
    """Those of the runners that said no to what they were told last, by UID."""
    said: tuple[frozenset[str], tuple[UnkeptShare, ...]] = (frozenset(), ())
    """What is missing and not kept of which the status tells by now, as far as it has room."""

    @property
    def runners(self) -> tuple[Runner, ...]:
        """Return the runners of all revisions."""
        return tuple(runner for seen in self.revisions.values() for runner in seen.runners)
