"""Why a version has as many runners as it has: a word, and a sentence with the numbers."""

from __future__ import annotations

from dataclasses import dataclass

from trafficsim_api.scaling import ScalingReason
from trafficsim_operator.plan.need import Need, runners_for_users

__all__ = ["Case", "why"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    What one version's runners are decided by.

    *users* now, and *ahead* in *ahead_ms* by the *source* (PROFILE or FORECAST); *milliusers* is u*, 0 when it is not
    measured; *there* are the runners asked for before, *most* those allowed. *held* is why none may go, *missing* names
    the runners whose load is not known, *is_blind*: no runner's has been for 180 s.
    """

    users: int
    ahead: int
    ahead_ms: int
    source: ScalingReason
    milliusers: int
    need: Need
    there: int
    most: int | None
    held: ScalingReason | None
    missing: tuple[str, ...]
    is_blind: bool
    releasable: int = 0
    """Runners that a forecast could do without; they go when the users do."""

    @property
    def needed(self) -> int:
        """Return the runners needed, as far as they are allowed; those there are, when nobody tells any load."""
        needed = max(self.need.static, self.there) if self.is_blind else self.need.runners
        return needed if self.most is None else min(needed, self.most)


def why(case: Case, wanted: int) -> tuple[ScalingReason, str]:
    """Return the reason for *wanted* runners, and the sentence."""
    if case.held is ScalingReason.CONFLICT:
        return case.held, f"somebody else scales these runners: they are left at {wanted}"
    if case.is_blind:
        return ScalingReason.METRICS_MISSING, f"no runner has told its load for 180 s: they are left at {wanted}"
    basis = _basis(case)
    if case.most is not None and case.need.runners > case.most:
        return ScalingReason.MAX_RUNNERS, f"{basis}; at most {case.most} are allowed (scaling.maxRunners, policy)"
    if wanted < case.needed:
        return ScalingReason.RATE_LIMITED, f"{basis}; {wanted} for now, more in 15 s"
    if wanted > case.needed:
        return _more(case, basis, wanted)
    return _reached(case, basis)


def _more(case: Case, basis: str, wanted: int) -> tuple[ScalingReason, str]:
    """Return why there are more than are needed."""
    if case.held is ScalingReason.METRICS_MISSING:
        who = ", ".join(case.missing[:3]) + (", …" if len(case.missing) > 3 else "")
        return case.held, f"{basis}; the load of {who} is not known: none of {wanted} is taken away"
    if case.held is not None:
        return case.held, f"{basis}; none of {wanted} is taken away while a version is rolled out"
    return ScalingReason.STABILIZING, f"{basis}; of {wanted} one after another goes, when not needed for 300 s"


def _reached(case: Case, basis: str) -> tuple[ScalingReason, str]:
    """Return what asks for exactly so many as there are to be."""
    need = case.need
    if need.ahead > max(need.now, need.static):
        return case.source, basis
    if need.now > need.static:
        is_exact = need.now == runners_for_users(case.users, case.milliusers)
        reason = ScalingReason.LOAD if is_exact else ScalingReason.WITHIN_TOLERANCE
        spare = f"; {case.releasable} fewer would do by the forecast, and go if the users do" if case.releasable else ""
        return reason, f"{basis}{spare}"
    static = f"{need.static} by users, tier and capacity"
    return ScalingReason.STATIC, f"{static}; {basis}" if case.milliusers else f"{static}; nothing is measured yet"


def _basis(case: Case) -> str:
    """Return what is needed for whom, as a sentence."""
    if not case.milliusers:
        return f"{_of(case.need.static)} by users, tier and capacity"
    each = f"{case.milliusers / 1000:.0f}" if case.milliusers >= 10_000 else f"{case.milliusers / 1000:.3g}"
    by = "by the profile" if case.source is ScalingReason.PROFILE else "by the forecast"
    if case.need.ahead > max(case.need.now, case.need.static):
        due = f"{case.ahead} users are due within {case.ahead_ms / 1000:.0f} s {by}"
        return f"{due}: at {each} a runner they need {case.need.ahead}"
    exact = runners_for_users(case.users, case.milliusers)
    kept = f", {case.need.now} are within a tenth of it" if case.need.now != exact else ""
    who = "1 user" if case.users == 1 else f"{case.users} users"
    return f"{who} at {each} a runner need{'s' if case.users == 1 else ''} {exact}{kept}"


def _of(runners: int) -> str:
    return "1 runner" if runners == 1 else f"{runners} runners"
