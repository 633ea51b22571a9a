"""`trafficsim promote`, `promote-full`, `skip-step`, `pause`, `resume`, `abort` and `retry`: a rollout by hand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import click

from trafficsim_api.errors import SpecError
from trafficsim_operator.cli.command import PATIENCE, Answered, InCluster, conclude, give
from trafficsim_operator.cli.faults import tells_faults
from trafficsim_operator.cli.objects import Place, Time, at_a_place, fault, run_at
from trafficsim_operator.cli.rollout_view import rollout_line, rollout_of

__all__ = ["abort", "pause", "promote", "promote_full", "resume", "retry", "skip_step"]

# A run on this machine looks once a second.
_PATIENCE_HERE: Final = timedelta(seconds=15)
_CODES: Final = """
\b
Exit codes: 0 done, 3 refused, or the cluster, the simulation or a time-out is at fault.
"""


def _command(action: str, *, help: str, examples: Sequence[str]) -> click.Command:
    """Return the command that gives *action* to the rollout that is on, in a cluster or on this machine."""

    @click.command(action, help=help, epilog="\b\nExamples:\n  " + "\n  ".join(examples) + "\n" + _CODES)
    @click.argument("name")
    @click.option("--local", is_flag=True, help="To the run of NAME that `trafficsim run` is at on this machine.")
    @click.option(
        "--history", metavar="FILE", help="With --local: the history that the run is kept in, if not the default one."
    )
    @click.option(
        "--timeout", type=Time(), help="How long to wait for the answer at most: 1m unless told, 15s with --local."
    )
    @at_a_place
    @tells_faults
    def command(
        name: str, local: bool, history: str | None, timeout: timedelta | None, as_json_: bool, **where: str | None
    ) -> int:
        place = Place(**where)
        if local:
            if place != Place():
                raise fault("--local: a run on this machine has no namespace, kubeconfig or context")
            # What runs here is no part of what a command to a cluster has to load.
            from trafficsim_operator.cli.here import give_here
            from trafficsim_operator.cli.run import history_at

            file = history_at(history, os.environ)  # noqa: TID251  # the shell: settings are read here
            return _conclude(give_here(file, name, action, timeout or _PATIENCE_HERE), name, as_json_)
        if history is not None:
            raise fault("--history: belongs to --local")

        async def in_cluster(api: Any, namespace: str) -> int:
            to = InCluster(api=api, namespace=namespace, name=name)
            return _conclude(await give(to, action, to_rollout=True, patience=timeout or PATIENCE), name, as_json_)

        try:
            return run_at(place, in_cluster)
        except SpecError as error:
            if place != Place():
                raise
            raise fault(f"{error}; a run on this machine is meant with --local") from error

    return command


def _conclude(answer: Answered, name: str, as_json_: bool) -> int:
    """Print the answer and how the rollout stands after it."""
    rollout = rollout_of(answer.status)
    stands = f"{name}: {rollout_line(rollout)}" if rollout is not None else ""
    return conclude(answer, name, as_json_, after=stands, rollout=answer.status.get("rollout"))


promote = _command(
    "promote",
    help="""
    Go on with a rollout that waits: after a step, for a decision, or for the promotion.

    A step that could not be decided passes by it. What `rollout.paused` of the spec holds goes on when that is false.
    """,
    examples=("trafficsim promote shop -n shop", "trafficsim promote shop --local"),
)
promote_full = _command(
    "promote-full",
    help="Give all users to the new version at once and promote it, without judging it any further.",
    examples=("trafficsim promote-full shop -n shop", "trafficsim promote-full shop --local"),
)
skip_step = _command(
    "skip-step",
    help="Pass the present step of a rollout without judging it.",
    examples=("trafficsim skip-step shop -n shop", "trafficsim skip-step shop --json | jq .rollout.step"),
)
pause = _command(
    "pause",
    help="Hold a rollout where it is: both versions keep the users they have, and its clock stands.",
    examples=("trafficsim pause shop -n shop", "trafficsim pause shop && trafficsim watch shop"),
)
resume = _command(
    "resume",
    help="""
    End a pause; a step that could not be decided is judged anew.

    The promotion is accepted by `promote`. What `rollout.paused` of the spec holds goes on when that is false.
    """,
    examples=("trafficsim resume shop -n shop", "trafficsim resume shop --local --history runs.db"),
)
abort = _command(
    "abort",
    help="""
    Give all users back to the version before, and reject the new one.

    It is not tried again until the spec asks for another version or for `retry`.
    """,
    examples=("trafficsim abort shop -n shop", "trafficsim abort shop --local"),
)
retry = _command(
    "retry",
    help="Try a rejected version once more, from the first step, by the steps and limits that the spec has now.",
    examples=("trafficsim retry shop -n shop", "trafficsim retry shop && trafficsim watch shop"),
)
