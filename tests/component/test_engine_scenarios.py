"""Users written in Python, in a real worker on real sockets (what they do stands in tests/scenarios/acts.py)."""

from __future__ import annotations

import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from targets.scripted import Route, Scripted
from trafficsim_api.statistics import action_counter, metric_counter, quantiles, trend_histogram
from workers.process import Figures, WorkerProcess, a_load

pytestmark = pytest.mark.component

ECHO = Route(path="/echo*", echo=True)
SCENARIOS = Path(__file__).parents[1] / "scenarios"


@pytest.fixture
def target():
    with Scripted(
        [ECHO, Route(path="/slow", delay_s=0.5), Route(path="/in", headers={"set-cookie": "sid=s1"})]
    ) as site:
        yield site


class Play:
    """A worker with users of `tests/scenarios/acts.py`."""

    def __init__(self, tmp_path, port):
        self.log = tmp_path / "acts.log"
        self.port = port
        self.worker = WorkerProcess(
            tmp_path,
            env={
                "TRAFFICSIM_SCENARIOS": str(SCENARIOS),
                "ACTS_LOG": str(self.log),
                "ACTS_KIND": "network_refused",
                "PYTHONPATH": "",
            },
        )

    def load(self, name, **more):
        archetypes = more.pop("archetypes", [{"name": "actor", "scenario": f"acts:{name}"}])
        return a_load(self.port, [], archetypes=archetypes, **more)

    def assign(self, name, users=4, *, limits=None, places=None, **more):
        self.worker.assign(self.load(name, **more), users=users, limits=limits, places=places)

    @property
    def lines(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def metric(self, name):
        """Return count and sum of a metric, and its p50."""
        slab = self.worker.slab
        number = next(n for n, (one, _, _) in enumerate(slab.layout.metrics) if one == name)
        vector = slab.final().vector
        return (
            metric_counter(slab.layout, vector, number), metric_counter(slab.layout, vector, number, "sum"),
            quantiles(trend_histogram(slab.layout, vector, number), (0.5,))[0],
        )  # fmt: skip

    def faults(self):
        self.worker.read(0.1)
        return [m["fault"]["message"] for m in self.worker.messages if "fault" in m]


@pytest.fixture
def play(tmp_path, target):
    found = Play(tmp_path, target.port)
    with found.worker:
        yield found


def test_requests_are_a_flows_and_metrics_are_counted(play, target):
    """All verbs, bodies, headers and parameters arrive as written; actions, checks and metrics are counted."""
    play.assign("Plain")
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: w.live("iterations_done") >= 20)
    play.worker.drain()
    figures, slab = Figures.of(play.worker), play.worker.slab
    assert (("read", "user"), ("write", "bulk")) == slab.layout.actions
    assert (("reads", "counter", ""), ("size", "trend", "bytes"), ("took", "trend", "ns")) == slab.layout.metrics
    assert target.log.received == figures["sent"] == figures["done"]
    assert 0 == figures.get("checks_failed", 0) == figures.get("failed", 0) == figures.get("scenario_failures", 0)
    assert [] == play.faults()
    # Each request has its own check, and six more were made in an iteration; the last one may have been broken off.
    assert 0 <= figures["checks"] - figures["done"] - 6 * figures["iterations_done"] <= 6 * 4
    reads = play.metric("reads")[0]
    assert figures["iterations_done"] <= reads <= figures["iterations_done"] + 4
    assert (reads, 200 * reads, 200) == play.metric("size")
    count, total, p50 = play.metric("took")
    assert 2_500_000 * count == total
    assert 2_500_000 <= p50 <= 2_500_000 * 1.008
    # One more action: the metrics move behind it, and keep their counts.
    flow = [{"action": "third", "request": {"get": "/echo"}}]
    play.assign("", archetypes=[{"name": "actor", "scenario": "acts:Plain"}, {"name": "b", "flow": flow}])
    play.worker.wait_for(lambda ack: ack["settled"])
    assert ("third", "user") == play.worker.slab.layout.actions[-1]
    play.worker.wait_until(lambda w: play.metric("reads")[0] > reads)
    play.worker.drain()
    count, total, _ = play.metric("size")
    assert 200 * count == total > 200 * reads


