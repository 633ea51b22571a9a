"""
The status document: phase, conditions and intent at once, complete at every write, at most 16 KiB.

Figures are rounded and written only when a printed digit changed; instants are RFC 3339 in UTC with milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from trafficsim_api.phases import Phase, Verdict
from trafficsim_api.resource import PRESERVE, Model
from trafficsim_api.rollout import PauseReason, RolloutPhase
from trafficsim_api.scaling import ScalingReason

__all__ = [
    "Accounts",
    "Barrier",
    "ColourFigures",
    "ColourStatus",
    "ConditionStatus",
    "DemandMeans",
    "DemandStatus",
    "Figures",
    "ForecastStatus",
    "ForeignScaling",
    "MetricStatus",
    "LastCommand",
    "LostRunner",
    "PlannedStep",
    "Revision",
    "RolloutPlan",
    "RolloutStatus",
    "RolloutWindow",
    "RuleStatus",
    "Run",
    "Runners",
    "ScaleEvent",
    "ScalingStatus",
    "SizingTerms",
    "Status",
    "TaskStatus",
    "UnkeptShare",
    "Users",
    "VersionScaling",
]


class _Part(Model):
    # A newer operator may have written more: reading an own older or newer document never fails on a field.
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, alias_generator=to_camel, populate_by_name=True)


class ConditionStatus(_Part):
    """One condition, as Kubernetes writes them."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: str
    observed_generation: int


class TaskStatus(_Part):
    """What is done once in the run, and by which runner; the order is on record before the runner hears of it."""

    state: Literal["Running", "Done", "Failed"]
    runner: str
    uid: str
    digest: str
    """Hash over the flow that was ordered."""
    since: str
    deadline: str
    ended: str | None = None
    message: str = ""
    """Why it failed: the action and the cause."""
    requests: int = 0
    failed: int = 0
    """Of them, those without an answer or with a 5xx. None of both is in the run's numbers."""
    saved: int = 0
    """How many values it saved; the values themselves are nowhere in the status."""


class LostRunner(_Part):
    """A runner that was lost in the run."""

    name: str
    users: int = 0
    """Places that it held."""
    since: str
    """From when on its numbers are missing."""
    at: str
    """When it was seen lost; its users went to others from then on."""
    end_unseen: bool = False
    """Nobody saw it end: its node was not ready. It may have been at work beside those that took its users."""


class Barrier(_Part):
    """How all runners began at one instant that they were told beforehand."""

    moved: bool = False
    """The instant was moved on, once: not every runner had acknowledged it in time."""
    runners: int = 0
    """How many told when their first user began; 0: not known yet."""
    skew_ms: int = 0
    """The latest of those beginnings less the earliest."""
    offset_error_ms: int = 0
    """By how much a runner's clock may be off at most: half the round trip that it was compared in."""


class Run(_Part):
    """One run of the simulation; runs are numbered from 1."""

    id: int
    phase_since: str
    """When the present phase began; its deadline counts from here."""
    generation: int = 0
    """The newest generation that was accepted."""
    request: str | None = None
    """`spec.runRequest` as it was when the run began."""
    origin: str | None = None
    """Instant 0 of the profile; moved on by the time spent suspended."""
    end: str | None = None
    """When the runners drain by themselves: origin + duration, else a day ahead, renewed hourly."""
    suspended_at: str | None = None
    finished_at: str | None = None
    stop: str | None = None
    """Why the run is being ended before its time."""
    planned_users: int = 0
    planned_since: str | None = None
    planned_user_ms: int = 0
    """User-milliseconds that T and profile asked for until *plannedSince*; edits fold into it."""
    lost_user_ms: int = 0
    """Planned user time that no runner gave: what was lost with runners so far, all of it when the run has ended."""
    lost_runners: int = 0
    lost: Annotated[tuple[LostRunner, ...], Field(max_length=8)] = ()
    """The newest of them."""
    short_users: int = 0
    """Places that no runner has room for just now."""
    short_since: str | None = None
    """From when on their time is not yet in *lostUserMs*."""
    barrier: Barrier | None = None
    """Of tiers large and xlarge; absent: the run began without."""
    arrivals_since_ms: int = 0
    """Open model: from when on the present rate and profile count, ms from the origin."""
    arrivals_before: int = 0
    """The work due until then, in 2⁻²⁰ of an arrival."""
    arrivals_users: int = 0
    """The T that arrivals are dealt over."""
    arrivals_course: str = ""
    """Hash over rate, process and profile, as they count now."""
    arrivals_planned: int = 0
    """Arrivals that were due until the run was drained, known from then on."""
    arrivals_lost: int = 0
    """Of them, those that no runner was there for, known when the run has ended."""
    setup: TaskStatus | None = None
    teardown: TaskStatus | None = None


