"""The engine's walk in virtual time: a client that answers when the test says so, a clock that the test sets."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from trafficsim_api.layout import Layout
from trafficsim_api.profile import Segment, Shape
from trafficsim_api.protocol import Load
from trafficsim_api.resource import actions_of
from trafficsim_runner.engine import MS, Engine
from trafficsim_runner.flow import compile_load
from trafficsim_runner.http.endpoint import endpoint_of
from trafficsim_runner.pacing import Pacer
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.slab import SlabWriter
from trafficsim_runner.stats.slab_reader import Slab

ALL_ON = Shape((Segment(0, 1, 10_000, 10_000),))


class FakeTimer:
    at_ns = None

    def arm(self, at_ns):
        self.at_ns = at_ns


class FakeClient:
    """Takes requests and answers each after *delay_ms*, or fails it."""

    def __init__(self, world):
        self.world, self.timer = world, FakeTimer()
        self.delay_ms, self.fails, self.full = 0, False, False
        self.out, self.seen, self.given_up = [], [], 0
        self.in_flight, self.fold_at = 0, 1

    def request(self, user, step, wire, now_ns, due_ns):
        if self.full:
            self.world.engine.refused(user, now_ns)
            return
        self.seen.append((now_ns // MS, user.place, wire.split(b" ")[1].decode()))
        self.in_flight += 1
        self.out.append((now_ns + self.delay_ms * MS, len(self.seen), user, step))
        if not user.begun and not self.fails:
            self.world.engine.sent(user)

    def is_sending(self, user):
        return any(other is user for _, _, other, _ in self.out)

    def release(self, user):
        assert not self.is_sending(user)

    def give_up(self, user):
        self.given_up += 1

    def cut(self, user, now_ns):
        self.out = [entry for entry in self.out if entry[2] is not user]
        self.in_flight = len(self.out)

    def handle_ready(self):
        if self.timer.at_ns is not None and self.timer.at_ns <= self.world.now:
            self.timer.at_ns = None
            self.world.engine.wake()
        return 0

    def bury(self):
        pass


class World:
    """An engine, its fake client, and time."""

    def __init__(self, tmp_path, flow, users=1, **load):
        self.now, self.faults = 1_000 * MS, []
        archetypes = [{"name": "one", "flow": flow}]
        document = {"target": {"url": "http://t"}, "archetypes": archetypes, "seed": 3, **load}
        self.load = Load.model_validate_json(json.dumps(document))
        actions = actions_of(self.load.archetypes)
        self.account = Account(SlabWriter(tmp_path / "slab", Layout(actions=actions), started_ns=0))
        self.engine = Engine(account=self.account, clock=lambda: self.now, wall_s=lambda: 0.0,
                             on_fault=lambda error: self.faults.append(str(error)))  # fmt: skip
        self.engine.client.close()
        self.client = self.engine.client = FakeClient(self)
        self.compile(self.load, actions)
        self.hold(users)

    def compile(self, load, actions):
        numbers = {action: n for n, action in enumerate(actions)}
        program = compile_load(load, endpoint_of(load.target), numbers, self.account.tallies, {})
        self.engine.use_program(program, [1], load.seed)

    def hold(self, users, **options):
        pacer = Pacer(users=max(users, 1), ranges=[(0, users)], shape=ALL_ON, end_ms=10**9, **options)
        self.engine.follow(pacer, self.now - 1000 * MS if users else 0)

    def until(self, ms):
        """Let *ms* pass, answering and waking in the order of instants."""
        end = self.now + ms * MS
        for _ in range(100_000):
            answers = min(self.client.out, default=None, key=lambda entry: entry[:2])
            timer = self.client.timer.at_ns
            at = min((t for t in (answers and answers[0], timer) if t is not None), default=None)
            if at is None or at > end:
                break
            self.now = max(self.now, at)
            if answers and answers[0] == at:
                self.client.out.remove(answers)
                self.client.in_flight -= 1
                _, _, user, step = answers
                if self.client.fails:
                    self.engine.failed(user, self.now)
                else:
                    user.step = step.next
                    user.backoff_ms = 0
                    self.engine.answered(user, self.now)
            else:
                self.client.timer.at_ns = None
                self.engine.wake()
        else:
            raise AssertionError("a busy loop")
        self.now = end

    def count(self, counter):
        return int(Slab.open(self.account.slab.path).final().vector[self.account.slab.layout.worker(counter)])


def test_think_times_pass_between_requests(tmp_path):
    """A request of 30 ms and a pause of 70 ms: one every 100 ms, to the millisecond."""
    world = World(tmp_path, [{"request": {"get": "/a"}}, {"think": {"constant": "70ms"}}])
    world.client.delay_ms = 30
    world.until(999)
    first = world.client.seen[0][0]
    assert [first + 100 * n for n in range(10)] == [at for at, _, _ in world.client.seen]


def test_loops_run_as_often_as_drawn(tmp_path):
    """A loop of 3 within one of 2, then the end: a b b b b b b, again and again."""
    inner = {"repeat": {"times": 3, "flow": [{"request": {"get": "/b"}}]}}
    flow = [{"request": {"get": "/a"}}, {"repeat": {"times": 2, "flow": [inner]}}, {"think": {"constant": "10ms"}}]
    world = World(tmp_path, flow)
    world.until(29)
    assert "abbbbbb" * 3 == "".join(path[1] for _, _, path in world.client.seen)
    assert 3 == world.count("iterations") == world.count("iterations_done") + 1


def test_failures_pause_longer_and_longer(tmp_path):
    """100 ms, 200, 400, 800, then a second each; the first success resets it."""
    world = World(tmp_path, [{"request": {"get": "/a"}}, {"think": {"constant": "5ms"}}])
    world.client.fails = True
    world.until(5000)
    at = [at for at, _, _ in world.client.seen]
    assert [100, 200, 400, 800, 1000, 1000, 1000] == [b - a for a, b in itertools.pairwise(at)][:7]
    assert 1 == world.engine.active
    world.client.fails = False
    world.until(2000)
    world.client.fails = True
    seen = len(world.client.seen)
    world.until(1000)
    at = [at for at, _, _ in world.client.seen[seen:]]
    assert 100 == at[1] - at[0]


@pytest.mark.parametrize(
    "flow",
    [
        [{"repeat": {"times": "0..1", "flow": [{"request": {"get": "/{{env.NONE}}"}}]}}],
        [
            {
                "repeat": {
                    "times": 10_000,
                    "flow": [{"repeat": {"times": 10_000, "flow": [{"request": {"get": "/{{env.NONE}}"}}]}}],
                }
            }
        ],
    ],
)
def test_a_flow_that_sends_nothing_is_no_busy_loop(tmp_path, flow):
    """Nothing can be sent: the users pause, others get their turn."""
    world = World(tmp_path, flow, users=3)
    world.until(300)
    assert [] == world.client.seen


def test_an_overloaded_worker_wakes_its_users_in_turn(tmp_path):
    """When walking takes longer than a slot of the wheel, the timer that fires meanwhile waits its turn."""
    world = World(tmp_path, [{"request": {"get": "/a"}}, {"think": {"constant": "20ms"}}], users=400)
    world.until(1100)
    seen = len(world.client.seen)
    request = world.client.request

    def slow(*arguments):
        world.now += MS // 4
        request(*arguments)

    world.client.request = slow
    world.until(1000)
    counts = Counter(place for _, place, _ in world.client.seen[seen:])
    assert 400 == len(counts)
    assert max(counts.values()) - min(counts.values()) <= 2


def test_without_a_slot_a_request_is_due_again_in_100_ms(tmp_path):
    """The same step is tried again, nothing is skipped."""
    world = World(tmp_path, [{"request": {"get": "/a"}}, {"request": {"get": "/b"}}, {"think": {"constant": "1s"}}])
    world.client.full = True
    world.until(450)
    world.client.full = False
    world.until(100)
    assert ["/a", "/b"] == [path for _, _, path in world.client.seen]


def test_users_are_active_from_their_first_send(tmp_path):
    """Starts are spread over a second; settled when the last made its first send; user-seconds add up."""
    world = World(tmp_path, [{"request": {"get": "/a"}}, {"think": {"constant": "1s"}}], users=10)
    assert not world.engine.is_settled
    world.until(450)
    assert 5 == world.engine.active
    assert not world.engine.is_settled
    world.until(550)
    assert 10 == world.engine.active == world.engine.wanted
    assert world.engine.is_settled
    world.engine.read_time(world.now)
    assert 10_000 == world.count("wanted_user_ms")
    assert 5_500 == world.count("active_user_ms")


def test_leaving_waits_for_the_action_only(tmp_path):
    """A thinking user leaves at once, one with a request out after its answer, and then it is settled."""
    world = World(tmp_path, [{"request": {"get": "/a"}}, {"think": {"constant": "60s"}}], users=2)
    world.until(1000)
    world.client.delay_ms = 400
    world.hold(4)
    world.until(1000)
    world.client.delay_ms = 400
    world.hold(6)
    world.until(900)  # user 5 starts after 500 ms and waits until 900
    world.hold(0)
    assert world.engine.is_drained == (not world.client.out)
    world.until(500)
    assert world.engine.is_settled
    assert world.engine.is_drained
    assert 6 == world.count("places_gained") == world.count("places_lost")


def test_a_place_that_comes_back_while_leaving_stays(tmp_path):
    """Its user goes on as the same user: it keeps its step and what it saved."""
    world = World(tmp_path, [{"request": {"get": "/a"}}, {"request": {"get": "/b"}}], users=1)
    world.client.delay_ms = 300
    world.until(100)
    world.hold(0)
    assert not world.engine.is_settled
    world.hold(1)
    world.until(600)
    assert ["/a", "/b", "/a"] == [path for _, _, path in world.client.seen]
    assert world.engine.is_settled


def test_an_edit_takes_effect_at_the_next_step(tmp_path):
    """After the current action the new flow begins at its top; iteration numbers go on."""
    world = World(tmp_path, [{"action": "x", "request": {"get": "/a"}}, {"action": "x", "request": {"get": "/b"}}])
    world.client.delay_ms = 100
    world.until(150)
    edited = json.loads(world.load.model_dump_json(by_alias=True, exclude_none=True))
    edited["archetypes"] = [{"name": "one", "flow": [{"action": "x", "request": {"get": "/new/{{user.iteration}}"}}]}]
    world.compile(Load.model_validate_json(json.dumps(edited)), (("x", "user"),))
    world.until(200)
    assert ["/a", "/b", "/new/1", "/new/2"] == [path for _, _, path in world.client.seen]


def test_a_mistake_of_ours_costs_one_user_its_iteration(tmp_path):
    """Everybody else who is due is led on; the user comes back after a pause, and the mistake is told."""
    world = World(tmp_path, [{"request": {"get": "/{{user.id}}"}}, {"think": {"constant": "10ms"}}], users=3)
    request = world.client.request

    def broken(user, *rest):
        if user.place == 1:
            raise RuntimeError("a mistake")
        request(user, *rest)

    world.client.request = broken
    world.until(2_000)
    world.client.request = request
    assert {"a mistake"} == set(world.faults)
    assert world.client.given_up == len(world.faults) >= 2
    assert {0, 2} == {place for _, place, _ in world.client.seen}
    world.until(2_000)
    assert {0, 1, 2} == {place for _, place, _ in world.client.seen}


def test_nobody_begins_a_step_of_an_edited_load(tmp_path):
    """A user that thinks while the load is edited goes on with the new flow, not with one more old request."""
    world = World(tmp_path, [{"request": {"get": "/old"}}, {"think": {"constant": "500ms"}}])
    world.until(100)
    document = world.load.model_dump(mode="json", exclude_none=True)
    document["archetypes"][0]["flow"][0]["request"]["get"] = "/new"
    world.load = Load.model_validate_json(json.dumps(document))
    world.account.use(SlabWriter(tmp_path / "slab.1", Layout(actions=actions_of(world.load.archetypes)), started_ns=0))
    world.compile(world.load, actions_of(world.load.archetypes))
    world.until(3_000)
    assert ["/old", "/new", "/new"] == [path for _, _, path in world.client.seen][:3]


def out_at_starts(world):
    """Return how many requests were out when each request began, from now on."""
    found, request = [], world.client.request

    def watched(*arguments):
        found.append(world.client.in_flight)
        request(*arguments)

    world.client.request = watched
    return found


def test_while_load_is_high_flows_wait_for_their_turn(tmp_path):
    """Ten users of 100 ms, five requests may be out: in the cut three, in turn; then all again, none waits."""
    world = World(tmp_path, [{"request": {"get": "/a"}}], users=10)
    world.client.delay_ms = 100
    world.engine.starts.bound(5, 1_000)
    world.until(2_000)
    assert 10 == world.client.in_flight
    assert 0 == world.count("starts_delayed")
    world.engine.measure(801)
    world.until(200)
    seen, out = len(world.client.seen), out_at_starts(world)
    world.until(10_000)
    assert 3 == world.client.in_flight == 10 - len(world.engine.starts)
    assert max(out) == 2
    counts = Counter(place for _, place, _ in world.client.seen[seen:])
    assert 10 == len(counts)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert world.count("starts_delayed") >= len(out)
    for _ in range(3):
        world.engine.measure(100)
    assert 10 == world.client.in_flight
    assert 0 == len(world.engine.starts)


def test_only_the_first_request_of_an_iteration_waits(tmp_path):
    """Who has begun goes on: /b follows /a at once, /a waits."""
    world = World(tmp_path, [{"request": {"get": "/a"}}, {"request": {"get": "/b"}}], users=4)
    world.client.delay_ms = 100
    world.engine.starts.bound(1, 1_000)
    world.engine.measure(1_000)
    world.until(3_000)
    paths = "".join(path[1] for _, _, path in world.client.seen)
    assert paths.startswith("ababab")
    assert 1 == world.client.in_flight


def test_lower_priority_first_and_nobody_starves(tmp_path):
    """Users of priority 0 go before those of 9, which have waited for 9 s by then."""
    flow = [{"request": {"get": "/{{user.archetype}}"}}]
    world = World(tmp_path, flow, users=4, archetypes=[{"name": "x", "flow": flow}, {"name": "y", "flow": flow}])
    world.client.delay_ms = 100
    actions = {action: n for n, action in enumerate(actions_of(world.load.archetypes))}
    program = compile_load(world.load, endpoint_of(world.load.target), actions, world.account.tallies, {})
    world.engine.use_program(program, [1, 1], 3, [9, 0])
    world.until(1_500)
    world.engine.starts.bound(1, 1_000)
    world.engine.measure(1_000)
    world.until(500)
    seen = len(world.client.seen)
    world.until(7_000)
    assert {"/y"} == {path for _, _, path in world.client.seen[seen:]}
    world.until(4_000)
    assert "/x" in {path for _, _, path in world.client.seen[seen:]}


def test_who_leaves_while_it_waits_is_counted_as_dropped(tmp_path):
    """Three of four wait; two leave: dropped because the generator was saturated, and the assignment is carried out."""
    world = World(tmp_path, [{"request": {"get": "/a"}}], users=4)
    world.client.delay_ms = 100
    world.until(1_500)
    world.engine.starts.bound(1, 1_000)
    world.engine.measure(1_000)
    world.until(500)
    assert 3 == len(world.engine.starts)
    world.hold(1)
    world.until(200)
    dropped = world.count("drop_generator_saturated")
    assert 2 <= dropped <= 3
    assert world.engine.is_settled
    world.hold(0)
    world.until(300)
    assert world.engine.is_drained


def test_the_hot_loop_asks_only_where_somebody_may_have_to_wait(tmp_path):
    """Three users of whom three may send in the cut never wait: their flows follow each other as without load."""
    world = World(tmp_path, [{"request": {"get": "/a"}}], users=3)
    world.engine.starts.bound(5, 1_000)
    [(end, top)] = world.engine._ends
    world.engine.measure(1_000)
    assert 3 == world.engine.starts.limit
    assert end.next is top
    world.hold(4)
    assert end.next is not top
    for _ in range(3):
        world.engine.measure(0)
    assert end.next is top


def test_those_who_waited_begin_in_chunks_with_answers_handled_between(tmp_path):
    """When the cut is over 39 begin, and no answer has to wait for more than 8 of them to be sent for."""
    world = World(tmp_path, [{"request": {"get": "/a"}}], users=40)
    world.client.delay_ms = 100
    world.until(1_500)
    world.engine.starts.bound(1, 1_000)
    world.engine.measure(1_000)
    world.until(500)
    assert 39 == len(world.engine.starts)
    begun, handle_ready = [], world.client.handle_ready
    world.client.handle_ready = lambda: begun.append(len(world.client.seen)) or handle_ready()
    for _ in range(3):
        world.engine.measure(0)
    assert 0 == len(world.engine.starts)
    assert 39 == begun[-1] - begun[0]
    assert 8 == max(after - before for before, after in itertools.pairwise(begun))


def test_an_archetype_that_is_gone_waits_as_any(tmp_path):
    """A user of an archetype the edited load has not any more waits by the ordinary priority."""
    world = World(tmp_path, [{"request": {"get": "/a"}}], users=2)
    world.client.delay_ms = 100
    world.engine.starts.bound(1, 1_000)
    world.engine.measure(1_000)
    for user in world.engine._users.values():
        user.archetype = 7
    world.until(3_000)
    assert [] == world.faults
    assert world.count("starts_delayed") > 0


RAMP = Shape((Segment(0, 10_000, 0, 10_000),))


@pytest.mark.parametrize(
    ("shape", "look_ms", "late_us"),
    [
        pytest.param(ALL_ON, 0, 0, id="at the instant"),
        pytest.param(ALL_ON, 7, 7_000, id="the look came late"),
        pytest.param(RAMP, 520, 20_000, id="due within a ramp since the look before"),
    ],
)
def test_how_late_the_first_user_of_all_began(tmp_path, shape, look_ms, late_us):
    """Its first send less the instant it was due, and that stays; nothing while nobody has begun."""
    world = World(tmp_path, [{"request": {"get": "/a"}}, {"think": {"constant": "10s"}}], users=0)
    origin_ns = world.now + 50 * MS
    world.engine.follow(Pacer(users=10, ranges=[(0, 10)], shape=shape, end_ms=10**9), origin_ns)
    world.until(50 + look_ms)
    assert world.engine.late_us is None
    world.engine.look()
    world.until(1)
    assert late_us == world.engine.late_us
    world.until(5_000)
    world.engine.look()
    world.engine.drain()
    assert late_us == world.engine.late_us


def test_a_user_told_after_it_was_due_is_late_by_that(tmp_path):
    """Whoever hears of its places a second after the start begins a second late."""
    world = World(tmp_path, [{"request": {"get": "/a"}}, {"think": {"constant": "10s"}}])
    world.until(1)
    assert 1_000_000 == world.engine.late_us
