"""What a run looks like at a terminal, in a pipe, and at its end."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from trafficsim_api.data import Feeder
from trafficsim_api.document import load_spec
from trafficsim_api.histogram import upper_edge
from trafficsim_api.layout import Layout
from trafficsim_api.phases import Phase, Verdict
from trafficsim_api.problems import read
from trafficsim_api.rules import parse_rule
from trafficsim_api.statistics import zeros
from trafficsim_api.status import Barrier, RuleStatus, Run, Runners, SizingTerms, Status, Users
from trafficsim_operator.cli import figures
from trafficsim_operator.cli.live import LineView, LiveView, line
from trafficsim_operator.cli.simulation_view import panel
from trafficsim_operator.cli.summary import document_of, print_summary
from trafficsim_operator.local import Frame, Outcome
from trafficsim_operator.observed import Evidence, RowsSeen
from trafficsim_operator.plan.numbers import value_of
from trafficsim_operator.plan.report import Report, report

ORIGIN_MS = 1_700_000_000_000


def a_frame(elapsed_s: float = 30, phase: Phase = Phase.RUNNING, **status: Any) -> Frame:
    body = {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop"},
        "spec": {
            "target": {"url": "http://127.0.0.1:8080"},
            "users": 60,
            "duration": "1m",
            "archetypes": [{"name": "a", "flow": [{"request": {"get": "/"}}]}],
        },
    }
    values: dict[str, Any] = {
        "phase": phase,
        "run": Run(id=1, phase_since="2023-11-14T22:13:20.000Z", origin="2023-11-14T22:13:20.000Z"),
        "tier": "small",
        "strategy": "process_pool",
        "users": Users(target=60, wanted=60, active=59),
        "runners": Runners(wanted=1, ready=1),
        "sizing": SizingTerms(processes=2),
        "rules": (RuleStatus(rule="p95 < 250ms", value="36ms", holds="True", samples=1200),),
    }
    evidence = Evidence(
        requests=12345, failed=3, rps=211.34, error_rate=0.0002, p50=12_000_000, p95=36_000_000, p99=110_000_000
    )
    return Frame(
        name="shop", spec=load_spec(body).spec, status=Status(**{**values, **status}), evidence=evidence,
        now_ms=ORIGIN_MS + int(elapsed_s * 1000),
    )  # fmt: skip


def a_console(terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=100, height=30, legacy_windows=False), out


def test_a_line_says_how_the_run_stands() -> None:
    console, out = a_console(terminal=False)
    LineView(console).show(a_frame())
    assert (
        "00:30  Running    users 59/60  211.3 requests/s  p50 12 ms  p95 36 ms  p99 110 ms  errors 0.02 %  "
        "12 345 requests\n"
    ) == out.getvalue()


def test_lines_come_every_five_seconds_and_with_every_phase() -> None:
    console, out = a_console(terminal=False)
    view = LineView(console)
    for elapsed_s in range(30, 42):
        view.show(a_frame(elapsed_s))
    view.show(a_frame(42, Phase.DRAINING))
    view.show(a_frame(43, Phase.COMPLETED))
    assert ["00:30", "00:35", "00:40", "00:42"] == [line[:5] for line in out.getvalue().splitlines()]


def test_a_waiting_run_says_what_it_waits_for() -> None:
    console, out = a_console(terminal=False)
    LineView(console).show(a_frame(0, Phase.PREFLIGHT, message="0 of 1 runners are ready\nand more", run=None))
    assert "00:00  Preflight  0 of 1 runners are ready\n" == out.getvalue()


def test_what_a_runner_says_is_printed_as_it_is() -> None:
    """Brackets in a message are no markup: neither swallowed nor a mistake of ours."""
    console, out = a_console(terminal=False)
    LineView(console).show(a_frame(0, Phase.STARTING, message="shop.flows: [red] or [/users]?", run=None))
    assert "00:00  Starting   shop.flows: [red] or [/users]?\n" == out.getvalue()


def test_the_live_view_shows_phase_progress_figures_and_rules() -> None:
    console, out = a_console(terminal=True)
    view = LiveView(console)
    view.note("edit taken over as generation 2: users: 10 → 60")
    view.show(a_frame())
    view.close()
    text = out.getvalue()
    for seen in (
        "edit taken over", "shop", "Running", "00:30 of 01:00", "59 active of 60 wanted", "12 345", "211.3/s",
        "p95 36 ms", "p95 < 250ms", "36ms", "✓",
    ):  # fmt: skip
        assert seen in text


def test_without_users_the_live_view_tells_of_runners_alone() -> None:
    console, out = a_console(terminal=True)
    view = LiveView(console)
    view.show(a_frame(tier="", strategy="", sizing=SizingTerms()))
    view.close()
    assert "1 of 1 runners ready" in out.getvalue()
    assert "()" not in out.getvalue()
    assert "0 processes" not in out.getvalue()


def test_saturation_is_seen_while_it_happens() -> None:
    console, out = a_console(terminal=True)
    frame = a_frame()
    view = LiveView(console)
    view.show(replace(frame, evidence=Evidence(saturated="runner shop-1 in window 3: CPU 97 %")))
    view.close()
    assert "The generator is saturated: runner shop-1 in window 3" in out.getvalue()


def test_notes_are_not_read_as_markup() -> None:
    console, out = a_console(terminal=False)
    LineView(console).note("edit ignored: archetypes[0].flow[red]: unknown", warning=True)
    assert "! edit ignored: archetypes[0].flow[red]: unknown\n" == out.getvalue()


def a_report(**counts: int) -> Report:
    layout = Layout(actions=(("login", "auth"),))
    whole = zeros(layout)
    for name, number in counts.items():
        whole[layout.worker(name) if name.startswith(("drop", "worker")) else layout.action(0, name)] = number
    if "done" in counts:
        whole[layout.response(0) + 2000] = whole[layout.service(0) + 2000] = counts["done"]
    return report(layout, whole, zeros(layout), ())


def summary_of(outcome: Outcome) -> str:
    console, out = a_console(terminal=False)
    print_summary(outcome, console)
    return out.getvalue()


def an_outcome(**changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "frame": a_frame(60, Phase.COMPLETED),
        "report": a_report(
            done=1000, failed=20, checks=1000, checks_failed=30, error_network_reset=20, drop_template=4
        ),
        "exit": 0,
        "verdict": Verdict.PASSED,
        "reason": "1 of 1 rules hold",
        "runners": 1,
    }
    return Outcome(**{**values, **changes})


def test_the_summary_names_verdict_rules_actions_errors_and_drops() -> None:
    text = summary_of(an_outcome())
    for seen in (
        "Passed  shop  1 of 1 rules hold", "✓  p95 < 250ms", "login", "1 000", "20.0", "2.00 %", "30 of 1 000 missed",
        "errors    network_reset 20", "not sent  template 4", "1 000 requests by 60 users in 01:00",
    ):  # fmt: skip
        assert seen in text


def test_names_are_printed_as_they_are() -> None:
    """An action is called after its path, and a rule may name it: brackets in it are no markup."""
    layout = Layout(actions=(("GET /filter[/id]", "user"),))
    whole = zeros(layout)
    whole[layout.action(0, "done")] = whole[layout.response(0) + 2000] = 500
    rule = RuleStatus(rule="p95(GET /filter[/id]) < 1s", value="2ms", holds="True", samples=500)
    frame = a_frame(60, rules=(rule,))
    text = summary_of(an_outcome(frame=frame, report=report(layout, whole, zeros(layout), ())))
    assert "\nGET /filter[/id]  500" in text
    console, out = a_console(terminal=True)
    view = LiveView(console)
    view.show(frame)
    view.close()
    assert rule.rule in out.getvalue()
    console, out = a_console(terminal=False)
    status = frame.status.model_dump(mode="json", by_alias=True)
    console.print(panel({"metadata": {"namespace": "n", "name": "shop"}, "status": status}))
    assert rule.rule in out.getvalue()


def test_a_narrow_terminal_goes_without_columns_and_cuts_none() -> None:
    layout = Layout(actions=(("GET /users/{{user.id}}", "user"),))
    whole = zeros(layout)
    whole[layout.action(0, "done")] = whole[layout.action(0, "checks")] = 5000
    whole[layout.action(0, "checks_failed")] = 5000
    whole[layout.response(0) + 2000], whole[layout.service(0) + 1800] = 5000, 5000
    outcome = an_outcome(report=report(layout, whole, zeros(layout), ()))
    wide, narrow = io.StringIO(), io.StringIO()
    print_summary(outcome, Console(file=wide, width=160))
    print_summary(outcome, Console(file=narrow, width=80))
    (head,) = (line for line in wide.getvalue().splitlines() if line.startswith("action"))
    assert ["action", "n", "per", "s", "p50", "p95", "p99", "p95", "service", "max", "errors", "checks"] == head.split()
    text = narrow.getvalue()
    assert "…" not in text
    for seen in ("p95", "p99", "GET /users/{{user.id}}", "5 000 of 5 000 missed"):
        assert seen in text
    assert "service" not in text


def test_the_table_tells_of_what_is_judged() -> None:
    """The slowest and the quickest answer came in the warm-up: the table is without, as a rule on `max` is."""
    layout = Layout(actions=(("login", "auth"), ("logout", "auth")))
    warm, judged = zeros(layout), zeros(layout)
    for bucket, count in ((500, 1), (4000, 50)):
        warm[layout.response(0) + bucket] = count
    for bucket, count in ((1000, 1), (2000, 98), (3000, 1)):
        judged[layout.response(0) + bucket] = count
    warm[layout.action(0, "done")], judged[layout.action(0, "done")] = 51, 100
    found = report(layout, warm + judged, warm, ())
    row = found.actions[0]
    assert (upper_edge(1000), upper_edge(2000), upper_edge(3000)) == (row.least, row.p99, row.most)
    for rule, told in (("min < 1s", row.least), ("p99 < 1s", row.p99), ("max < 1s", row.most)):
        assert told == value_of(parse_rule(rule), layout, judged, seconds=1), rule
    assert (None, None) == (found.actions[1].least, found.actions[1].most)
    out = io.StringIO()
    print_summary(an_outcome(report=found), Console(file=out, width=160))
    (line,) = (line for line in out.getvalue().splitlines() if line.startswith("login"))
    assert f"{figures.duration_ns(upper_edge(3000))}  0.00 %" in line


def test_a_run_that_never_began_took_no_rows() -> None:
    """What its feeders and pools hold is nobody's interest when nothing was asked."""
    frame = a_frame(0, Phase.FAILED)
    feeder = {"name": "a", "mode": "unique", "from": {"inline": [{"word": "x"}]}}
    spec = frame.spec.model_copy(update={"data": (read(Feeder, feeder),)})
    outcome = an_outcome(
        frame=replace(frame, spec=spec), verdict=None, exit=3, reason="nothing listens there", report=a_report(),
        rows={"a": RowsSeen(digest="d", count=30, columns=("word",))},
    )  # fmt: skip
    assert "rows" not in summary_of(outcome)
    assert "rows" in summary_of(replace(outcome, report=a_report(done=10)))


