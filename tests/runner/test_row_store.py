"""The runner's rows: taken with an assignment or from a file, kept once, and refused with the field that is wrong."""

from __future__ import annotations

import os

import pytest

from supervised.running import a_load
from trafficsim_api.data import Feed
from trafficsim_api.protocol import Assignment, Limits, Refused
from trafficsim_api.resource import Archetype
from trafficsim_api.tables import Table
from trafficsim_runner.feeding import read_rows
from trafficsim_runner.rows import RowStore

TABLE = Table(("user",), (("ann",), ("bob",)))
OTHER = Table(("user", "more"), (("cid", "x"),))


def a_feed(table=None, *, mode="circular", path=None):
    return Feed(name="accounts", mode=mode, digest=table.digest if table else None, path=path)


def an_assignment(feed, *sent, users=2):
    flow = [{"request": {"get": "/{{data.accounts.user}}"}}]
    archetype = Archetype.model_validate_json(f'{{"name": "a", "flow": {flow}}}'.replace("'", '"'))
    load = a_load().model_copy(update={"data": (feed,), "archetypes": (archetype,)})
    return Assignment(
        simulation="s", run=1, runner="r", revision="v", epoch=1, users=users, places=((0, users),), processes=1,
        start_at_ms=0, warm_up_ms=0, end_ms=9, load=load, limits=Limits(targets=()),
        rows={table.digest: table.packed for table in sent},
    )  # fmt: skip


def test_rows_are_kept_as_long_as_they_are_named(tmp_path):
    """Sent once, then known by their digest; others take their place."""
    store = RowStore(tmp_path)
    files = store.take(an_assignment(a_feed(TABLE), TABLE), {})
    store.keep(files)
    assert (TABLE.digest,) == store.digests
    assert files == store.take(an_assignment(a_feed(TABLE)), files)
    assert files == RowStore(tmp_path).take(an_assignment(a_feed(TABLE)), {}), "after a restart of the container"
    newer = store.take(an_assignment(a_feed(OTHER), OTHER), files)
    store.keep(newer)
    assert (OTHER.digest,) == store.digests
    assert OTHER == read_rows(an_assignment(a_feed(OTHER)).load, newer, {})["accounts"].table


def test_a_feeder_without_digest_and_path_keeps_its_rows(tmp_path):
    """So a load goes on whose ConfigMap was removed; a runner that has none says so."""
    store = RowStore(tmp_path)
    files = store.take(an_assignment(a_feed(TABLE), TABLE), {})
    assert files == store.take(an_assignment(a_feed()), files)
    with pytest.raises(Refused, match=r"data\[0\]: the rows of accounts are not there"):
        RowStore(tmp_path).take(an_assignment(a_feed()), {})


def test_rows_there_is_no_room_for_are_refused(tmp_path):
    """507 and the field, nothing half written; what is there already is not written again after a restart."""
    (tmp_path / f"rows-{TABLE.digest}.new").mkdir()  # so that it cannot be written to
    with pytest.raises(Refused, match=r"data\[0\]: the rows cannot be kept in the state directory: ") as raised:
        RowStore(tmp_path).take(an_assignment(a_feed(TABLE), TABLE), {})
    assert (507, True) == (raised.value.status, raised.value.is_signed)
    (tmp_path / f"rows-{TABLE.digest}.new").rmdir()
    path = tmp_path / "users.csv"
    path.write_text("user\nann\nbob\n")
    files = RowStore(tmp_path).take(an_assignment(a_feed(path=str(path))), {})
    (tmp_path / f"rows-{TABLE.digest}.new").mkdir()
    assert files == RowStore(tmp_path).take(an_assignment(a_feed(path=str(path))), {})


def test_nothing_keeps_a_runner_from_draining(tmp_path):
    """A runner that is to retire keeps its rows, whatever became of those it is told."""
    store = RowStore(tmp_path)
    files = store.take(an_assignment(a_feed(TABLE), TABLE), {})
    going = an_assignment(a_feed(OTHER), users=0).model_copy(update={"retire": True})
    assert files == store.take(going, files)
    with pytest.raises(Refused):
        store.take(going, {})


def test_a_file_that_was_spoilt_changes_nothing(tmp_path):
    """The rows read before stay in force as long as they are what the load asks for."""
    store, file = RowStore(tmp_path), tmp_path / "accounts.csv"
    file.write_text("user\nann\nbob\n")
    files = store.take(an_assignment(a_feed(path=str(file), mode="unique")), {})
    file.write_text("other\nann\n")
    assert files == store.take(an_assignment(a_feed(path=str(file), mode="unique")), files)
    with pytest.raises(Refused, match="has no column user"):
        store.take(an_assignment(a_feed(path=str(file), mode="unique"), users=3), files)


def test_a_file_is_read_again_when_it_changed(tmp_path):
    """A file in the runner's image, in either format."""
    store, file = RowStore(tmp_path), tmp_path / "accounts.csv"
    file.write_text("user\nann\nbob\n")
    files = store.take(an_assignment(a_feed(path=str(file))), {})
    assert str(tmp_path / f"rows-{TABLE.digest}") == files["accounts"]
    assert files == store.take(an_assignment(a_feed(path=str(file))), files)
    file.write_text("user\nbob\n")
    os.utime(file, ns=(1, 1))
    assert files != store.take(an_assignment(a_feed(path=str(file))), files)


@pytest.mark.parametrize(
    ("text", "feed", "reason"),
    [
        pytest.param(None, {}, "data[0].from.path: {file} cannot be read: No such file or directory", id="missing"),
        pytest.param("user\na,b\n", {}, "data[0].from.path: {file}: line 2: 1 cells are needed, not 2", id="no-csv"),
        pytest.param(
            "name\na\n", {},
            "data[0].from.path: archetypes[0].flow[0].request.get: data accounts has no column user, only name",
            id="column",
        ),
        pytest.param(
            "user\na\n", {"mode": "unique"},
            "data[0].from.path: unique needs a row for each user: 1 rows are too few for 2 users", id="too-few",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, feed, reason):
    """The field, the file, and what is wrong in it."""
    file = tmp_path / "accounts.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Refused) as refused:
        RowStore(tmp_path).take(an_assignment(a_feed(path=str(file), **feed)), {})
    assert (422, reason.format(file=file)) == (refused.value.status, str(refused.value))


def test_what_is_no_file_is_not_read(tmp_path):
    """A pipe would be waited for without end."""
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(Refused, match="is no file"):
        RowStore(tmp_path).take(an_assignment(a_feed(path=str(tmp_path / "pipe.csv"))), {})


def test_rows_that_are_not_those_named_are_refused(tmp_path):
    """The digest is signed with the load; what comes under it must be it."""
    forged = an_assignment(a_feed(TABLE)).model_copy(update={"rows": {TABLE.digest: OTHER.packed}})
    with pytest.raises(Refused, match="others than their name says"):
        RowStore(tmp_path).take(forged, {})
    with pytest.raises(Refused, match="were not sent"):
        RowStore(tmp_path).take(an_assignment(a_feed(TABLE)), {})
