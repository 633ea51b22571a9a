"""The state directory: every file counts once."""

from __future__ import annotations

import pytest

from trafficsim_api.layout import Layout
from trafficsim_api.statistics import action_counter
from trafficsim_runner.state import Origin, State
from trafficsim_runner.stats.merge import Total

LAYOUT = Layout(actions=(("a", "user"),))


def touch(state, *names):
    for name in names:
        (state.directory / name).write_bytes(b"x")


def left(state):
    return sorted(path.name for path in state.directory.iterdir())


def a_total(done):
    total = Total.empty(LAYOUT)
    total.vector[LAYOUT.action(0, "done")] = done
    return total


def test_the_newest_generation_of_each_slab_counts(tmp_path):
    """.10 is newer than .9; a half-made one is none."""
    state = State(tmp_path / "state")
    touch(state, "slab-b-1", "slab-b-1.9", "slab-b-1.10", "slab-b-1.11.draft", "slab-b-10")
    assert ["slab-b-1.10", "slab-b-10"] == [path.name for path in state.slabs()]
    assert "slab-b-1.10" == state.newest(state.directory / "slab-b-1").name
    assert state.newest(state.directory / "slab-b-2") is None


def test_removing_a_slab_removes_its_generations_and_no_others(tmp_path):
    """slab-…-1 is not slab-…-10."""
    state = State(tmp_path)
    touch(state, "slab-1-b-0-1", "slab-1-b-0-1.1", "slab-1-b-0-10", "own-1-b")
    state.remove("slab-1-b-0-1.1", "absent")
    assert ["own-1-b", "slab-1-b-0-10"] == left(state)


def test_a_new_run_leaves_only_the_assignment(tmp_path):
    """Counts go, the assignment and the origin are replaced by themselves."""
    state = State(tmp_path)
    state.save_assignment(b"{}")
    state.save_origin(Origin(run=1, start_at_ms=2, origin_ns=3))
    state.save_account("r", 1, a_total(1), [])
    touch(state, "slab-1-b-0-1", "own-1-b")
    state.forget_run()
    assert ["assignment", "origin.json"] == left(state)
    assert b"{}" == state.assignment()


def test_an_account_comes_back_for_its_run_only(tmp_path):
    """With the names of what it swallowed."""
    state = State(tmp_path)
    assert state.account(1) is None
    state.save_account("r", 1, a_total(7), ["slab-x"])
    total, swallowed = state.account(1)
    assert (7, ["slab-x"]) == (action_counter(total.layout, total.vector, 0, "done"), swallowed)
    assert state.account(2) is None


def test_an_origin_holds_within_one_boot_of_the_machine(tmp_path, monkeypatch):
    """CLOCK_MONOTONIC starts anew with the machine."""
    state, origin = State(tmp_path), Origin(run=1, start_at_ms=2, origin_ns=-3)
    state.save_origin(origin)
    assert origin == state.origin()
    (tmp_path / "boot").write_text("another\n")
    monkeypatch.setattr("trafficsim_runner.state.MACHINE_BOOT", tmp_path / "boot")
    assert state.origin() is None


def test_garbage_is_nothing(tmp_path):
    """What cannot be read was never there."""
    state = State(tmp_path)
    for name in ("account", "origin.json"):
        (tmp_path / name).write_bytes(b"\xff\x00\n\x01")
    assert (None, None) == (state.account(1), state.origin())
    (tmp_path / "origin.json").write_text("[]")
    assert state.origin() is None


def test_on_a_full_disk_nothing_stale_is_kept(tmp_path, no_room):
    """Without room an assignment is kept not at all, an account stays as it was; no half-written file is left."""
    state = State(tmp_path)
    state.save_assignment(b"{}")
    state.save_account("r", 1, a_total(7), [])
    before = state.account(1)[0].vector.sum()
    with no_room():
        with pytest.raises(OSError, match="too large"):
            state.save_assignment(b'{"newer": 1}')
        with pytest.raises(OSError, match="too large"):
            state.save_account("r", 1, a_total(8), [])
    assert state.assignment() is None
    assert before == state.account(1)[0].vector.sum()
    assert ["account"] == left(state)
