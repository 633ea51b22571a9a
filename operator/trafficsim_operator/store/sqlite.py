"""
The record of local runs: one SQLite file with the documents, their status, their events and the history of runs.

A document's version is a number that every write raises; a status is written only onto the version that was read.
Each `put` under a new UID is an object of its own: runs of the same file at the same time don't meet.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from trafficsim_api.errors import Problem, SpecError, Unavailable
from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_api.status import Status
from trafficsim_operator.actions import Happening
from trafficsim_operator.store import Conflict, Document

__all__ = ["Past", "SqliteRecord"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_KEPT_RUNS: Final = 500
_PATIENCE_S: Final = 5.0
_SCHEMA: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS simulations (
    uid TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL,
    version INTEGER NOT NULL, body TEXT NOT NULL, status TEXT NOT NULL DEFAULT '{}',
    source TEXT NOT NULL DEFAULT '', allowed TEXT NOT NULL DEFAULT '[]', started_ms INTEGER NOT NULL,
    finished_ms INTEGER, verdict TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', report TEXT
);
CREATE TABLE IF NOT EXISTS events (
    uid TEXT NOT NULL REFERENCES simulations ON DELETE CASCADE, at_ms INTEGER NOT NULL, reason TEXT NOT NULL,
    message TEXT NOT NULL, warning INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_simulation ON events (uid);
CREATE TABLE IF NOT EXISTS totals (
    uid TEXT NOT NULL REFERENCES simulations ON DELETE CASCADE, runner TEXT NOT NULL, answer BLOB NOT NULL,
    PRIMARY KEY (uid, runner)
);
CREATE TABLE IF NOT EXISTS saved (
    uid TEXT PRIMARY KEY REFERENCES simulations ON DELETE CASCADE, task TEXT NOT NULL, sealed TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One run in the history; *allowed* are the targets opened for it on the command line."""

    uid: str
    name: str
    source: str
    allowed: tuple[str, ...]
    started_ms: int
    finished_ms: int | None
    verdict: str
    reason: str
    report: Mapping[str, Any] | None


