"""A rollout at the command line: what is shown of it, the commands to it, and what is said when they can't be done."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_api.phases import Phase
from trafficsim_api.rollout import PauseReason, RolloutPhase
from trafficsim_api.status import (
    ColourFigures,
    ColourStatus,
    LastCommand,
    PlannedStep,
    Revision,
    RolloutPlan,
    RolloutStatus,
    RolloutWindow,
    RuleStatus,
    Status,
)
from trafficsim_operator.cli.command import give
from trafficsim_operator.cli.main import trafficsim
from trafficsim_operator.cli.rollout_view import rolled_out, rolled_out_lines, rollout_line, rollout_of, rollout_panel
from trafficsim_operator.cli.simulation_view import line, panel, table
from trafficsim_operator.local import RolledOut
from trafficsim_operator.reconcile import read
from trafficsim_operator.store import Document
from trafficsim_operator.store.sqlite import SqliteRecord

COMMANDS = ("promote", "promote-full", "skip-step", "pause", "resume", "abort", "retry")
BLUE = Revision(revision="aaaa1111", image="registry.example.com/shop-runner:1.2", runner={})
GREEN = Revision(revision="bbbb2222", image="registry.example.com/shop-runner:1.3", runner={})
WINDOW = RolloutWindow(
    number=3,
    blue=ColourFigures(requests=1200, error_rate="0.4%", success="100%", p95="41ms"),
    green=ColourFigures(requests=130, error_rate="9.1%", success="90.9%", p95="43ms"),
)


def a_plan(**changes: Any) -> RolloutPlan:
    steps = tuple(PlannedStep(percent=percent, dwell_ms=30_000) for percent in (10, 25, 50, 75, 100))
    values: dict[str, Any] = {
        "steps": steps, "max_dwell_ms": 600_000, "max_error_rate": 500, "max_p95_ms": 5000, "min_success_rate": 9500,
        "on_failure": "rollback", "comparison": "absolute", "auto_promote": True, "scale_down_ms": 60_000,
        "abort_scale_down_ms": 300_000, "warm_up_ms": 10_000, "window_ms": 5000, "min_samples": 500,
        "deadline_ms": 300_000,
    }  # fmt: skip
    return RolloutPlan(**{**values, **changes})


def a_rollout(phase: RolloutPhase = RolloutPhase.ANALYZING, **changes: Any) -> RolloutStatus:
    values: dict[str, Any] = {
        "phase": phase, "attempt": 2, "plan": a_plan(), "step": 1, "percent": 25, "effective_percent": 25,
        "message": "25%: 430 of 500 requests",
        "blue": ColourStatus(users=225, active=224, runners=2, ready=2),
        "green": ColourStatus(users=75, active=75, runners=1, ready=1),
        "windows": (WINDOW,),
    }  # fmt: skip
    return RolloutStatus(**{**values, **changes})


def a_status(rollout: RolloutStatus | None = None, **changes: Any) -> Status:
    values = {"phase": Phase.RUNNING, "stable": BLUE, "candidate": GREEN, "rollout": rollout or a_rollout()}
    return Status(**{**values, **changes})


def an_object(status: Status | None) -> dict[str, Any]:
    """As the API server gives it."""
    meta = {"namespace": "shop", "name": "web", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    found = status.model_dump(mode="json", by_alias=True, exclude_none=True) if status is not None else {}
    return {"metadata": meta, "status": found}


def printed(renderable: Any, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def line_of(rollout: RolloutStatus, **changes: Any) -> str:
    rolled = rollout_of(a_status(rollout, **changes))
    assert rolled is not None
    return rollout_line(rolled)


def panel_of(rollout: RolloutStatus, **changes: Any) -> str:
    rolled = rollout_of(a_status(rollout, **changes))
    assert rolled is not None
    return printed(rollout_panel(rolled))


def test_a_line_says_step_weight_both_versions_and_what_it_waits_for() -> None:
    assert (
        "rollout 2 Analyzing  step 2 of 5, 25%  blue 1.2 224/225 on 2/2  green 1.3 75/75 on 1/1  "
        "25%: 430 of 500 requests"
    ) == line_of(a_rollout())


def test_the_weight_is_told_as_whole_users_make_it() -> None:
    assert "step 2 of 5, 25% (33% in whole users)" in line_of(a_rollout(effective_percent=33))


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        pytest.param(
            a_rollout(pause=PauseReason.STEP, message="25% is passed, it waits for promote"),
            "paused (PausedAfterStep): 25% is passed, it waits for promote",
            id="a pause and its reason",
        ),
        pytest.param(
            a_rollout(suspended_at="2026-01-01T00:00:00.000Z", message="the simulation is suspended"),
            "suspended: the simulation is suspended",
            id="the simulation is suspended",
        ),
        pytest.param(
            a_rollout(RolloutPhase.RETIRING, message="1.3 is promoted", scale_down_at="2026-01-01T10:20:30.000Z"),
            "1.3 is promoted until 10:20:30 UTC",
            id="the old version is kept for a while",
        ),
        pytest.param(
            a_rollout(
                RolloutPhase.REJECTED,
                message="rejected at 25%: p95 6s",
                scale_down_at="2026-01-01T10:20:30.000Z",
            ),
            "rejected at 25%: p95 6s; its runners are kept until 10:20:30 UTC",
            id="a rejected version is kept for its logs",
        ),
        pytest.param(
            a_rollout(pause=PauseReason.COMMAND, message="paused by command, it waits for resume"),
            "on 1/1  paused by command, it waits for resume",
            id="a pause that says so itself",
        ),
    ],
)
def test_why_it_waits(rollout: RolloutStatus, said: str) -> None:
    assert said in line_of(rollout)


def test_a_rollout_that_is_over_leaves_its_outcome_in_the_panel_alone() -> None:
    over = a_rollout(RolloutPhase.STABLE, message="bbbb2222 is promoted; aaaa1111 is kept for the way back")
    assert "rollout 2  Stable  bbbb2222 is promoted" == panel_of(over).strip()
    status = a_status(over, message="all is well")
    assert "rollout" not in line(an_object(status))
    assert "all is well" in line(an_object(status))


def test_before_the_first_rollout_there_is_none() -> None:
    assert rollout_of(a_status(RolloutStatus())) is None
    assert rollout_of({}) is None
    assert "rollout" not in printed(panel(an_object(None)))


def test_the_panel_shows_both_versions_side_by_side() -> None:
    text = panel_of(
        a_rollout(plan=a_plan(note="joined with the next step: 10% (about 80 of 500 requests in maxDwell)"))
    )
    rows = [words(row) for row in text.splitlines()]
    assert "rollout 2 Analyzing step 2 of 5, 25%" == rows[0]
    assert "25%: 430 of 500 requests" == rows[1]
    assert 30 * "█" + 10 * "█" == rows[2]
    assert [
        "version users active ready",
        "■ blue 1.2 225 224 2 of 2",
        "■ green 1.3 75 75 1 of 1",
        "window blue requests errors success p95 green requests errors success p95",
        "3 1 200 0.4% 100% 41ms 130 9.1% 90.9% 43ms",
        "joined with the next step: 10% (about 80 of 500 requests in maxDwell)",
    ] == rows[3:]


@pytest.mark.parametrize(("height", "windows"), [(60, 5), (24, 5), (21, 3), (18, 0), (10, 0)])
def test_a_low_terminal_has_fewer_windows(height: int, windows: int) -> None:
    """What is cut off at the bottom would be what the rollout waits for, and the rules."""
    rollout = a_rollout(windows=tuple(WINDOW.model_copy(update={"number": number}) for number in range(1, 11)))
    text = printed(
        panel(an_object(a_status(rollout, rules=(RuleStatus(rule="p95 < 1s"),) if height == 24 else ())), height)
    )
    rows = [row for row in text.splitlines() if "41ms" in row]
    assert [str(number) for number in range(11 - windows, 11)] == [row.split()[0] for row in rows]
    if height >= 18:
        assert len(text.splitlines()) <= height


@pytest.mark.parametrize(
    ("blue", "green", "drawn"),
    [
        pytest.param((100, 100), (0, 0), 40 * "█", id="green has none"),
        pytest.param((999, 999), (1, 1), 40 * "█", id="one of many is seen"),
        pytest.param((0, 0), (10, 10), 40 * "█", id="green has all"),
        pytest.param((5, 10), (5, 10), 20 * "█" + 20 * "░", id="half of them are not at work yet"),
        pytest.param((0, 0), (0, 0), 40 * "░", id="nobody"),
    ],
)
def test_the_bar_is_as_long_as_the_users_are_many(blue: tuple[int, int], green: tuple[int, int], drawn: str) -> None:
    shares = [ColourStatus(active=active, users=users) for active, users in (blue, green)]
    assert drawn in panel_of(a_rollout(blue=shares[0], green=shares[1]))


def test_the_bar_never_hides_a_version() -> None:
    """One user of a thousand is a cell of green; one left of a thousand a cell of blue."""
    for blue, green, cells in ((999, 1, "\x1b[34m" + 39 * "█"), (1, 999, "\x1b[34m█")):
        rollout = a_rollout(blue=ColourStatus(active=blue, users=blue), green=ColourStatus(active=green, users=green))
        rolled = rollout_of(a_status(rollout))
        assert rolled is not None
        out = io.StringIO()
        Console(file=out, width=120, force_terminal=True, color_system="standard").print(rollout_panel(rolled))
        bar = next(row for row in out.getvalue().splitlines() if "█" in row)
        assert bar.startswith(cells + "\x1b[0m\x1b[32m█")


def test_after_the_promotion_the_colours_stay_those_of_the_rollout() -> None:
    """Green is the stable version then, blue the one before."""
    status = {"stable": GREEN, "candidate": None, "previous": BLUE}
    text = line_of(a_rollout(RolloutPhase.RETIRING), **status)
    assert "blue 1.2" in text
    assert "green 1.3" in text


def test_versions_of_one_image_are_told_apart_by_their_hashes() -> None:
    text = line_of(a_rollout(), candidate=GREEN.model_copy(update={"image": BLUE.image}))
    assert "blue 1.2 (aaaa1111) " in text
    assert "green 1.2 (bbbb2222) " in text


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("registry.example.com:5000/shop-runner:1.2", "1.2"),
        ("registry.example.com:5000/shop-runner", "aaaa1111"),
        ("shop-runner:1.2@sha256:00", "1.2"),
        ("", "aaaa1111"),
    ],
)
def test_what_a_version_is_called(image: str, label: str) -> None:
    assert label == BLUE.model_copy(update={"image": image}).label


def test_names_and_messages_are_no_markup() -> None:
    text = panel_of(a_rollout(message="step [red]1[/red] waits [/x]"))
    assert "step [red]1[/red] waits [/x]" in text


def test_the_table_has_kubectls_wide_columns_while_a_rollout_is_on() -> None:
    head, row = printed(table([an_object(a_status())]), 200).strip().splitlines()
    assert head.split()[-4:] == ["STEP", "WEIGHT", "STABLE", "CANDIDATE"]
    assert row.split()[-4:] == ["2/5", "25%", "1.2", "1.3"]
    over = a_status(a_rollout(RolloutPhase.STABLE))
    assert "STEP" not in printed(table([an_object(over)]), 200)
    both = printed(table([an_object(over), an_object(a_status(a_rollout(RolloutPhase.REJECTED)))]), 200).splitlines()
    assert ["1.2", "1.3"] == both[2].split()[-2:]
    assert "Rejected" in both[2]


def test_the_same_message_is_not_told_twice() -> None:
    rollout = a_rollout(message="75 of 75 users are at 1.3")
    status = a_status(rollout, message="75 of 75 users are at 1.3")
    assert 1 == line(an_object(status)).count("75 of 75 users are at 1.3")
    assert 1 == printed(panel(an_object(status))).count("75 of 75 users are at 1.3")


def test_what_the_rollouts_of_a_run_came_to() -> None:
    message = "rejected at 25%: error_rate 9.1% (blue 0.4%), n=812"
    rejected = RolledOut(
        blue=BLUE, green=GREEN, rollout=a_rollout(RolloutPhase.REJECTED, reason="AnalysisFailed", message=message)
    )
    done = RolledOut(
        blue=BLUE,
        green=GREEN,
        rollout=a_rollout(RolloutPhase.STABLE, message="bbbb2222 is promoted; aaaa1111 is kept for the way back"),
    )
    assert ["1.2 → 1.3: bbbb2222 is promoted"] == list(rolled_out_lines((done,)))
    cut = RolledOut(blue=BLUE, green=GREEN, rollout=a_rollout(RolloutPhase.SHIFTING, attempt=3, message="7 of 8"))
    assert [f"1.2 → 1.3: {message}", "1.2 → 1.3: Shifting when the run ended: 7 of 8"] == list(
        rolled_out_lines((rejected, cut))
    )
    going = "the spec asks for cccc3333: all users go back to aaaa1111 first · 30 of 30 users are at aaaa1111"
    third = RolledOut(blue=BLUE, green=GREEN, rollout=a_rollout(RolloutPhase.SUPERSEDING, message=going))
    assert ["1.2 → 1.3: the spec asks for cccc3333", f"1.2 → 1.3: {message}"] == rolled_out_lines((third, rejected))
    assert ["the spec asks for cccc3333", message] == [it["message"] for it in rolled_out((third, rejected))]
    assert [f"1.2 → 1.3: Superseding when the run ended: {going}"] == rolled_out_lines((third,))
    assert {
        "from": "1.2", "to": "1.3", "attempt": 2, "phase": "Rejected", "reason": "AnalysisFailed", "message": message,
    } == rolled_out((rejected,))[0]  # fmt: skip


# The commands.


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    result = CliRunner().invoke(trafficsim, [command, "--help"])
    assert 0 == result.exit_code
    assert f"trafficsim {command} shop -n shop" in result.output
    assert "Exit codes: 0 done, 3 refused" in words(result.output)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_cluster_is_the_environments_fault(command: str, tmp_path: Path) -> None:
    """One sentence, exit 3, no traceback."""
    result = CliRunner().invoke(trafficsim, [command, "web", "--kubeconfig", str(tmp_path / "missing")])
    assert 3 == result.exit_code
    assert "no way to a cluster" in result.output
    assert "Traceback" not in result.output
    assert "--local" not in result.output


def test_who_forgets_local_is_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> int:
        raise SpecError(Problem(field="", reason="no way to a cluster (the default kubeconfig)"))

    monkeypatch.setattr("trafficsim_operator.cli.rollout.run_at", nowhere)
    result = CliRunner().invoke(trafficsim, ["pause", "web"])
    assert 3 == result.exit_code
    assert "no way to a cluster (the default kubeconfig); a run on this machine is meant with --local" in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--local", "-n", "shop"), "--local: a run on this machine has no namespace"),
        (("--history", "x.db"), "--history: belongs to --local"),
        (("--local", "--history", "none"), "there is no history on this machine"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(trafficsim, ["pause", "web", *options])
    assert 3 == result.exit_code
    assert said in result.output


class Answering:
    """A simulation whose operator answers a command at the second look, by *answer*."""

    name = "web"
    unanswered = "is the operator running?"

    def __init__(self, answer: Callable[[dict[str, Any]], LastCommand | None], attempt: int | None = 2) -> None:
        self._answer = answer
        rollout = a_rollout(attempt=attempt) if attempt is not None else None
        self.status = Status(phase=Phase.RUNNING, stable=BLUE, candidate=GREEN, rollout=rollout)
        self.given: dict[str, Any] = {}

    async def read(self) -> dict[str, Any]:
        return an_object(self.status)

    async def annotate(self, annotations: Any) -> None:
        self.given = json.loads(annotations[COMMAND_ANNOTATION])

    async def looks(self) -> Any:
        for last in (None, self._answer(self.given)):
            found = an_object(self.status.model_copy(update={"last_command": last}))
            found["metadata"]["annotations"] = {COMMAND_ANNOTATION: json.dumps(self.given)}
            yield found
        await asyncio.Event().wait()


def answered(result: str, reason: str = "") -> Callable[[dict[str, Any]], LastCommand]:
    return lambda given: LastCommand(id=given["id"], action=given["action"], result=result, reason=reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(("attempt", "named"), [(2, 2), (None, 0)])
async def test_a_command_names_the_attempt_it_is_meant_for(attempt: int | None, named: int) -> None:
    """Before the first one that is 0: a command that comes late cannot hit the rollout that began meanwhile."""
    to = Answering(answered("Done"), attempt)
    answer = await give(to, "pause", to_rollout=True)
    assert ("pause", "Done", "") == (answer.action, answer.result, answer.reason)
    assert {"id", "action", "attempt"} == set(to.given)
    assert named == to.given["attempt"]


async def test_a_refusal_comes_in_the_operators_words() -> None:
    answer = await give(Answering(answered("Refused", "it is not paused")), "resume", to_rollout=True)
    assert ("Refused", "it is not paused") == (answer.result, answer.reason)


async def test_no_answer_is_told_with_what_may_be_wrong() -> None:
    to = Answering(lambda _: None)
    with pytest.raises(SpecError, match="no answer to abort within 200ms: is the operator running"):
        await give(to, "abort", to_rollout=True, patience=timedelta(milliseconds=200))


async def test_another_command_in_between_is_told() -> None:
    """Whether the first one was still seen nobody knows."""

    class Overtaken(Answering):
        async def looks(self) -> Any:
            self.given = {"id": "another", "action": "abort"}
            async for found in super().looks():
                yield found

    with pytest.raises(SpecError, match="another command was given to web meanwhile; whether pause was done is open"):
        await give(Overtaken(answered("Done")), "pause", to_rollout=True)


# Commands to a run on this machine.


def body(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "web", **metadata},
        "spec": {"users": 10},
    }


class Operating:
    """A run of `web` in *history*, on a thread of its own: it answers the first command it sees, then goes on."""

    def __init__(self, history: Path, result: str = "Done", reason: str = "", ends: bool = False) -> None:
        self.history, self.result, self.reason, self.ends = history, result, reason, ends
        self.given: dict[str, Any] = {}
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Operating:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        async with SqliteRecord(self.history, now_ms=lambda: 1_700_000_000_000) as record:
            await record.put(body(), namespace="local", name="web", uid="one")
            document = await record.read("local", "web")
            assert document is not None
            await record.write(document, a_status())
            self._ready.set()
            while not self._over.is_set():
                await asyncio.sleep(0.02)
                document = await record.read("local", "web")
                assert document is not None
                text = (document.body["metadata"].get("annotations") or {}).get(COMMAND_ANNOTATION)
                if text is None or self.given:
                    continue
                self.given = json.loads(text)
                last = LastCommand(
                    id=self.given["id"],
                    action=self.given["action"],
                    result=self.result,
                    reason=self.reason,  # type: ignore[arg-type]
                )
                over = {"phase": Phase.COMPLETED} if self.ends else {"last_command": last}
                await record.write(document, a_status().model_copy(update=over))


def invoke(history: Path, command: str, *options: str) -> Result:
    return CliRunner().invoke(trafficsim, [command, "web", "--local", "--history", str(history), *options])


def test_a_command_reaches_a_run_on_this_machine_by_its_history(tmp_path: Path) -> None:
    with Operating(tmp_path / "history.db") as run:
        result = invoke(run.history, "skip-step")
    assert 0 == result.exit_code
    assert ["web: skip-step done", "web: rollout 2 Analyzing"] == [
        row.partition("  ")[0] for row in result.output.splitlines()
    ]
    assert ("skip-step", 2) == (run.given["action"], run.given["attempt"])


def test_a_refusal_is_exit_code_3(tmp_path: Path) -> None:
    with Operating(tmp_path / "history.db", "Refused", "it is not paused") as run:
        result = invoke(run.history, "resume")
    assert 3 == result.exit_code
    assert "web: resume refused: it is not paused" in result.output


def test_json_has_the_answer_and_the_rollout(tmp_path: Path) -> None:
    with Operating(tmp_path / "history.db") as run:
        result = invoke(run.history, "pause", "--json")
    document = json.loads(result.output)
    assert ("pause", "Done", "", 0) == tuple(document[key] for key in ("command", "result", "reason", "exit"))
    assert ("Analyzing", 2) == (document["rollout"]["phase"], document["rollout"]["attempt"])


def test_a_run_that_ends_meanwhile_is_told(tmp_path: Path) -> None:
    with Operating(tmp_path / "history.db", ends=True) as run:
        result = invoke(run.history, "pause")
    assert 3 == result.exit_code
    assert "the run of web has ended" in result.output


async def test_only_a_run_that_goes_on_is_found(tmp_path: Path) -> None:
    async with SqliteRecord(tmp_path / "history.db", now_ms=lambda: 1) as record:
        await record.put(body(), namespace="local", name="web", uid="one")
        await record.finish("one", verdict="Passed", reason="", report={})
        assert not await record.adopt("local", "web")
        assert not await record.adopt("local", "another")
        await record.put(body(), namespace="local", name="web", uid="two")
        await record.put(body(), namespace="local", name="web", uid="three")
        assert await record.adopt("local", "web")
        document = await record.read("local", "web")
        assert document is not None
        assert "three" == document.uid


def test_no_such_run_is_told(tmp_path: Path) -> None:
    async def make() -> None:
        async with SqliteRecord(tmp_path / "history.db", now_ms=lambda: 1):
            pass

    asyncio.run(make())
    result = invoke(tmp_path / "history.db", "pause")
    assert 3 == result.exit_code
    assert "no run of web is going on that is kept in this history" in result.output
    missing = invoke(tmp_path / "missing.db", "pause")
    assert 3 == missing.exit_code
    assert f"there is no history at {tmp_path / 'missing.db'}" in missing.output


async def test_a_command_stays_with_the_object_when_its_spec_is_edited(tmp_path: Path) -> None:
    """As with kubectl apply: an edit that has no command takes none away; the generation counts specs only."""
    async with SqliteRecord(tmp_path / "history.db", now_ms=lambda: 1) as record:
        await record.put(body(annotations={"a": "b"}), namespace="local", name="web", uid="one")
        before = await record.read("local", "web")
        await record.annotate("local", "web", {COMMAND_ANNOTATION: '{"id": "1"}'})
        given = await record.read("local", "web")
        assert before is not None
        assert given is not None
        assert {"a": "b", COMMAND_ANNOTATION: '{"id": "1"}'} == given.body["metadata"]["annotations"]
        assert (1, True) == (given.generation, given.version != before.version)
        edited = {**body(), "spec": {"users": 20}}
        await record.put(edited, namespace="local", name="web", uid="one")
        after = await record.read("local", "web")
        assert after is not None
        assert {COMMAND_ANNOTATION: '{"id": "1"}'} == after.body["metadata"]["annotations"]
        assert (2, {"users": 20}) == (after.generation, after.body["spec"])
        await record.put(
            body(annotations={COMMAND_ANNOTATION: '{"id": "2"}'}), namespace="local", name="web", uid="one"
        )
        newer = await record.read("local", "web")
        assert newer is not None
        assert {COMMAND_ANNOTATION: '{"id": "2"}'} == newer.body["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("annotations", "problem"),
    [
        ({COMMAND_ANNOTATION: {"id": "1", "action": "pause"}}, "trafficsim.io/command: text is needed, in quotes"),
        ({COMMAND_ANNOTATION: "pause"}, 'a JSON object {"id", "action"} is needed'),
        ({COMMAND_ANNOTATION: ""}, None),
        (["pause"], None),
        (None, None),
    ],
)
def test_a_file_may_hold_anything_for_a_command(annotations: Any, problem: str | None) -> None:
    """An API server takes text only; what a file on this machine has beside it is answered, or is no command."""
    document = Document(
        namespace="local", name="web", uid="one", generation=1, version="1", body=body(annotations=annotations)
    )
    command = read(document).command
    assert problem == (command.problem if command is not None else None)
