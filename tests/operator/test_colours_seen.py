"""One version as it is seen: whether its users are where they are to be, and when a cause is a crash of the version."""

from dataclasses import replace

import pytest

from trafficsim_api.protocol import Acknowledgement
from trafficsim_operator.observed import RevisionSeen, Runner, RunnerState
from trafficsim_operator.plan.colours import colour_of

RESTARTED = "Restarted: OOMKilled, exit code 137"
LOOPING = "CrashLoopBackOff: back-off (last end: Error, exit code 1)"


def a_runner(name: str, *, ready: bool = False, cause: str = "", problem: str = "") -> Runner:
    """Build a runner of r2; one that is *ready* is up and reaches the target."""
    ack = Acknowledgement(runner=name, boot=name, run=1, epoch=1, settled=ready, target="reachable", problem=problem)
    state = RunnerState.READY if ready else RunnerState.STARTING
    return Runner(
        name=name,
        uid=name,
        revision="r2",
        state=state,
        cause=cause,
        acknowledgement=ack,
        answered=ready or bool(problem),
    )


@pytest.mark.parametrize(
    ("causes", "ready", "cause", "crashed"),
    [
        ([RESTARTED], 1, RESTARTED, False),
        ([RESTARTED], 0, RESTARTED, True),
        (["Ended: Error, exit code 1"], 1, "Ended: Error, exit code 1", False),
        (["shop-2 exited with 1"], 1, "shop-2 exited with 1", False),
        (["shop-2 killed by SIGKILL"], 0, "shop-2 killed by SIGKILL", True),
        ([LOOPING], 1, LOOPING, True),
        (["ErrImagePull: no such image"], 1, "ErrImagePull: no such image", True),
        ([RESTARTED, LOOPING], 1, LOOPING, True),
        (["Unschedulable: no node has room"], 0, "Unschedulable: no node has room", False),
    ],
)
def test_one_restart_is_no_crash_of_a_version_that_has_other_runners(causes, ready, cause, crashed):
    """A loop or an image that can't be had is, however its other runners do; what is told is what it is judged by."""
    runners = [a_runner(f"bad-{number}", cause=text) for number, text in enumerate(causes)]
    runners += [a_runner(f"good-{number}", ready=True) for number in range(ready)]
    seen = colour_of(RevisionSeen(revision="r2", replicas=len(runners), runners=tuple(runners)), 1)
    assert (ready, cause, crashed) == (seen.ready, seen.cause, seen.crashed)


def test_a_worker_that_refuses_the_load_is_one():
    """The load is the same for all runners."""
    runners = (a_runner("good", ready=True), a_runner("bad", problem="worker 1: no module named shop"))
    assert colour_of(RevisionSeen(revision="r2", replicas=2, runners=runners), 1).crashed


@pytest.mark.parametrize(
    ("settled", "silent_ms", "seen"),
    [
        pytest.param(True, 5_000, True, id="it had said that they were on"),
        pytest.param(False, 5_000, False, id="they were not on when it was heard last"),
        pytest.param(False, 10_000, True, id="its word is waited for no longer"),
    ],
)
def test_a_runner_that_does_not_answer_is_as_settled_as_it_said_last(settled, silent_ms, seen):
    """Ten seconds long: no step is judged with users of whom it is not known whether they have begun."""
    runner = a_runner("quiet", ready=True)
    assert runner.acknowledgement is not None
    ack = runner.acknowledgement.model_copy(update={"settled": settled, "places": ((0, 3),), "users": 12})
    quiet = replace(runner, acknowledgement=ack, answered=False, silent_ms=silent_ms)
    found = colour_of(RevisionSeen(revision="r2", replicas=1, runners=(quiet,)), 1)
    assert (3, seen) == (found.held, found.settled)