class SqliteRecord:
    """A Record in an SQLite file; use as an asynchronous context manager."""

    def __init__(self, path: Path | None, now_ms: Callable[[], int]) -> None:
        """Keep the record at *path*, in memory when None."""
        self._path, self._now_ms = path, now_ms
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="record")
        self._database: sqlite3.Connection | None = None
        self._uids: dict[tuple[str, str], str] = {}
        self._listeners: list[Callable[[Happening], None]] = []

    async def __aenter__(self) -> SqliteRecord:
        """Open the file; raise SpecError naming it when it cannot be used."""
        try:
            await self._do(self._open)
        except (sqlite3.Error, OSError, Unavailable) as error:
            self._thread.shutdown()
            raise SpecError(Problem(field="--history", reason=f"{self._path} cannot be used: {error}")) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the file."""
        await self._do(self._close)
        self._thread.shutdown()

    def listen(self, listener: Callable[[Happening], None]) -> None:
        """Have *listener* called with every event that is told."""
        self._listeners.append(listener)

    # The Record.

    async def read(self, namespace: str, name: str) -> Document | None:
        """Return the document, None when there is none (any more)."""
        uid = self._uids.get((namespace, name), "")
        row = await self._do(lambda db: db.execute(_READ, (uid,)).fetchone())
        if row is None:
            return None
        generation, version, body, status = row
        return Document(
            namespace=namespace, name=name, uid=uid, generation=generation, version=str(version),
            body={**json.loads(body), "status": json.loads(status)},
        )  # fmt: skip

    async def write(self, document: Document, status: Status) -> None:
        """Write the complete status if the record still has *document*'s version; raise Conflict if not."""
        text = status.model_dump_json(exclude_none=True, by_alias=True)
        written = await self._change(_WRITE, (text, document.uid, int(document.version)))
        if not written:
            raise Conflict(f"{document.namespace}/{document.name} is no longer at version {document.version}")

    async def tell(self, document: Document, happenings: tuple[Happening, ...]) -> None:
        """Keep events; a failure is logged, never raised."""
        for happening in happenings:
            for listener in self._listeners:
                listener(happening)
            values = (document.uid, self._now_ms(), happening.reason, happening.message, happening.warning)
            try:
                await self._change("INSERT INTO events VALUES (?, ?, ?, ?, ?)", values)
            except Unavailable as error:
                log.warning("event not kept", extra={"reason": happening.reason, "error": str(error)})

    async def totals(self, document: Document) -> Mapping[str, bytes]:
        """Return the encoded last answers of ended runners by runner UID."""
        query = "SELECT runner, answer FROM totals WHERE uid = ?"
        return dict(await self._do(lambda db: db.execute(query, (document.uid,)).fetchall()))

    async def keep_totals(self, document: Document, runner: str, answer: bytes) -> None:
        """Keep the last answer (statistics.Answer, encoded) of a runner that ends."""
        await self._change("INSERT OR REPLACE INTO totals VALUES (?, ?, ?)", (document.uid, runner, answer))

    async def saved(self, document: Document, task: str) -> str | None:
        """Return what the setup *task* saved, sealed as it was kept; None when nothing of it was."""
        query = "SELECT sealed FROM saved WHERE uid = ? AND task = ?"
        row = await self._do(lambda db: db.execute(query, (document.uid, task)).fetchone())
        return None if row is None else str(row[0])

    async def keep_saved(self, document: Document, task: str, sealed: str) -> None:
        """Keep what the setup *task* saved, *sealed* for the operator, in place of what an earlier one did."""
        await self._change("INSERT OR REPLACE INTO saved VALUES (?, ?, ?)", (document.uid, task, sealed))

    # What a user with kubectl does, and the history.

    async def put(
        self,
        body: Mapping[str, Any],
        *,
        namespace: str,
        name: str,
        uid: str,
        source: str = "",
        allowed: Sequence[str] = (),
    ) -> int:
        """Create the object, or replace its spec, and return its generation; the same spec again changes nothing."""
        self._uids[namespace, name] = uid
        values = (source, json.dumps(list(allowed)), self._now_ms())
        return await self._do(lambda db: _at_once(db, lambda: _put(db, dict(body), (uid, namespace, name), values)))

    async def adopt(self, namespace: str, name: str) -> bool:
        """Go by the newest run of that name that has not ended, whoever runs it; say whether there is one."""
        row = await self._do(lambda db: db.execute(_GOING_ON, (namespace, name)).fetchone())
        if row is not None:
            self._uids[namespace, name] = row[0]
        return row is not None

    async def annotate(self, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Write *annotations* onto the object beside those it has; its generation stays, as its spec does."""
        patch = json.dumps({"metadata": {"annotations": dict(annotations)}})
        await self._change(_ANNOTATE, (patch, self._uids[namespace, name]))

    async def finish(self, uid: str, *, verdict: str, reason: str, report: Mapping[str, Any]) -> None:
        """Write how the run ended into the history, drop what only a running one needs, and forget the oldest runs."""
        values = (self._now_ms(), verdict, reason, json.dumps(report), uid)
        await self._change(_FINISH, values)
        await self._change("DELETE FROM totals WHERE uid = ?", (uid,))
        await self._change("DELETE FROM saved WHERE uid = ?", (uid,))
        await self._change(_PRUNE, (_KEPT_RUNS,))

    async def history(self, limit: int = 20) -> list[Past]:
        """Return the newest runs, newest first."""
        rows = await self._do(lambda db: db.execute(_HISTORY, (limit,)).fetchall())
        return [
            Past(
                uid=uid, name=name, source=source, allowed=tuple(json.loads(allowed)), started_ms=started,
                finished_ms=finished, verdict=verdict, reason=reason, report=json.loads(report) if report else None,
            )
            for uid, name, source, allowed, started, finished, verdict, reason, report in rows
        ]  # fmt: skip

    # The database, on its own thread.

    async def _do(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def run() -> _T:
            if self._database is None:
                self._database = sqlite3.connect(self._path or ":memory:", timeout=_PATIENCE_S)
                self._database.isolation_level = None
            try:
                return work(self._database)
            except sqlite3.OperationalError as error:
                # What cannot even be opened is the user's to mend.
                if self._path is None or work == self._open or not _is_out_of_room(error):
                    raise
                return work(self._move_to_memory(self._database, self._path, error))

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except sqlite3.OperationalError as error:
            raise Unavailable(f"the record at {self._path or 'memory'}: {error}") from error

    async def _change(self, statement: str, values: Sequence[Any]) -> int:
        return await self._do(lambda db: db.execute(statement, values).rowcount)

    def _open(self, database: sqlite3.Connection) -> None:
        (schema,) = database.execute("PRAGMA user_version").fetchone()
        if schema not in (0, _SCHEMA):
            raise sqlite3.DatabaseError(f"it has schema {schema}, this version of trafficsim knows {_SCHEMA}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA foreign_keys = ON")
        database.executescript(_TABLES)
        database.execute(f"PRAGMA user_version = {_SCHEMA}")

    def _move_to_memory(self, full: sqlite3.Connection, path: Path, why: sqlite3.Error) -> sqlite3.Connection:
        """Go on in memory, and say so: a disk that fills up must not end a run whose numbers nobody else has."""
        if full.in_transaction:
            full.execute("ROLLBACK")
        self._path, self._database = None, sqlite3.connect(":memory:", isolation_level=None)
        full.backup(self._database)
        full.close()
        self._database.execute("PRAGMA foreign_keys = ON")
        log.warning("the history is kept no longer", extra={"file": str(path), "error": str(why)})
        return self._database

    def _close(self, database: sqlite3.Connection) -> None:
        database.close()
        self._database = None


def _is_out_of_room(error: sqlite3.Error) -> bool:
    """Say whether the disk took no more: it is full, or failed."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_IOERR"))