class Users(_Part):
    """Users as whole numbers."""

    target: int = 0
    """T = spec.users, as accepted."""
    wanted: int = 0
    """u(t): what the profile asks for now."""
    active: int = 0
    """Acknowledged by the runners: from first send until parked."""
    dealt: int = 0
    """The T that places are dealt for: behind the target while runners for a raise are starting."""
    placed: int = 0
    """Places that some runner holds."""


class Runners(_Part):
    """Runners as whole numbers."""

    wanted: int = 0
    ready: int = 0


class SizingTerms(_Part):
    """How users became runners: each term of the sizing."""

    capacity: int = 0
    """Users per runner at most."""
    per_process: int = 0
    processes: int = 0
    """Worker processes per runner."""
    reason: str = ""


class Revision(_Part):
    """A runner revision: pinned image and the normalised template, enough to rebuild a lost Deployment."""

    revision: str
    image: str
    runner: Annotated[dict[str, Any], WithJsonSchema({"type": "object", **PRESERVE})]
    named: bool = False
    """The spec named the image; else it is the installation's as it was when the run began."""
    places: int = 0
    """How many places its runners hold by intent."""

    @property
    def label(self) -> str:
        """Return what people call it: its image's tag, or the revision."""
        return self.image.rpartition("/")[2].partition("@")[0].partition(":")[2] or self.revision


class PlannedStep(_Part):
    """One step as it is pinned; steps whose samples would not do for themselves are joined with the next."""

    percent: int
    dwell_ms: int
    pause: bool = False


class RolloutPlan(_Part):
    """What one attempt goes by, pinned when it begins: `spec.rollout` in ms and hundredths of a percent."""

    steps: Annotated[tuple[PlannedStep, ...], Field(max_length=16)]
    max_dwell_ms: int
    max_error_rate: int
    max_p95_ms: int
    min_success_rate: int
    on_failure: Literal["rollback", "pause"]
    comparison: Literal["absolute", "relative"]
    auto_promote: bool
    scale_down_ms: int
    abort_scale_down_ms: int
    warm_up_ms: int
    window_ms: int
    min_samples: int
    deadline_ms: int
    note: str = ""
    """What was made of the steps asked for, and why: those that were joined."""


class ColourStatus(_Part):
    """One version's share of the load."""

    users: int = 0
    """Places its runners hold by intent."""
    active: int = 0
    runners: int = 0
    """As many as it is to have."""
    ready: int = 0


class ColourFigures(_Part):
    """One version in one window, rounded; empty where there was nothing to count."""

    requests: int = 0
    error_rate: str = ""
    success: str = ""
    p95: str = ""


class RolloutWindow(_Part):
    """A window of the present step, both versions side by side; counted from the step's first."""

    number: int
    blue: ColourFigures = ColourFigures()
    green: ColourFigures = ColourFigures()


