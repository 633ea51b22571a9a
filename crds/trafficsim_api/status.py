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

__all__ = [
    "Accounts",
    "ColourFigures",
    "ColourStatus",
    "ConditionStatus",
    "Figures",
    "MetricStatus",
    "LastCommand",
    "PlannedStep",
    "Revision",
    "RolloutPlan",
    "RolloutStatus",
    "RolloutWindow",
    "RuleStatus",
    "Run",
    "Runners",
    "SizingTerms",
    "Status",
    "TaskStatus",
    "Users",
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
    """Planned user time that no runner gave, known when the run has ended."""
    lost_runners: int = 0
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


class Figures(_Part):
    """What the last ten seconds were like, rounded."""

    at: str | None = None
    rps: str = "0"
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
    figures: Figures = Figures()
    accounts: Accounts = Accounts()
    rules: Annotated[tuple[RuleStatus, ...], Field(max_length=64)] = ()
    verdict: Verdict | None = None
    verdict_reason: str = ""
    last_command: LastCommand | None = None
    conditions: Annotated[tuple[ConditionStatus, ...], Field(max_length=16)] = ()
