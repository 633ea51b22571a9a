"""
What a runner carries, by what it was measured to carry: the utilisation of a version's runners, sampled every 15 s.

    sample       = Σ users ÷ Σ utilisation over the version's runners: the users that would take all of one
    average      = sample when it is the first, else average + max(0.4, 1 ÷ number of samples) · (sample - average)
    u*           = target · min(average, ceiling), at most the static capacity

10 users at 50 % are 20 at 100 %, and 14 at the target of 70 %. When they then take 40 % (a sample of 25), the average
becomes 22.5: two samples weigh a half each. From the third on a sample weighs 0.4: 78 % of a change are in after three
samples (45 s), and noise of 10 % from sample to sample has become 5 %.

| a runner's sample | what becomes of it |
|---|---|
| ready for less than 30 s, or less than 7.5 s told | says nothing: it is warming up |
| below 1 user, or below a tenth of the target | says nothing: what a runner takes without users would be most of it |
| users coming: now a quarter more at work than on the average | says nothing: connecting costs more than being there |
| crowded: others had the CPU that it was ready for | says nothing, beside runners that had theirs |
| all of them crowded | a bound: they would have used more, so the average may fall by it and never rises |
| all together at 95 % or more | used up: no more users fit, so the average is at most the sample, at once |
| strained (late, throttled, crowded), half of the runners, two samples in a row | their users are a *ceiling* |
| strained below half of the target | no ceiling: this runner is not at its end, more of them would not help |
| strained while a runner is warming up | no ceiling: users are moving, nobody knows how many strained it |

A ceiling keeps a runner that the bursts within its quota hold up at 50 % of it from being filled up again as soon as it
has fewer users. It rises by 0.5 % a sample, 2 % a minute, and goes once the average is the lesser.

On a node whose CPUs others have, runners at half of the target or more get some beside them, which may stand elsewhere.
If they stand on the same node, each soon gets less than half of the target, and that was it. Nor do runners go there
because they look idle: what they could not do is in no utilisation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trafficsim_api.status import VersionScaling
from trafficsim_operator.observed import RunnerLoad

__all__ = ["full_milliusers", "milliusers_per_runner", "sampled"]

_YOUNG_MS: Final = 30_000
_COVERED_MS: Final = 7_500
_FULL: Final = 1000
_USED_UP: Final = 950
_WEIGHT: Final = 0.4
_MOST_SAMPLES: Final = 100
_CEILING_RISE: Final = 200


def full_milliusers(version: VersionScaling) -> int:
    """Return how many thousandths of a user take all of a runner: the average, or the ceiling; 0: not measured yet."""
    return min(version.milliusers, version.ceiling) if version.ceiling else version.milliusers


def milliusers_per_runner(version: VersionScaling, *, target: int, capacity: int) -> int:
    """
    Return u* in thousandths of a user, for a *target* in permille and the static *capacity*; 0: not measured yet.

    An average of 20 000 and a target of 700: 14 000. With a ceiling of 15 000: 10 500; with a capacity of 10: 10 000.
    """
    full = full_milliusers(version)
    return max(1, min(round(full * target / _FULL), capacity * 1000)) if full else 0


def sampled(version: VersionScaling, loads: Iterable[RunnerLoad], *, target: int, active: int = 0) -> VersionScaling:
    """
    Return *version* after one sample of *loads*, those of its runners; *target* is in permille.

    *active* are the users at work on all of them now; 0: some runner's load is not known.
    """
    own = [load for load in loads if load.revision == version.revision]
    if not own:
        return version.model_copy(update={"utilisation": 0, "strained": 0})
    found = {"utilisation": round(sum(load.utilisation for load in own) / len(own) / 10)}
    telling = [load for load in own if _tells(load, target)]
    if not telling:
        return version.model_copy(update=found | {"strained": 0})
    calm = [load for load in telling if not load.crowded]
    strained = [load for load in telling if load.strained and 2 * load.utilisation >= target]
    if 2 * len(strained) < len(telling):
        strained = []  # single runners on a bad node, or by chance
    is_moving = any(load.ready_ms < _YOUNG_MS for load in own)
    if not is_moving:
        found["strained"] = min(2, version.strained + 1) if strained else 0
    if not _is_used_up(telling) and 4 * active > 5 * sum(load.users for load in own):
        return version.model_copy(update=found)
    found |= _average(version, calm or telling, is_bound=not calm)
    found["ceiling"] = _ceiling(version, strained if found.get("strained") == 2 else [], found["milliusers"])
    return version.model_copy(update=found)


def _tells(load: RunnerLoad, target: int) -> bool:
    is_settled = load.ready_ms >= _YOUNG_MS and load.covered_ms >= _COVERED_MS
    return is_settled and load.users >= 1 and 10 * load.utilisation >= target


def _is_used_up(loads: list[RunnerLoad]) -> bool:
    return sum(load.utilisation for load in loads) >= _USED_UP * len(loads)


def _average(version: VersionScaling, loads: list[RunnerLoad], *, is_bound: bool) -> dict[str, int]:
    """
    Return the moving average after *loads*, and of how many samples it is made.

    *is_bound*: they would have used more than they got, so no runner carries more than they say, but for the first one.
    """
    users, used = sum(load.users for load in loads), sum(load.utilisation for load in loads)
    is_used_up = _is_used_up(loads)
    sample = max(1, round(users * _FULL * 1000 / (max(used, _FULL * len(loads)) if is_used_up else used)))
    samples = min(_MOST_SAMPLES, version.samples + 1)
    average = round(version.milliusers + max(_WEIGHT, 1 / samples) * (sample - version.milliusers))
    if is_bound and version.samples:
        average = min(average, version.milliusers)
    return {"milliusers": max(1, min(average, sample) if is_used_up else average), "samples": samples}


def _ceiling(version: VersionScaling, strained: list[RunnerLoad], average: int) -> int:
    """Return the ceiling, 0 for none: lowered to what *strained* runners have, else risen a little."""
    risen = version.ceiling + -(-version.ceiling // _CEILING_RISE)
    if strained:
        users = max(1, round(1000 * sum(load.users for load in strained) / len(strained)))
        risen = min(risen, users) if risen else users
    return risen if risen < average else 0