class RolloutStatus(_Part):
    """Where the rollout stands: blue is `stable`, green `candidate`. On record before anything is done by it."""

    phase: RolloutPhase = RolloutPhase.STABLE
    attempt: int = 0
    """Rollouts are numbered from 1; a command may name the one it is meant for."""
    since: str | None = None
    """When the phase began; moved on by the time spent paused or suspended."""
    plan: RolloutPlan | None = None
    step: int = 0
    """The index of the present step in the plan."""
    percent: int = 0
    effective_percent: int = 0
    """What whole users make of it."""
    wanted: int = 0
    """Users that the new version is to have."""
    settled: int = 0
    """Looks in a row, at most 2, at which every user was where it is to be."""
    step_started_at: str | None = None
    """From when on the step is held; moved on like `since`."""
    windows_from_ms: int | None = None
    """Windows count from here, ms from the run's origin."""
    errors: int = 0
    """Windows in a row, up to the newest, without numbers of the new version."""
    no_numbers_since: str | None = None
    """Since when neither version gave numbers."""
    failing_since: str | None = None
    """Since when a runner of the new version fails in a way that won't mend itself."""
    pause: PauseReason | None = None
    paused_at: str | None = None
    suspended_at: str | None = None
    passed: bool = False
    """The present step's analysis is passed; it may still be paused after it."""
    fast: bool = False
    """Back to the version before, whose runners still stand: one step, not held."""
    reason: str = ""
    """In a word why it ended or is being ended."""
    message: str = ""
    """What it waits for, or why it ended, with the numbers."""
    rejected: str = ""
    """The revision that failed; not tried again until it changes or somebody asks for it."""
    scale_down_at: str | None = None
    """When the runners without users go."""
    blue: ColourStatus = ColourStatus()
    green: ColourStatus = ColourStatus()
    windows: Annotated[tuple[RolloutWindow, ...], Field(max_length=10)] = ()


class ScaleEvent(_Part):
    """A change of the runners that a version is to have, while it counts for the next one."""

    at: str
    revision: str
    runners: int
    """How many more; below 0: fewer."""


class VersionScaling(_Part):
    """How many runners one version is to have, and what that comes from."""

    revision: str
    wanted: int = 0
    """Runners it is to have for the users that it is to carry: in a rollout the new version's share of them."""
    needed: int = 0
    """Runners those users take now: `wanted` follows, up and down, as fast as it may."""
    static: int = 0
    """The fewest, by users, tier and capacity."""
    users: int = 0
    """Users it is to carry: now, or with prediction within the time that another runner takes to start."""
    users_per_runner: int = 0
    """Users that a runner carries at the target utilisation, as measured; 0: not measured yet."""
    utilisation: int = 0
    """Of its runners on the average, percent, at the newest sample."""
    milliusers: int = 0
    """Thousandths of a user that take all of a runner: the moving average behind `usersPerRunner`."""
    samples: int = 0
    """How many samples it is made of, at most 100."""
    ceiling: int = 0
    """Thousandths of a user at which a runner could not keep up, though its CPU could: the lesser counts; 0: none."""
    strained: int = 0
    """Samples in a row, at most 2, at which a runner could not keep up."""
    recommended: Annotated[tuple[int, ...], Field(max_length=20)] = ()
    """What was needed at each of the newest samples, 15 s apart, the newest last."""
    reason: ScalingReason = ScalingReason.STATIC
    message: str = ""


class DemandMeans(_Part):
    """The demand over hours or weeks: means of equal spans of the clock, one after another."""

    until: str | None = None
    """The end of the newest one."""
    users: Annotated[tuple[int, ...], Field(max_length=337)] = ()
    """The newest last; -1: not known."""


class DemandStatus(_Part):
    """The demand of late, where no profile tells it; begun anew by an edit of users and by a gap."""

    since: str | None = None
    """The instant of the first one."""
    every_ms: int = 0
    users: Annotated[tuple[int, ...], Field(max_length=24)] = ()
    """Users at work at each of the samples."""
    fives: DemandMeans = DemandMeans()
    """Of five minutes each, for two hours; outlives a gap."""
    hours: DemandMeans = DemandMeans()
    """Of an hour each, for two weeks; outlives a gap."""


class ForecastStatus(_Part):
    """What was forecast, and what came of it."""

    at: str | None = None
    """The instant that the newest forecast is for."""
    users: int = 0
    """The users that it says; 0: there is no trend to go by."""
    predicted: int = 0
    """What had been forecast for the newest sample …"""
    actual: int = 0
    """… and what it was."""
    pending: Annotated[tuple[int, ...], Field(max_length=24)] = ()
    """Forecasts whose instant is yet to come, one a sample, the next due first; 0: none was made."""
    errors: Annotated[tuple[int, ...], Field(max_length=20)] = ()
    """Of the newest comparisons, in percent of what came, the newest last."""
    error: int | None = None
    """Their mean, percent; absent: too few yet."""
    off: bool = False
    """The mean is above 30 %: nothing is done by a forecast until it is below again."""


