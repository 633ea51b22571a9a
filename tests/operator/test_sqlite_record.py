"""The local record: compare-and-set of status, generations, history."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from trafficsim_api.errors import SpecError
from trafficsim_api.phases import Phase
from trafficsim_api.status import Status
from trafficsim_operator.actions import Happening
from trafficsim_operator.store import Conflict
from trafficsim_operator.store.sqlite import SqliteRecord

UID = "6f1d0f5e-0000-4000-8000-000000000001"
OTHER_UID = "6f1d0f5e-0000-4000-8000-000000000002"


def a_body(users: int = 10, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trafficsim.io/v1alpha1",
        "kind": "TrafficSimulation",
        "metadata": {"name": "shop", **metadata},
        "spec": {"users": users},
    }


@pytest.fixture
async def record(tmp_path: Path) -> AsyncIterator[SqliteRecord]:
    async with SqliteRecord(tmp_path / "history.db", now_ms=lambda: 1_700_000_000_000) as opened:
        yield opened


async def put(record: SqliteRecord, body: dict[str, Any], uid: str = UID, **more: Any) -> int:
    return await record.put(body, namespace="local", name="shop", uid=uid, **more)


async def test_nothing_is_there_before_it_is_put(record: SqliteRecord) -> None:
    assert await record.read("local", "shop") is None


async def test_a_document_is_read_as_an_api_server_would_give_it(record: SqliteRecord) -> None:
    await put(record, a_body())
    document = await record.read("local", "shop")
    assert document is not None
    assert ("local", "shop", UID, 1) == (document.namespace, document.name, document.uid, document.generation)
    assert {"name": "shop", "namespace": "local", "uid": UID, "generation": 1} == document.body["metadata"]
    assert {"users": 10} == document.body["spec"]
    assert {} == document.body["status"]


async def test_the_generation_counts_changes_of_the_spec_only(record: SqliteRecord) -> None:
    assert [1, 1, 1, 2] == [
        await put(record, body)
        for body in (a_body(), a_body(), a_body(annotations={"trafficsim.io/command": "{}"}), a_body(users=20))
    ]


async def test_a_status_comes_back_as_written(record: SqliteRecord) -> None:
    await put(record, a_body())
    document = await record.read("local", "shop")
    assert document is not None
    status = Status(phase=Phase.RUNNING, epoch=3, message="60 users")
    await record.write(document, status)
    again = await record.read("local", "shop")
    assert again is not None
    assert status == Status.model_validate(again.body["status"], by_alias=True, strict=False)
    assert document.version != again.version


@pytest.mark.parametrize("between", ["a status", "a spec", "an annotation"])
async def test_a_write_onto_another_version_changes_nothing(record: SqliteRecord, between: str) -> None:
    await put(record, a_body())
    document = await record.read("local", "shop")
    assert document is not None
    if between == "a status":
        await record.write(document, Status(epoch=1))
    else:
        await put(record, a_body(users=20) if between == "a spec" else a_body(annotations={"a": "b"}))
    with pytest.raises(Conflict):
        await record.write(document, Status(epoch=2))
    again = await record.read("local", "shop")
    assert again is not None
    assert (1 if between == "a status" else None) == again.body["status"].get("epoch")


async def test_an_edit_keeps_the_status(record: SqliteRecord) -> None:
    await put(record, a_body())
    document = await record.read("local", "shop")
    assert document is not None
    await record.write(document, Status(epoch=7))
    await put(record, a_body(users=20))
    again = await record.read("local", "shop")
    assert again is not None
    assert (7, 2) == (again.body["status"]["epoch"], again.generation)


async def test_runs_of_one_file_do_not_meet(record: SqliteRecord, tmp_path: Path) -> None:
    """Two terminals, one history: each sees its own object."""
    await put(record, a_body(users=1))
    async with SqliteRecord(tmp_path / "history.db", now_ms=lambda: 0) as other:
        await put(other, a_body(users=2), uid=OTHER_UID)
        mine, theirs = await record.read("local", "shop"), await other.read("local", "shop")
    assert mine is not None
    assert theirs is not None
    assert ((UID, 1), (OTHER_UID, 2)) == tuple((found.uid, found.body["spec"]["users"]) for found in (mine, theirs))


async def test_totals_of_ended_runners(record: SqliteRecord) -> None:
    await put(record, a_body())
    document = await record.read("local", "shop")
    assert document is not None
    await record.keep_totals(document, "runner-1", b"first")
    await record.keep_totals(document, "runner-1", b"newer")
    await record.keep_totals(document, "runner-2", b"\x00\xff")
    assert {"runner-1": b"newer", "runner-2": b"\x00\xff"} == dict(await record.totals(document))


async def test_events_are_kept_and_heard(record: SqliteRecord, tmp_path: Path) -> None:
    heard: list[Happening] = []
    record.listen(heard.append)
    await put(record, a_body())
    document = await record.read("local", "shop")
    assert document is not None
    happening = Happening(reason="RunnerLost", message="shop-1 is gone", warning=True)
    await record.tell(document, (happening,))
    assert [happening] == heard
    with sqlite3.connect(tmp_path / "history.db") as database:
        kept = database.execute("SELECT uid, reason, message, warning FROM events").fetchall()
    database.close()
    assert [(UID, "RunnerLost", "shop-1 is gone", 1)] == kept


async def test_the_history_says_what_was_opened_for_a_run(record: SqliteRecord) -> None:
    await put(record, a_body(), source="shop.yaml", allowed=("shop.example.com:443",))
    await record.finish(UID, verdict="Passed", reason="every rule holds", report={"requests": 5})
    (past,) = await record.history()
    assert ("shop", "shop.yaml", ("shop.example.com:443",)) == (past.name, past.source, past.allowed)
    assert ("Passed", "every rule holds", {"requests": 5}) == (past.verdict, past.reason, past.report)


async def test_the_history_outlives_the_process(tmp_path: Path) -> None:
    async with SqliteRecord(tmp_path / "history.db", now_ms=lambda: 1) as first:
        await put(first, a_body())
    async with SqliteRecord(tmp_path / "history.db", now_ms=lambda: 2) as second:
        assert [UID] == [past.uid for past in await second.history()]
        assert await second.read("local", "shop") is None


async def test_the_oldest_finished_runs_are_forgotten(record: SqliteRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trafficsim_operator.store.sqlite._KEPT_RUNS", 2)
    for number in range(4):
        await put(record, a_body(), uid=f"run-{number}")
        await record.finish(f"run-{number}", verdict="Passed", reason="", report={})
    assert {"run-3", "run-2"} >= {past.uid for past in await record.history()}


async def test_in_memory(tmp_path: Path) -> None:
    async with SqliteRecord(None, now_ms=lambda: 0) as record:
        assert 1 == await put(record, a_body())


@pytest.mark.parametrize(
    "content", [b"this is no database, but it is long enough to be read", None], ids=["text", "a directory"]
)
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "history.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=r"--history: .*history.db cannot be used") as caught:
        async with SqliteRecord(path, now_ms=lambda: 0):
            pass
    assert "--history" == caught.value.problems[0].field


async def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(SpecError, match="schema 99"):
        async with SqliteRecord(path, now_ms=lambda: 0):
            pass


async def test_what_setup_saved_is_kept_until_the_run_has_ended(tmp_path: Path) -> None:
    """The newest one's, sealed as it came; the history has nothing of it."""
    async with SqliteRecord(tmp_path / "history.db", now_ms=lambda: 0) as record:
        await put(record, a_body())
        document = await record.read("local", "shop")
        assert document is not None
        assert await record.saved(document, "1-setup") is None
        await record.keep_saved(document, "1-setup", "c2VhbGVk")
        assert "c2VhbGVk" == await record.saved(document, "1-setup")
        await record.keep_saved(document, "2-setup", "b3RoZXI=")
        assert (None, "b3RoZXI=") == (await record.saved(document, "1-setup"), await record.saved(document, "2-setup"))
        await record.finish(document.uid, verdict="Passed", reason="", report={})
        assert await record.saved(document, "2-setup") is None


async def test_a_disk_that_fills_up_ends_no_run(
    record: SqliteRecord, tmp_path: Path, no_room: Callable[[], AbstractContextManager[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The record goes on in memory with all it had, and says so once; the file keeps what it had."""
    await put(record, a_body())
    with no_room():
        before = await record.read("local", "shop")
        assert before is not None
        for phase in (Phase.STARTING, Phase.RUNNING):
            document = await record.read("local", "shop")
            assert document is not None
            await record.write(document, Status(phase=phase))
        after = await record.read("local", "shop")
    assert after is not None
    assert "Running" == after.body["status"]["phase"]
    assert int(before.version) + 2 == int(after.version)
    await record.finish(UID, verdict="Passed", reason="", report={})
    assert ["Passed"] == [past.verdict for past in await record.history(10)]
    assert ["the history is kept no longer"] == [entry.getMessage() for entry in caplog.records]
    async with SqliteRecord(tmp_path / "history.db", now_ms=lambda: 0) as file:
        assert [""] == [past.verdict for past in await file.history(10)]