def test_losses_are_stated() -> None:
    run = Run(id=1, phase_since="", origin="2023-11-14T22:13:20.000Z", planned_user_ms=100_000, lost_user_ms=5_000)
    losses = ("shop-1 killed by SIGKILL",)
    outcome = an_outcome(
        frame=a_frame(60, Phase.COMPLETED, run=run), losses=losses, verdict=Verdict.INCONCLUSIVE,
        report=a_report(done=10, worker_restarts=2, worker_lost_users=7),
    )  # fmt: skip
    text = summary_of(outcome)
    for seen in (
        "Inconclusive  shop", "5.0 user-seconds, 5.00 % of those planned", "shop-1 killed by SIGKILL",
        "2 worker processes; 7 users lost their request",
    ):  # fmt: skip
        assert seen in text


def test_runners_that_were_lost_are_counted_and_how_far_apart_they_began_is_said() -> None:
    barrier = Barrier(moved=True, runners=3, skew_ms=13, offset_error_ms=2)
    run = Run(
        id=1, phase_since="", origin="2023-11-14T22:13:20.000Z", planned_user_ms=100_000, lost_user_ms=500,
        lost_runners=2, barrier=barrier,
    )  # fmt: skip
    text = summary_of(an_outcome(frame=a_frame(60, Phase.COMPLETED, run=run), report=a_report(done=10)))
    assert "0.5 user-seconds, 0.50 % of those planned, with 2 runners" in text
    assert "3 runners began within 13 ms of each other; their clocks are known to 2 ms; the start was moved on" in text