def test_a_user_starts_runs_and_says_farewell(play):
    """start once, run over and over, and when the place is lost run is closed and stop is done; then it is parked."""
    play.assign("Parts", users=4)
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: w.live("iterations_done") >= 12 and len(play.lines) >= 4)
    assert {f"start {n} actor": 1 for n in range(4)} == Counter(line for line in play.lines if "start" in line)
    play.assign("Parts", users=4, places=[[0, 2]])
    play.worker.wait_for(lambda ack: ack["settled"] and ack["active"] == 2)
    assert {"stop 2", "stop 3"} == {line for line in play.lines if "stop" in line}
    play.worker.drain()
    assert {f"stop {n}": 1 for n in range(4)} == Counter(line for line in play.lines if "stop" in line)
    figures = Figures.of(play.worker)
    assert 0 == figures.get("cut", 0) == figures.get("scenario_failures", 0) == figures.get("failed", 0)
    assert [] == play.faults()


def test_a_farewell_without_end_is_cut_at_the_deadline(play):
    """Its user is gone when the drain's time is over, and counted as cut."""
    play.assign("Endless", users=3)
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.drain(1.0)
    assert 3 == Figures.of(play.worker)["cut"]


def test_a_farewell_without_end_is_cut_after_five_seconds(play):
    """Also where nobody set a deadline: a place that went elsewhere is given up."""
    play.assign("Endless", users=2)
    play.worker.wait_for(lambda ack: ack["settled"])
    began = time.monotonic()
    play.assign("Endless", users=2, places=[[0, 1]])
    play.worker.wait_for(lambda ack: ack["settled"] and ack["active"] == 1)
    assert 4.5 <= time.monotonic() - began <= 8
    assert 1 == Figures.of(play.worker)["cut"]


def test_an_arrivals_farewell_without_end_is_cut_as_well(play):
    """Its place takes the next arrival; places gained and lost agree in the end."""
    play.assign("Endless", users=2, arrivals={"rate": "20/s"})
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: w.live("cut") >= 2 and w.live("places_gained") >= 4, within_s=15)
    play.worker.drain(1.0)
    figures = Figures.of(play.worker)
    assert figures["places_gained"] == figures["places_lost"]
    assert figures["arrivals_planned"] == figures["arrivals_started"] + figures["drop_no_slot"]


def test_who_awaits_while_it_is_closed_is_broken_off(play):
    """The user leaves at once, and it is told."""
    play.assign("Clinging", users=2)
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.drain()
    assert any("ignored GeneratorExit" in fault for fault in play.faults())


def test_mistakes_cost_an_iteration_and_nobody_else_anything(play, target):
    """Exceptions, exits, undeclared actions: each is told once by name, counted, and its user goes on."""
    play.assign("Broken", users=8)
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: w.live("scenario_failures") >= 30)
    play.worker.drain()
    figures, text = Figures.of(play.worker), "\n".join(play.faults())
    for said in (
        "KeyError: 'lost'", "SystemExit: 3", "the action 'undeclared' is not in its `actions`",
        "a path that starts with / is needed", "has a line break", "not 'what is this'", "CancelledError",
    ):  # fmt: skip
        assert 1 <= text.count(said), said
    assert figures["drop_internal"] >= 3
    assert figures["iterations_done"] >= 30
    assert 0 == figures.get("failed", 0)
    assert target.log.received == figures["sent"]


