"""
The analysis of one step: may the new version (green) have more users, beside the old one (blue) under the same load.

Numbers are those of whole windows since `windowsFromMs`: after the warm-up, none of them from before or during a
transfer. Each pair of windows first, from the newest back:

| green | blue | finding |
|---|---|---|
| finished requests | any | its numbers are judged, see below |
| not told, or none finished | has told, with requests | error; 3 in a row, and long enough: Fail CandidateSilent |
| told, none finished | told, none finished | the target hangs: hold, after 180 s pause TargetDegraded |
| told, no user was active | any | nobody could: hold, by the profile |
| not told | not told | hold: no step, no abort; after 180 s pause MetricsUnavailable |

Silence is an error only where it means something: where it lasts longer than users who are well may be quiet
(silence.py; at the end of maxDwell it is as long as it can be), and where 10 requests were to be expected by what a
user did in the run so far (at that rate nothing at all happens once in 22 000 cases); of a version that tells nothing,
where the profile has one of its users on, whatever was last said of them. Without a control, blue having no users left
or none of its numbers being told, requests that are under way tell a target that hangs from a version that does
nothing.

Then the numbers, pooled since the step's first window, and in *merged* windows: adjacent ones together until n ≥ 200.

| rule, the first that applies | finding |
|---|---|
| a merged window with error_rate > 25 % | Fail |
| lower 95 % Wilson bound past a limit, n ≥ 50 | Fail |
| dwell over, pooled past a limit, n ≥ 200 (minSamples, if that is less) | Fail |
| 2 merged windows in a row past the same limit | Fail |
| dwell over, ≥ 3 windows with requests, n ≥ minSamples, within every limit | Pass |
| else, up to maxDwell | hold |
| maxDwell over | pause Inconclusive |

Silence and response times of windows in which green's workers were starved (starved.py) fail nobody: hold, at the end
of maxDwell pause Inconclusive. It may pass all the same: what a starved generator measures is never too good.

`comparison: absolute` is the plain contract: blue is told beside green and decides nothing. `relative`: a limit that
blue breaks in the same windows is the target's fault, and rolling back cannot help: hold, 180 s after the dwell pause
TargetDegraded. Why pooled, and why only when the dwell is over: with a true error rate of 3 % and a limit of 5 % one
window of n = 50 is past the limit in 18.9 % of cases, one of n = 200 in 4.0 %, four of them pooled in 0.1 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final

from trafficsim_api.names import Reason
from trafficsim_api.rollout import PauseReason
from trafficsim_api.status import ColourFigures, PlannedStep, RolloutPlan, RolloutStatus, RolloutWindow
from trafficsim_api.units import format_duration, parse_instant
from trafficsim_operator.observed import ColourWindow
from trafficsim_operator.plan.limits import Share, Sums, shares, sums
from trafficsim_operator.plan.rolling import SILENT_MS
from trafficsim_operator.plan.starved import starvation

__all__ = ["LATE_MS", "Analysis", "Outcome", "Users", "analyse", "silence_ms"]

LATE_MS: Final = 3_000
"""How long after its end a window may be told of: runners count by the second, and are read every second."""
_HOLD_MS: Final = 180_000
_MERGED: Final = 200
_SURE: Final = 50
_WINDOWS: Final = 3
_ERRORS: Final = 3
_EXPECTED: Final = 10
_HARD: Final = 2_500
_TOLD: Final = 10


def silence_ms(plan: RolloutPlan) -> int:
    """Return how long a version has to tell nothing until that is silence: three windows, and ten seconds at least."""
    return max(SILENT_MS, _ERRORS * plan.window_ms)


class Outcome(StrEnum):
    """What a step's analysis comes to."""

    PASS = "pass"
    FAIL = "fail"
    HOLD = "hold"
    """Nothing is decided yet: the step is held on."""
    PAUSE = "pause"
    """It will not be decided by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """
    What one look found. *reason* is that of a failure, *pause* that of a pause; *message* has the numbers.

    *windows*, *errors* and *no_numbers_since_ms* (wall clock, None: numbers come) are for the record.
    """

    outcome: Outcome
    message: str
    reason: Reason | None = None
    pause: PauseReason | None = None
    windows: tuple[RolloutWindow, ...] = ()
    errors: int = 0
    no_numbers_since_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """
    Who makes the requests: what a user did in the run so far, who is to be there, and blue's active users now.

    *requests_per_user_s* is over all versions and the whole run: finished requests ÷ active user-seconds. *due* is how
    many of green's users were to be active by the profile all along in the newest windows (`silence_ms`): what its
    runners said before they fell silent was of another time.
    """

    blue: int
    requests_per_user_s: float
    due: int


def analyse(
    rollout: RolloutStatus,
    *,
    green: Sequence[ColourWindow],
    blue: Sequence[ColourWindow],
    users: Users,
    now_ms: int,
    run_ms: int,
    listening_ms: int = 0,
    quiet_ms: int = SILENT_MS,
) -> Analysis | None:
    """
    Return what is to become of the present step; None while no windows count.

    *run_ms* is now in run time. *listening_ms*: what is missing from before is no finding (see Evidence). *quiet_ms*:
    for how long users may finish nothing and be well.
    """
    plan, from_ms, since = rollout.plan, rollout.windows_from_ms, rollout.step_started_at
    if plan is None or from_ms is None or since is None or not rollout.step < len(plan.steps):
        return None
    case = _Case(
        plan=plan,
        step=plan.steps[rollout.step],
        users=users,
        elapsed_ms=now_ms - parse_instant(since),
        pairs=_pairs(green, blue, due=(run_ms - LATE_MS - from_ms) // plan.window_ms - 1),
        heard_from=-(-(listening_ms - from_ms) // plan.window_ms),
        in_flight=(green[-1].in_flight if green else 0) + (blue[-1].in_flight if blue else 0),
        quiet_ms=quiet_ms,
    )
    since_ms = parse_instant(rollout.no_numbers_since) if rollout.no_numbers_since else now_ms
    return _decided(case, now_ms, since_ms)


def _starvation(pairs: Iterable[_Pair]) -> str:
    """Return what shows that green's workers were starved in *pairs*; "" when they were not."""
    return starvation(pair.green for pair in pairs if pair.green is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Window *number* of both versions; None: nobody told of it."""

    number: int
    green: ColourWindow | None
    blue: ColourWindow | None


class _Gap(StrEnum):
    """What it means that green finished nothing in a window."""

    ERROR = "error"
    EMPTY = "empty"
    NOBODY = "nobody"
    """No user was active."""
    UNTOLD = "untold"
    UNHEARD = "unheard"
    """Nobody listened then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """Everything that the present step is judged by; *pairs* are those that can grow no more, oldest first."""

    plan: RolloutPlan
    step: PlannedStep
    users: Users
    elapsed_ms: int
    pairs: tuple[_Pair, ...]
    heard_from: int
    in_flight: int
    quiet_ms: int

    @property
    def dwelt(self) -> bool:
        """Say whether the step was held as long as it is to be held at least."""
        return self.elapsed_ms >= self.step.dwell_ms

    @property
    def is_over(self) -> bool:
        """Say whether the step was held as long as it may be."""
        return self.elapsed_ms >= max(self.plan.max_dwell_ms, self.step.dwell_ms)

    @property
    def judged(self) -> tuple[_Pair, ...]:
        """Return the windows in which green finished requests."""
        return tuple(pair for pair in self.pairs if pair.green is not None and pair.green.requests)

    def expects(self, user_ms: int) -> bool:
        """Say whether users were to finish enough requests in so much of their time for silence to mean something."""
        return user_ms / 1000 * self.users.requests_per_user_s >= _EXPECTED

    def gap(self, pair: _Pair) -> _Gap | None:
        """Return what it means that green finished nothing in *pair*; None when it did."""
        green, blue = pair.green, pair.blue
        if green is None:
            if pair.number < self.heard_from:
                return _Gap.UNHEARD
            return _Gap.UNTOLD if blue is None else _Gap.ERROR
        if green.requests:
            return None
        if not green.user_ms:
            return _Gap.NOBODY
        if blue is None or not blue.user_ms:
            return _Gap.EMPTY if self.in_flight else _Gap.ERROR
        return _Gap.ERROR if blue.requests else _Gap.EMPTY

    def newest_gap(self) -> tuple[_Gap | None, tuple[_Pair, ...]]:
        """Return what the newest windows lack, and those in a row that lack it."""
        kind = self.gap(self.pairs[-1]) if self.pairs else None
        found: list[_Pair] = []
        for pair in reversed(self.pairs):
            if kind is None or self.gap(pair) is not kind:
                break
            found.append(pair)
        return kind, tuple(found)


def _pairs(green: Sequence[ColourWindow], blue: Sequence[ColourWindow], due: int) -> tuple[_Pair, ...]:
    """Return the windows of both versions up to the newest that both have told, or that is *due* by now."""
    greens = {window.number: window for window in green if window.whole}
    blues = {window.number: window for window in blue if window.whole}
    newest = max([due, *(greens.keys() & blues.keys())])
    # Windows are bounded by what is kept of them, time is not: an old gap is of no interest.
    oldest = min([*greens, *blues, max(0, newest - _HOLD_MS // 1000)], default=0)
    return tuple(
        _Pair(number=number, green=greens.get(number), blue=blues.get(number))
        for number in range(max(0, oldest), newest + 1)
    )


def _decided(case: _Case, now_ms: int, since_ms: int) -> Analysis:
    gap, pairs = case.newest_gap()
    length = timedelta(milliseconds=len(pairs) * case.plan.window_ms)
    windows = _told(case)
    if gap is _Gap.UNHEARD:
        return Analysis(outcome=Outcome.HOLD, message="the numbers of the step are gathered anew", windows=windows)
    if gap is _Gap.UNTOLD:
        lasts = timedelta(milliseconds=now_ms - since_ms)
        is_long = now_ms - since_ms >= _HOLD_MS or case.is_over
        text = "neither version has told its numbers" + (f" for {format_duration(lasts)}" if is_long else "")
        return Analysis(
            outcome=Outcome.PAUSE if is_long else Outcome.HOLD,
            pause=PauseReason.METRICS_UNAVAILABLE if is_long else None,
            message=text, windows=windows, no_numbers_since_ms=since_ms,
        )  # fmt: skip
    if gap is _Gap.NOBODY:
        text = f"no user of the new version was active for {format_duration(length)}"
        return _undecided(case, text, windows)
    both_ms = sum(seen.user_ms for pair in pairs for seen in (pair.green, pair.blue) if seen is not None)
    if gap is _Gap.EMPTY and (case.in_flight or case.expects(both_ms)):
        is_long = len(pairs) * case.plan.window_ms >= _HOLD_MS or case.is_over
        return Analysis(
            outcome=Outcome.PAUSE if is_long else Outcome.HOLD,
            pause=PauseReason.TARGET_DEGRADED if is_long else None,
            message=f"the target hangs: no request was finished for {format_duration(length)}, {case.in_flight} are "
            "under way",
            windows=windows,
        )
    if gap is _Gap.ERROR:
        return _silent(case, pairs, length, windows)
    return _by_numbers(case, windows)


def _silent(case: _Case, pairs: Sequence[_Pair], length: timedelta, windows: tuple[RolloutWindow, ...]) -> Analysis:
    """Judge a version of which nothing is heard though the other one goes on."""
    told = [pair.green for pair in pairs if pair.green is not None]
    untold = len(pairs) - len(told)
    blue = sum(pair.blue.requests for pair in pairs if pair.blue is not None)
    user_ms = sum(window.user_ms for window in told)
    if told:
        users, what, quiet_ms = -(-user_ms // (len(told) * case.plan.window_ms)), "finished no request", case.quiet_ms
    else:
        users, what, quiet_ms = case.users.due, "told nothing", SILENT_MS
    text = f"{_many(users, 'user')} {what} for {format_duration(length)} (blue n={blue})"
    means = (untold >= _ERRORS and case.users.due) or case.expects(user_ms)
    lasts = len(pairs) * case.plan.window_ms >= quiet_ms or case.is_over
    fails = len(pairs) >= _ERRORS and lasts and means
    if fails and not (why := _starvation(pairs)):
        return Analysis(
            outcome=Outcome.FAIL,
            reason=Reason.CANDIDATE_SILENT,
            message=text,
            windows=windows,
            errors=len(pairs),
        )
    return _undecided(case, f"no verdict, {why}: {text}" if fails else text, windows, errors=len(pairs))


def _undecided(case: _Case, text: str, windows: tuple[RolloutWindow, ...], *, errors: int = 0) -> Analysis:
    """Hold the step, and pause it when it was held as long as it may be."""
    return Analysis(
        outcome=Outcome.PAUSE if case.is_over else Outcome.HOLD,
        pause=PauseReason.INCONCLUSIVE if case.is_over else None,
        message=text,
        windows=windows,
        errors=errors,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Charge:
    """Limits that green broke in the windows *pairs*, and its numbers in them."""

    pairs: tuple[_Pair, ...]
    green: Sums
    broken: tuple[Share, ...]

    @property
    def blue(self) -> Sums:
        """Return the other version's numbers in the same windows."""
        return sums(pair.blue for pair in self.pairs if pair.blue is not None)

    def own(self, plan: RolloutPlan, *, control: bool) -> _Charge:
        """Return what blue does not break as well; nothing while *control*, blue having users, gives no numbers."""
        blue = self.blue
        if control and not blue.requests:
            return replace(self, broken=())
        also = {share.name for share in shares(plan, blue) if share.is_over}
        return replace(self, broken=tuple(share for share in self.broken if share.name not in also))

    def fair(self) -> _Charge:
        """Return what its workers, if they were starved, cannot be the cause of."""
        if not _starvation(self.pairs):
            return self
        return replace(self, broken=tuple(share for share in self.broken if share.name != "p95"))

    @property
    def text(self) -> str:
        """Return the numbers: `error_rate 9.1% (blue 0.4%), n=812`."""
        return _side_by_side(self.green, self.blue, [share.name for share in self.broken])


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _by_numbers(case: _Case, windows: tuple[RolloutWindow, ...]) -> Analysis:
    """Judge the numbers of a step in whose newest window there are some."""
    plan, pooled = case.plan, _charge(case.plan, case.judged)
    charges = tuple(_charges(case, pooled))
    own = charges
    if plan.comparison == "relative":
        control = case.users.blue > 0
        own = tuple(charge for charge in (found.own(plan, control=control) for found in charges) if charge.broken)
    if own:
        if fair := tuple(charge for charge in map(_Charge.fair, own) if charge.broken):
            return Analysis(outcome=Outcome.FAIL, reason=Reason.ANALYSIS_FAILED, message=fair[0].text, windows=windows)
        return _undecided(case, f"no verdict, {_starvation(own[0].pairs)}: {own[0].text}", windows)
    if charges and pooled.broken:
        is_long = case.elapsed_ms >= case.step.dwell_ms + _HOLD_MS or case.is_over
        return Analysis(
            outcome=Outcome.PAUSE if is_long else Outcome.HOLD,
            pause=PauseReason.TARGET_DEGRADED if is_long else None,
            message=f"it is not the new version's fault alone: {pooled.text}",
            windows=windows,
        )
    n, seen = pooled.green.requests, len(case.judged)
    is_enough = n >= plan.min_samples and seen >= _WINDOWS and pooled.green.answered > 0
    if case.dwelt and is_enough and not pooled.broken:
        text = _side_by_side(pooled.green, pooled.blue)
        return Analysis(outcome=Outcome.PASS, message=text, windows=windows)
    text = f"n={n} of {plan.min_samples}, {seen} windows of {_WINDOWS}"
    if pooled.broken:
        text += f"; past a limit, which may be chance: {pooled.text}"
    return _undecided(case, text, windows)


def _charges(case: _Case, pooled: _Charge) -> Iterator[_Charge]:
    """Yield what green is to be failed for by its own numbers, the gravest first; *pooled*: of all windows."""
    plan = case.plan
    groups = tuple(_groups(case.judged))
    merged = tuple(_charge(plan, group) for group in groups)
    for charge in merged:
        errors = tuple(share for share in charge.broken if share.name == "error_rate")
        if errors and charge.green.failed * 10_000 > _HARD * charge.green.requests:
            yield replace(charge, broken=errors)
    if surely := tuple(share for share in pooled.broken if share.n >= _SURE and share.is_surely_over):
        yield replace(pooled, broken=surely)
    if pooled.broken and case.dwelt and pooled.green.requests >= min(_MERGED, plan.min_samples):
        yield pooled
    for (before, after), (first, second) in zip(pairwise(merged), pairwise(groups), strict=True):
        names = {share.name for share in before.broken} & {share.name for share in after.broken}
        if names:
            both = _charge(plan, (*first, *second))
            yield replace(both, broken=tuple(share for share in both.broken if share.name in names))


def _charge(plan: RolloutPlan, pairs: tuple[_Pair, ...]) -> _Charge:
    """Return the limits that green breaks in *pairs* together."""
    green = sums(pair.green for pair in pairs if pair.green is not None)
    return _Charge(pairs=pairs, green=green, broken=tuple(share for share in shares(plan, green) if share.is_over))


def _groups(pairs: Sequence[_Pair]) -> Iterator[tuple[_Pair, ...]]:
    """Yield adjacent windows together until green has n ≥ 200; what is left over is not judged by itself."""
    group: list[_Pair] = []
    n = 0
    for pair in pairs:
        group.append(pair)
        n += pair.green.requests if pair.green is not None else 0
        if n >= _MERGED:
            yield tuple(group)
            group, n = [], 0


def _side_by_side(green: Sums, blue: Sums, names: Iterable[str] = ("error_rate", "success", "p95")) -> str:
    parts = []
    for name in names:
        value, beside = str(getattr(green, name)), str(getattr(blue, name))
        if value:
            parts.append(f"{name} {value}" + (f" (blue {beside})" if beside else ""))
    return f"{', '.join(parts)}, n={green.requests}"


def _told(case: _Case) -> tuple[RolloutWindow, ...]:
    """Return the newest windows as the status tells them, numbered from 1."""
    return tuple(
        RolloutWindow(number=pair.number + 1, blue=_figures(pair.blue), green=_figures(pair.green))
        for pair in case.pairs[-_TOLD:]
    )


def _figures(window: ColourWindow | None) -> ColourFigures:
    return sums((window,)).figures() if window is not None else ColourFigures()