def test_what_is_lost_is_seen_while_the_run_goes_on() -> None:
    run = Run(id=1, phase_since="", origin="2023-11-14T22:13:20.000Z", lost_user_ms=5_000, lost_runners=1)
    assert "5.0 user-seconds lost" in line(a_frame(60, Phase.RUNNING, run=run))


@pytest.mark.parametrize(("runners", "seen"), [(1, "5.0 user-seconds with 1 runner"), (0, "5.0 user-seconds ")])
def test_what_is_lost_is_laid_to_runners_only_where_one_was_lost(runners: int, seen: str) -> None:
    console, out = a_console(terminal=True)
    run = Run(id=1, phase_since="", origin="2023-11-14T22:13:20.000Z", lost_user_ms=5_000, lost_runners=runners)
    view = LiveView(console)
    view.show(a_frame(60, Phase.RUNNING, run=run))
    view.close()
    assert seen in out.getvalue()
    assert "0 runners" not in out.getvalue()


def test_a_refused_run_shows_the_snippet_and_the_way_around() -> None:
    reason = (
        "target.url: the policy does not allow 127.0.0.1 port 8080\nA policy with this would allow it:\ntargets: []"
    )
    outcome = an_outcome(verdict=None, exit=3, reason=reason, report=a_report(), frame=a_frame(0, Phase.FAILED))
    text = summary_of(outcome)
    assert "Not run  shop  target.url: the policy does not allow" in text
    assert "targets: []\nOr allow the target for this run alone: --allow-target 127.0.0.1:8080\n" in text


