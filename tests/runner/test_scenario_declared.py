"""What a scenario's class declares, and its metrics by themselves."""

from __future__ import annotations

import sys
import textwrap

import pytest

from trafficsim_api.histogram import bucket_of
from trafficsim_api.layout import Layout
from trafficsim_api.resource import Archetype
from trafficsim_runner.scenario import Counter, Response, Trend
from trafficsim_runner.scenario.declared import ScenarioProblem, bind, declared_by
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.slab import SlabWriter


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of scenarios, found in the directory that is handed in; its name is returned."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    number = 0

    def write(text):
        nonlocal number
        number += 1
        name = f"made_{tmp_path.name.replace('-', '_')}_{number}"
        imports = "from trafficsim_runner.scenario import Counter, Scenario, Trend\n"
        (tmp_path / f"{name}.py").write_text(imports + textwrap.dedent(text))
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("made_"):
            del sys.modules[name]


def declared(tmp_path, *references):
    archetypes = [Archetype(name=f"a{number}", scenario=one) for number, one in enumerate(references)]
    return declared_by(archetypes, {}, str(tmp_path))


def test_actions_and_metrics_are_found_once(tmp_path, module):
    """Inherited ones too; two archetypes of one class are one scenario."""
    name = module("""
        class Base(Scenario):
            rows = Trend()
            actions = {"a": "user"}
            async def run(self): ...
        class Exporter(Base):
            took = Trend(unit="s")
            done = Counter(unit="files")
            actions = {"a": "user", "b": "bulk"}
    """)
    found = declared(tmp_path, f"{name}:Exporter", f"{name}:Exporter", f"{name}:Base")
    assert [f"{name}:Exporter", f"{name}:Base"] == list(found)
    layout = found[f"{name}:Exporter"].layout
    assert (("a", "user"), ("b", "bulk")) == layout.actions
    assert {("rows", "trend", ""), ("took", "trend", "ns"), ("done", "counter", "files")} == set(layout.metrics)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("raise RuntimeError('no')", "cannot be imported: RuntimeError: no", id="raises"),
        pytest.param("import sys; sys.exit(1)", "cannot be imported: SystemExit: 1", id="exits"),
        pytest.param("import nothing_at_all", "cannot be imported: No module", id="imports what is not there"),
        pytest.param("def x(:", "cannot be imported: SyntaxError", id="is no Python"),
        pytest.param("X = 3", "is no subclass of", id="is no class"),
        pytest.param("class X(Scenario): actions = {'a': 'user'}", "has no run()", id="has no run"),
        pytest.param("class X(Scenario):\n async def run(self): ...\n actions = 3", "actions must name", id="actions"),
        pytest.param("class X(Scenario):\n async def run(self): ...\n actions = {'a b': 'user'}", "'a b' in actions",
                     id="an action's name"),
        pytest.param("class X(Scenario):\n async def run(self): ...\n actions = {'a': 3}", "3 in actions is no",
                     id="a group's name"),
        pytest.param("class X(Scenario):\n async def run(self): ...\n actions = {'a': 'user'}\n Bad = Trend()",
                     "small letters, digits and _ are needed", id="a metric's name"),
        pytest.param("class X(Scenario):\n async def run(self): ...\n actions = {'a': 'user'}\n a = Trend()",
                     "a is both an action and a metric", id="a name twice"),
        pytest.param("class X(Scenario):\n async def run(self): ...\n actions = {'a': 'user'}\n a1 = Trend(unit='m s')",
                     "at most 16 letters are possible", id="a unit"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_field(tmp_path, module, text, said):
    """The module and the class are named."""
    name = module(text)
    with pytest.raises(ScenarioProblem) as problem:
        declared(tmp_path, f"{name}:X")
    assert str(problem.value).startswith("archetypes[0].scenario: ")
    assert said in str(problem.value)


def test_one_name_of_two_kinds_is_refused(tmp_path, module):
    """Their numbers could not be added."""
    name = module("""
        class One(Scenario):
            rows = Trend()
            actions = {"a": "user"}
            async def run(self): ...
        class Two(Scenario):
            rows = Counter()
            actions = {"a": "user"}
            async def run(self): ...
    """)
    with pytest.raises(ScenarioProblem, match="rows is something else in another scenario"):
        declared(tmp_path, f"{name}:One", f"{name}:Two")


def test_metrics_count_in_the_slab_or_by_themselves(tmp_path, module):
    """Unbound, in a test of the scenario, they count as well; bound, where the layout has them."""
    name = module("""
        class Exporter(Scenario):
            rows = Trend(unit="ms")
            done = Counter()
            actions = {"a": "user"}
            async def run(self): ...
    """)
    found = declared(tmp_path, f"{name}:Exporter")[f"{name}:Exporter"]
    kind = found.kind
    kind.done.add(2)
    assert 2 == kind.done.value
    layout = Layout(actions=(("x", "user"), *found.actions), metrics=(("other", "trend", ""), *found.layout.metrics))
    account = Account(SlabWriter(tmp_path / "slab", layout, started_ns=0))
    bind(account, [found])
    kind.done.add()
    kind.rows.record(2.5)
    kind.rows.record(10**9)
    at = {name: number for number, (name, _, _) in enumerate(layout.metrics)}
    live = account.slab.live
    assert 1 == kind.done.value == live[layout.metric(at["done"])]
    assert 2 == kind.rows.value == live[layout.metric(at["rows"])]
    assert 1 == live[layout.trend(at["rows"]) + bucket_of(2_500_000)] == live[layout.trend(at["rows"]) + 4095]


@pytest.mark.parametrize("value", [-1, float("nan"), 1.5, 2**60])
def test_a_counter_only_grows(value):
    """What is no whole number from 0 on is the scenario's mistake."""
    with pytest.raises(ValueError, match="grows by whole numbers"):
        Counter().add(value)


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_a_trend_takes_values_from_nought(value):
    """Infinity lands in the last bucket."""
    with pytest.raises(ValueError, match="from 0 on"):
        Trend().record(value)
    Trend().record(float("inf"))


def test_an_answer_is_looked_at_when_it_is_asked():
    """Headers in any case, the first of a name; a body that is unpacked; text that is none."""
    headers = ((b"content-type", b"text/plain"), (b"x", b"1"), (b"x", b"2"))
    answer = Response(404, headers, b'{"a": [1]}')
    assert (False, "1", "1", None, "-") == (
        answer.ok, answer.header("X"), answer.headers["x"], answer.header("y"), answer.header("y", "-")
    )  # fmt: skip
    assert {"a": [1]} == answer.json()
    assert "�" == Response(200, (), b"\xff").text
    assert "<Response 404, 10 bytes>" == repr(answer)