def test_a_failed_request_is_heard_after_a_pause(play):
    """A scenario that catches it and goes on is no busy loop; the kind is that which is counted."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        play.port = closed.getsockname()[1]
        play.assign("Stubborn", users=2)
        play.worker.wait_for(lambda ack: ack["settled"])
        time_passed = time.monotonic()
        play.worker.wait_until(lambda w: play.metric("failures")[0] >= 8)
        assert time.monotonic() - time_passed >= 1.0
    play.worker.drain()
    figures = Figures.of(play.worker)
    assert figures["failed"] == figures["error_network_refused"] <= 40
    assert [] == play.faults()


def test_a_verb_that_policy_forbids_is_not_sent(play, target):
    """It fails as forbidden; what is allowed goes on."""
    play.assign("Plain", users=2, limits={"verbs": ["get"]})
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: w.live("error_generator_forbidden") >= 4)
    play.worker.drain()
    assert target.log.received == target.log.count(method="GET")


def test_connections_are_pooled_by_the_groups_of_its_actions(play, target):
    """Requests wait for a connection of their action's group like a flow's."""
    pools = {"user": [2, 0], "bulk": [1, 0], "": [1, 0]}
    load = play.load("Plain", connections={"mode": "pooled"})
    play.worker.assign(load, users=6, pools=pools)
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: w.live("iterations_done") >= 20)
    play.worker.drain()
    figures = Figures.of(play.worker)
    assert target.log.received == figures["sent"] == figures["done"]
    assert figures["pool_waits"] > 0 == figures.get("failed", 0) == figures.get("checks_failed", 0)


def test_futures_of_asyncio_may_be_awaited(play):
    """sleep, executors and tasks, without a task of its own; nothing is left when users go in the middle."""
    play.assign("Waits", users=20)
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: play.metric("naps")[0] >= 60)
    play.worker.drain()
    assert play.metric("naps")[2] >= 50_000_000
    assert 0 == Figures.of(play.worker).get("scenario_failures", 0)
    assert [] == play.faults()


def test_a_task_where_one_is_needed(play, target):
    """asyncio.timeout round a request cuts it: counted as cut, sent no second time, and the scenario goes on."""
    play.assign("InTask", users=3)
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: w.live("iterations_done") >= 9)
    play.worker.drain()
    figures = Figures.of(play.worker)
    cuts = play.metric("cut")[0]
    assert figures["error_generator_cut"] == cuts >= 9
    # Whom the drain met in the midst of one was cut as well, without hearing of it.
    assert cuts <= target.log.count(path="/slow") <= cuts + 3
    assert {"stop 0", "stop 1", "stop 2"} == set(play.lines)
    assert 0 == figures.get("scenario_failures", 0)
    assert [] == play.faults()


def test_who_gives_up_waiting_for_its_turn_sends_nothing(play, target):
    """With load high requests wait for others: one that is broken off meanwhile is dropped, and not sent later."""
    users = 4
    play.worker.assign(play.load("Impatient"), users=users, limits={"concurrency": 2}, cores=1)
    play.worker.wait_for(lambda ack: ack["starts_limit"] == 1)
    play.worker.wait_until(lambda w: w.live("drop_generator_saturated") >= 20, within_s=20)
    play.worker.drain()
    figures = Figures.of(play.worker)
    dropped = sum(count for name, count in figures.items() if name.startswith("drop_"))
    ends = figures["sent"] + dropped
    assert ends - users <= play.metric("tried")[0] <= ends + users
    assert figures["sent"] == figures["done"] == target.log.count(path="/slow")
    assert [] == play.faults()


def test_draws_cookies_and_saved_values_are_the_users_own(play):
    """Same seed, same draws; what setup saved is there; cookies come back."""
    play.assign("Draws", users=3, seed=7, saved={"from_setup": "x"})
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: w.live("iterations_done") >= 10)
    play.worker.drain()
    first = sorted(play.lines)
    assert 3 == len({line.split()[1] for line in first})
    assert all("['from_setup']" in line for line in first)
    assert 0 == Figures.of(play.worker).get("checks_failed", 0)
    play.log.unlink()
    play.assign("Draws", users=3, seed=7, saved={"from_setup": "x"})
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.drain()
    assert first == sorted(play.lines)


def test_an_arrival_is_somebody_new(play):
    """Open model: start, run and stop belong to each arrival; response times are kept."""
    play.assign("Parts", users=6, arrivals={"rate": "40/s"})
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: w.live("iterations_done") >= 40, within_s=15)
    play.worker.drain()
    figures = Figures.of(play.worker)
    ends = Counter(line.split()[0] for line in play.lines)
    assert figures["iterations_done"] <= ends["start"] <= figures["arrivals_started"]
    assert ends["start"] - 6 <= ends["stop"] <= ends["start"]
    slab = play.worker.slab
    vector = slab.final().vector
    assert action_counter(slab.layout, vector, 1, "response_ns") >= action_counter(slab.layout, vector, 1, "service_ns")
    assert 0 == figures.get("scenario_failures", 0) == figures.get("failed", 0)


def test_an_edit_of_the_load_goes_on_with_the_same_class(play, target):
    """Users keep their instance; requests go to the new target; a scenario that is gone is closed."""
    play.assign("Parts", users=2)
    play.worker.wait_for(lambda ack: ack["settled"])
    play.worker.wait_until(lambda w: w.live("done") >= 6)
    with Scripted([ECHO]) as other:
        play.port = other.port
        play.assign("Parts", users=2, seed=3)
        play.worker.wait_until(lambda w: other.log.received >= 6)
        assert 2 == sum("start" in line for line in play.lines)
        play.assign("", users=2, archetypes=[{"name": "actor", "flow": [{"request": {"get": "/echo/flow"}}]}])
        play.worker.wait_until(lambda w: other.log.count(path="/echo/flow") >= 4)
        play.worker.drain()
    assert 0 == Figures.of(play.worker).get("scenario_failures", 0)
    assert [] == play.faults()


def test_archetypes_may_go_while_a_scenario_goes_on(play):
    """The second of two archetypes becomes the only one: its users stay, and have a name all the time."""
    flow = {"name": "first", "flow": [{"request": {"get": "/echo"}}]}
    second = {"name": "second", "scenario": "acts:Named"}
    play.assign("", users=4, archetypes=[flow, second])
    play.worker.wait_until(lambda w: play.lines)
    play.assign("", users=4, archetypes=[second])
    play.worker.wait_until(lambda w: 4 == len({line.split()[1] for line in play.lines}))
    play.worker.drain()
    assert {"second"} == {line.split()[0] for line in play.lines}
    assert [] == play.faults()


def test_what_a_scenario_asked_for_is_not_sent_once_it_is_gone(play):
    """Who waits for its turn when the load is edited begins the new flow: the new target sees nothing of the old."""
    play.worker.assign(play.load("Plain"), users=4, limits={"concurrency": 2}, cores=1)
    play.worker.wait_for(lambda ack: ack["starts_limit"] == 1 and ack["starts_waiting"] >= 2)
    with Scripted([Route(path="/new"), ECHO]) as other:
        play.port = other.port
        flow = [{"action": "new", "request": {"get": "/new"}}]
        play.worker.assign(
            play.load("", archetypes=[{"name": "b", "flow": flow}]), users=4, limits={"concurrency": 2}, cores=1
        )
        play.worker.wait_until(lambda w: other.log.count(path="/new") >= 20)
        play.worker.drain()
        assert other.log.received == other.log.count(path="/new")
    assert [] == play.faults()


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("nothing.here:Exporter", "archetypes[1].scenario: no module named nothing.here in the runner's image"),
        ("acts:Nobody", "archetypes[1].scenario: acts has no class Nobody"),
        ("acts:NotOne", "is no subclass of trafficsim_runner.scenario.Scenario"),
        ("acts:Scenario", "is no subclass of"),
        ("acts:NoActions", "actions must name at least one"),
        ("acts:NotAsync", "run must be an async method"),
        ("this:nothing", "this has no class nothing"),
    ],
)
def test_what_cannot_be_played_is_said(play, reference, said):
    """The field is named, in the user's words; the assignment before stays in force."""
    archetypes = [{"name": "a", "flow": [{"request": {"get": "/echo"}}]}, {"name": "b", "scenario": reference}]
    play.assign("", archetypes=archetypes)
    assert said in play.worker.wait_for_error(within_s=20)