_READ: Final = "SELECT generation, version, body, status FROM simulations WHERE uid = ?"
_WRITE: Final = "UPDATE simulations SET status = ?, version = version + 1 WHERE uid = ? AND version = ?"
_GOING_ON: Final = """
SELECT uid FROM simulations WHERE namespace = ? AND name = ? AND finished_ms IS NULL
ORDER BY started_ms DESC, rowid DESC LIMIT 1
"""
_ANNOTATE: Final = "UPDATE simulations SET body = json_patch(body, ?), version = version + 1 WHERE uid = ?"
_FINISH: Final = "UPDATE simulations SET finished_ms = ?, verdict = ?, reason = ?, report = ? WHERE uid = ?"
_PRUNE: Final = """
DELETE FROM simulations WHERE finished_ms IS NOT NULL
AND uid NOT IN (SELECT uid FROM simulations ORDER BY started_ms DESC, rowid DESC LIMIT ?)
"""
_HISTORY: Final = """
SELECT uid, name, source, allowed, started_ms, finished_ms, verdict, reason, report
FROM simulations ORDER BY started_ms DESC, rowid DESC LIMIT ?
"""


def _at_once(database: sqlite3.Connection, work: Callable[[], _T]) -> _T:
    """Do *work* in one transaction: a command comes from another process, and is neither lost nor half seen."""
    database.execute("BEGIN IMMEDIATE")
    try:
        done = work()
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
    return done


def _put(
    database: sqlite3.Connection,
    body: dict[str, Any],
    identity: tuple[str, str, str],
    values: tuple[str, str, int],
) -> int:
    uid, namespace, name = identity
    row = database.execute(_READ, (uid,)).fetchone()
    before = json.loads(row[2]) if row is not None else {}
    same = row is not None and before.get("spec") == body.get("spec")
    generation = 1 if row is None else row[0] + (0 if same else 1)
    metadata = {**dict(body.get("metadata") or {}), "name": name, "namespace": namespace}
    # As with kubectl: a command that somebody gave meanwhile is not taken away by an edit that has none.
    given = (before.get("metadata", {}).get("annotations") or {}).get(COMMAND_ANNOTATION)
    if given is not None:
        metadata["annotations"] = {COMMAND_ANNOTATION: given, **dict(metadata.get("annotations") or {})}
    body["metadata"] = {**metadata, "uid": uid, "generation": generation}
    body.pop("status", None)
    text = json.dumps(body)
    if row is None:
        statement = """
            INSERT INTO simulations (uid, namespace, name, generation, version, body, source, allowed, started_ms)
            VALUES (?, ?, ?, 1, 1, ?, ?, ?, ?)
        """
        database.execute(statement, (uid, namespace, name, text, *values))
    elif not same or before != body:
        statement = "UPDATE simulations SET body = ?, generation = ?, version = version + 1 WHERE uid = ?"
        database.execute(statement, (text, generation, uid))
    return int(generation)