def test_the_json_document() -> None:
    found = json.loads(json.dumps(document_of(an_outcome())))
    assert ("Passed", 0, 1000, 20) == (found["verdict"], found["exit"], found["requests"], found["failed"])
    assert {"network_reset": 20} == found["errors"]
    assert {"template": 4} == found["drops"]
    assert "login" == found["actions"][0]["action"]
    assert "Completed" == found["status"]["phase"]
    assert {"most": 1, "processes": 2} == found["runners"]


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "–"), (0, "0 ns"), (999, "999 ns"), (1_500, "1.5 µs"), (999_999, "1 ms"), (36_040_000, "36 ms"),
        (250_000_000, "250 ms"), (999_900_000, "1 s"), (12_345_000_000, "12.3 s"), (120_000_000_000, "120 s"),
    ],
)  # fmt: skip
def test_latencies_in_three_digits(ns: int | None, text: str) -> None:
    assert text == figures.duration_ns(ns)


@pytest.mark.parametrize(("ms", "text"), [(0, "00:00"), (65_999, "01:05"), (3_605_000, "1:00:05")])
def test_clock(ms: int, text: str) -> None:
    assert text == figures.clock(ms)


@pytest.mark.parametrize(("share", "text"), [(None, "–"), (0.0, "0.00 %"), (0.00001, "< 0.01 %"), (0.125, "12.50 %")])
def test_percent(share: float | None, text: str) -> None:
    """A small share never reads like none."""
    assert text == figures.percent(share)


@pytest.mark.parametrize(("values", "bars"), [([], ""), ([0, 0], "▁▁"), ([0, 1, 2], "▁▄█"), ([5], "█")])
def test_spark(values: list[float], bars: str) -> None:
    assert bars == figures.spark(values)
