"""The slab: what the worker writes is what the supervisor reads, at one instant, also after the worker died."""

from __future__ import annotations

import pytest

from trafficsim_api.layout import Layout
from trafficsim_runner.stats.slab import HEADER, SlabWriter
from trafficsim_runner.stats.slab_reader import Slab, TornSlab

LAYOUT = Layout(actions=(("login", "auth"), ("GET /users/{{user.id}}", "user")))


def a_slab(tmp_path, layout=LAYOUT, **options):
    return SlabWriter(tmp_path / "worker-0.slab", layout, started_ns=1, **options)


def take(writer, mono_ns=5, active=3):
    writer.snapshot(mono_ns=mono_ns, wall_ms=6, active=active, wanted=4, epoch=7)


def test_live_counts_are_seen_by_the_next_snapshot(tmp_path):
    """A snapshot holds the figures of its instant, final() those of now."""
    writer = a_slab(tmp_path)
    reader = Slab.open(writer.path)
    done = LAYOUT.action(1, "done")
    writer.live[done] += 2
    take(writer)
    writer.live[done] += 1
    assert reader.layout == LAYOUT
    assert 2 == reader.snapshot().vector[done]
    assert 3 == reader.final().vector[done]
    assert (5, 6, 3, 4, 7) == tuple(
        getattr(reader.snapshot(), name) for name in ("mono_ns", "wall_ms", "active", "wanted", "epoch")
    )


def test_only_changed_actions_are_copied_and_none_is_missed(tmp_path):
    """A second snapshot brings the new counts of one action and keeps those of the other."""
    writer = a_slab(tmp_path)
    reader = Slab.open(writer.path)
    for action in (0, 1):
        writer.live[LAYOUT.action(action, "done")] += 1
        writer.live[LAYOUT.service(action) + 100] += 1
        take(writer)
    vector = reader.snapshot().vector
    assert [1, 1] == [vector[LAYOUT.service(action) + 100] for action in (0, 1)]


def test_response_times_mirror_service_times(tmp_path):
    """In the closed model both are one: written once, read twice."""
    writer = a_slab(tmp_path)
    writer.live[LAYOUT.service(0) + 7] += 4
    writer.live[LAYOUT.action(0, "service_ns")] += 28
    writer.extremes[0], writer.extremes[1] = 6, 8
    final = Slab.open(writer.path).final()
    assert 4 == final.vector[LAYOUT.response(0) + 7]
    assert 28 == final.vector[LAYOUT.action(0, "response_ns")]
    assert (6, 8, 6, 8, 0, 0, 0, 0) == final.extremes


def test_the_warm_up_is_a_copy_of_its_end(tmp_path):
    """Before the mark there is none; afterwards it stands still."""
    writer = a_slab(tmp_path)
    reader = Slab.open(writer.path)
    assert reader.warmup() is None
    writer.live[LAYOUT.action(0, "done")] += 5
    writer.mark_warm()
    writer.live[LAYOUT.action(0, "done")] += 5
    assert 5 == reader.warmup()[LAYOUT.action(0, "done")]


def test_a_grown_layout_keeps_the_counts(tmp_path):
    """An edit of the load appends actions: old indices keep their meaning, old counts and the warm-up move along."""
    writer = a_slab(tmp_path)
    writer.live[LAYOUT.action(1, "done")] += 9
    writer.mark_warm()
    grown = Layout(actions=(*LAYOUT.actions, ("logout", "auth")))
    after = SlabWriter(tmp_path / "worker-0.slab.1", grown, started_ns=1, before=writer)
    reader = Slab.open(after.path)
    assert 9 == reader.final().vector[grown.action(1, "done")] == reader.warmup()[grown.action(1, "done")]
    assert 0 == reader.final().vector[grown.action(2, "done")]
    with pytest.raises(ValueError, match="only grows"):
        SlabWriter(tmp_path / "x", Layout(actions=(("other", "user"),)), started_ns=1, before=writer)


def test_metrics_move_behind_the_actions_that_come(tmp_path):
    """A new action stands before the metrics: their counts move along, in every area, and nothing stays behind."""
    metrics = (("rows", "trend", ""), ("exported", "counter", ""))
    before = Layout(actions=LAYOUT.actions, metrics=metrics[:1])
    writer = SlabWriter(tmp_path / "worker-0.slab", before, started_ns=1)
    writer.live[before.metric(0)] = 3
    writer.live[before.trend(0) + 40] = 3
    writer.mark_warm()
    writer.snapshot(mono_ns=1, wall_ms=1, active=0, wanted=0, epoch=1)
    after = Layout(actions=(*LAYOUT.actions, ("logout", "auth")), metrics=metrics)
    reader = Slab.open(SlabWriter(tmp_path / "worker-0.slab.1", after, started_ns=1, before=writer).path)
    assert after == reader.layout
    for vector in (reader.final().vector, reader.warmup(), reader.snapshot().vector):
        assert (3, 3, 6) == (vector[after.metric(0)], vector[after.trend(0) + 40], vector.sum())


def test_a_torn_snapshot_is_said(tmp_path):
    """A worker killed while it copied leaves an odd sequence: the snapshot is refused, the live counts are whole."""
    writer = a_slab(tmp_path)
    writer.live[0] = 11
    writer._header[HEADER["sequence"]] += 1
    reader = Slab.open(writer.path)
    with pytest.raises(TornSlab):
        reader.snapshot()
    assert 11 == reader.final().vector[0]


def test_another_file_is_refused(tmp_path):
    """What is no slab is named, not read."""
    path = tmp_path / "x"
    path.write_bytes(b"\0" * 8192)
    with pytest.raises(ValueError, match="no slab"):
        Slab.open(path)


def test_a_slab_has_its_room_from_the_start(tmp_path):
    """Blocks for the whole file are taken, so a disk that fills up later costs no count."""
    status = a_slab(tmp_path).path.stat()
    assert status.st_blocks * 512 >= status.st_size


def test_without_room_there_is_no_slab(tmp_path, no_room):
    """It is said when it is made, and no half of it is left."""
    with no_room(), pytest.raises(OSError, match="too large"):
        a_slab(tmp_path)
    assert [] == list(tmp_path.iterdir())
