"""The record of every change of the active users: what is written is what is read, and workers add up."""

from pathlib import Path

from trafficsim_runner.stats.active import ActiveLog, Change, merged, read_active


def test_each_change_is_a_line_with_its_instant_and_epoch(tmp_path: Path) -> None:
    """It is there at once, not only when the file is closed."""
    instants = iter([10, 30])
    log = ActiveLog(tmp_path / "1-0.active", lambda: next(instants))
    log.epoch = 4
    log.add(2)
    assert [Change(at_ns=10, epoch=4, active=2)] == read_active(tmp_path / "1-0.active")
    log.epoch = 5
    log.add(1)
    assert [Change(10, 4, 2), Change(30, 5, 1)] == read_active(tmp_path / "1-0.active")
    log.close()


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    """A worker may be killed while it writes."""
    (tmp_path / "1-0.active").write_text("10 4 2\n30 5")
    assert [Change(10, 4, 2)] == read_active(tmp_path / "1-0.active")


def test_workers_add_up() -> None:
    """2 from 10 on, 7 from 20 on, 8 from 30 on, as the docstring says."""
    one, other = [Change(10, 1, 2), Change(30, 3, 3)], [Change(20, 2, 5)]
    assert [Change(10, 1, 2), Change(20, 2, 7), Change(30, 3, 8)] == merged([one, other])
