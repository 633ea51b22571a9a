"""
Runners ahead of a ramp, on a real API server: from 400 to 2000 users in 60 s, on pods of 200m that carry at most 400.

Two runs, with prediction and without it. What the fullest runner has is asked of the runners three times a second, what
it carries stands in the status. With `--update` both are drawn into docs/scaling-ahead-measured.svg.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.conftest import Kubectl
from cluster.operator_stand import until
from cluster.rollout_stand import TESTS, Subject
from cluster.scaling_stand import BUSY, SMALL, a_subject
from driven.ramp_picture import Course, Moment, drawing
from trafficsim_api.units import parse_instant
from trafficsim_operator.testing import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.truth]

USERS: Final = 2000
CARRIES: Final = 400
HOLD_S: Final = 100
RAMP_S: Final = 60
AFTER_S: Final = 60
PICTURE: Final = TESTS.parent / "docs" / "scaling-ahead-measured.svg"
# A visit in some two seconds, of half a millisecond of CPU besides what a request takes: 400 users take some 140 of 200
# millicores. Fewer, longer visits would come together in a period of the quota and have it throttled.
VISITS: Final = [{"name": "COST_MS", "value": "0.5"}, {"name": "EVERY_S", "value": "2"}]
SPEC: Final[dict[str, Any]] = {
    "archetypes": BUSY,
    "runner": {**SMALL, "env": VISITS},
    "profile": [
        {"ramp": {"to": "20%", "over": "10s"}}, {"hold": {"for": f"{HOLD_S}s"}},
        {"ramp": {"to": "100%", "over": f"{RAMP_S}s"}}, {"hold": {"for": "1h"}},
    ],
}  # fmt: skip


@pytest.fixture
async def subject(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> AsyncIterator[Subject]:
    async with a_subject(control_plane, kubectl, namespace, tmp_path, users=USERS, runners=12) as found:
        yield found


async def a_ramp(subject: Subject, *, prediction: bool) -> Course:
    """Run it once, and return what became of it from 10 s before the ramp on."""
    title = "with prediction" if prediction else "without prediction"
    course = Course(title=title)
    name = subject.name = "ahead" if prediction else "behind"
    subject.users = USERS
    await subject.kube(
        "apply", "-f", "-", stdin=subject.a_file({}, **SPEC, users=USERS, scaling={"prediction": prediction})
    )
    found = await subject.until(lambda status: bool((status.get("run") or {}).get("origin")), "it begins")
    begin_s = parse_instant(found["run"]["origin"]) / 1000 + 10 + HOLD_S
    now_s = begin_s - 1000.0
    while now_s < begin_s + RAMP_S + AFTER_S:
        answers = [answer for answer in await subject.answers() if answer is not None and answer.active]
        status = await subject.status()
        now_s = time.time()
        version = ((status.get("scaling") or {}).get("versions") or [{}])[0]
        if now_s >= begin_s - 10 and answers:
            moment = Moment(
                at_s=now_s - begin_s,
                users=sum(answer.active for answer in answers),
                fullest=max(answer.active for answer in answers),
                carries=version.get("usersPerRunner", 0),
                runners=len(answers),
                wanted=version.get("wanted", 0),
            )
            course.moments.append(moment)
        await asyncio.sleep(0.3)
    print(course)
    await subject.kube("delete", "tsim", name, "--wait=false")
    await until(subject.answers, lambda answers: not answers, 60, f"{name} is gone")
    return course


@pytest.mark.timeout(900)
async def test_runners_are_there_when_the_users_come(subject: Subject, request: pytest.FixtureRequest) -> None:
    """
    With prediction no runner ever has more users than it carries, in a ramp from 400 to 2000 users in 60 s; without it
    one has, for as many seconds as are printed. All users come in both cases.
    """
    ahead = await a_ramp(subject, prediction=True)
    behind = await a_ramp(subject, prediction=False)
    for course in (ahead, behind):
        assert 0 < course.moments[0].carries <= CARRIES
        assert USERS <= course.moments[-1].users <= USERS + USERS // 10
    assert [] == [now for now in ahead.moments if now.is_over]
    assert behind.over_s > 0
    drawn = drawing([ahead, behind], RAMP_S, how="pods of 200m on a real API server")
    if request.config.getoption("--update"):
        await asyncio.to_thread(PICTURE.write_text, drawn)