class ForeignScaling(_Part):
    """What another autoscaler has set, as it was seen: nobody tells when it did, or when it is gone."""

    manager: str
    """The name that it writes under."""
    revision: str = ""
    """The version whose runners it sets; empty: it sets `users`."""
    value: int = 0
    at: str
    """When that value was seen first. Ten minutes later its writer counts as gone."""


class ScalingStatus(_Part):
    """How runners follow the load: everything the next decision builds on. Of the present run."""

    at: str | None = None
    """The instant of the newest sample; one is taken every 15 s."""
    users: int = 0
    """T as it was then: an edit is seen by it."""
    load: str = ""
    """Hash over what a user does, as it was then."""
    no_numbers_since: str | None = None
    """Since when no runner has told its load."""
    start_up_ms: int = 0
    """From having a node until being ready: the median of the newest runners, at most two minutes; 0: not known."""
    start_ups_ms: Annotated[tuple[int, ...], Field(max_length=5)] = ()
    """How long the newest took, the newest last."""
    versions: Annotated[tuple[VersionScaling, ...], Field(max_length=3)] = ()
    """The stable version first."""
    events: Annotated[tuple[ScaleEvent, ...], Field(max_length=16)] = ()
    demand: DemandStatus = DemandStatus()
    forecast: ForecastStatus = ForecastStatus()
    foreign: Annotated[tuple[ForeignScaling, ...], Field(max_length=4)] = ()
    reason: ScalingReason = ScalingReason.STATIC
    """Of the version whose runners are changed, else of the stable one."""
    message: str = ""


class Figures(_Part):
    """What the last ten seconds were like, rounded."""

    at: str | None = None
    rps: str = "0.0"
    p50: str = ""
    p95: str = ""
    p99: str = ""
    error_rate: str = ""


class MetricStatus(_Part):
    """A metric of a scenario."""

    name: str
    count: int = 0
    p95: str = ""
    """Of a trend, with its unit."""


class UnkeptShare(_Part):
    """The last numbers of a runner that could not be put on record: the operator's memory alone has them."""

    runner: str
    uid: str
    requests: int = 0
    since: str
    reason: str


class Accounts(_Part):
    """The whole run in numbers."""

    requests: int = 0
    failed: int = 0
    checks: int = 0
    checks_failed: int = 0
    dropped: int = 0
    arrivals_planned: int = 0
    """Open model: iterations that were due by the rate."""
    arrivals_started: int = 0
    """Of them, those that were begun."""
    missing: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    """Shares of the numbers that are missing: which runner's, from when to when."""
    unkept: Annotated[tuple[UnkeptShare, ...], Field(max_length=8)] = ()
    """Shares that are counted here, and will be missing if the operator ends before they are on record."""
    metrics: Annotated[tuple[MetricStatus, ...], Field(max_length=8)] = ()
    """The first of the metrics that scenarios declare, after the warm-up."""


class RuleStatus(_Part):
    """A threshold and how it stands."""

    rule: str
    value: str = ""
    holds: Literal["True", "False", "Unknown"] = "Unknown"
    samples: int = 0


class LastCommand(_Part):
    """The answer to the newest command."""

    id: str
    action: str
    result: Literal["Done", "Refused"]
    reason: str = ""


class Status(_Part):
    """Everything the operator says about a simulation, and the intent it acts by."""

    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    message: str = ""
    run: Run | None = None
    epoch: int = 0
    """Of the newest assignment; epochs count within one UID."""
    tier: str = ""
    strategy: str = ""
    users: Users = Users()
    runners: Runners = Runners()
    sizing: SizingTerms = SizingTerms()
    version: str = ""
    """The running image's tag, or its revision."""
    stable: Revision | None = None
    candidate: Revision | None = None
    """The version that is rolled out, or was rejected last."""
    previous: Revision | None = None
    """The version before the last promotion, while its runners stand."""
    rollout: RolloutStatus | None = None
    scaling: ScalingStatus | None = None
    """Absent while no run is on."""
    figures: Figures = Figures()
    accounts: Accounts = Accounts()
    rules: Annotated[tuple[RuleStatus, ...], Field(max_length=64)] = ()
    verdict: Verdict | None = None
    verdict_reason: str = ""
    last_command: LastCommand | None = None
    conditions: Annotated[tuple[ConditionStatus, ...], Field(max_length=16)] = ()
