"""
The rows of test data in the state directory, `rows-<digest>` each, where the workers read them.

Rows come with an assignment, packed, once; or from a file in the runner's image, which is read at each assignment that
finds it changed. What no feeder of the assignment in force names is removed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from trafficsim_api.data import DataLookup, Feed, lookups_of, missing_column, too_few_rows
from trafficsim_api.protocol import Assignment, Refused
from trafficsim_api.tables import CONTENT_BYTES, Table, parsed, unpacked
from trafficsim_runner.logs import event

__all__ = ["RowStore"]

log: Final = logging.getLogger(__name__)

_PREFIX: Final = "rows-"


class RowStore:
    """The rows held in *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shapes: dict[str, tuple[tuple[str, ...], int]] = {}
        """Columns and number of rows by digest."""
        self._files: dict[str, tuple[tuple[int, int, int], str]] = {}
        """Files read by path: what they looked like, and the digest of their rows."""

    @property
    def digests(self) -> tuple[str, ...]:
        """Return which rows are held."""
        return tuple(sorted(path.name.removeprefix(_PREFIX) for path in self._directory.glob(f"{_PREFIX}*[0-9a-f]")))

    def take(self, assignment: Assignment, before: Mapping[str, str]) -> Mapping[str, str]:
        """
        Return the file with the rows of each feeder of *assignment*, by the feeder's name; *before* are those in force.

        Raises Refused: 422 for rows that are not there or cannot be what the load asks of them, 507 for those there is
        no room for.
        """
        found: dict[str, str] = {}
        feeds = assignment.load.data or ()
        lookups = lookups_of(assignment.load.archetypes) if feeds else ()
        for index, feed in enumerate(feeds):
            field = f"data[{index}].from.path" if feed.path is not None else f"data[{index}]"
            try:
                digest = self._digest_of(feed, assignment, before)
                self._check(feed, digest, lookups, assignment.users)
            except (ValueError, OSError) as error:
                code, why = 422, str(error)
                if isinstance(error, OSError):
                    code, why = 507, f"the rows cannot be kept in the state directory: {error.strerror}"
                digest = self._still(feed, before, assignment, lookups)
                if not digest:
                    raise Refused(code, f"{field}: {why}", is_signed=True) from None
                event(log, logging.WARNING, "rows-kept", f"goes on with the rows it has: {field}: {why}")
            found[feed.name] = str(self._path(digest))
        return found

    def keep(self, files: Mapping[str, str]) -> None:
        """Remove all rows but those in *files*."""
        wanted = set(files.values())
        for digest in self.digests:
            if str(self._path(digest)) not in wanted:
                self._path(digest).unlink(missing_ok=True)
                self._shapes.pop(digest, None)

    def _path(self, digest: str) -> Path:
        return self._directory / f"{_PREFIX}{digest}"

    def _digest_of(self, feed: Feed, assignment: Assignment, before: Mapping[str, str]) -> str:
        if feed.path is not None:
            return self._from_file(feed.path)
        digest = feed.digest
        if digest is None:
            if feed.name not in before:
                raise ValueError(f"the rows of {feed.name} are not there")
            return Path(before[feed.name]).name.removeprefix(_PREFIX)
        if not self._path(digest).exists():
            packed = assignment.rows.get(digest)
            if packed is None:
                raise ValueError(f"the rows {digest} were not sent")
            self._save(digest, unpacked(packed, digest))
        return digest

    def _still(
        self, feed: Feed, before: Mapping[str, str], assignment: Assignment, lookups: tuple[DataLookup, ...]
    ) -> str:
        """
        Return the digest of the rows in force where they may stay in place of those that cannot be had, else "".

        So when the runner is to drain, which nothing may keep it from, and when a file in the image was spoilt.
        """
        if feed.name not in before or not (assignment.retire or feed.path is not None):
            return ""
        digest = Path(before[feed.name]).name.removeprefix(_PREFIX)
        if not assignment.retire:
            try:
                self._check(feed, digest, lookups, assignment.users)
            except ValueError:
                return ""
        return digest

    def _from_file(self, written: str) -> str:
        path = Path(written)
        try:
            seen = path.stat()
            if not stat.S_ISREG(seen.st_mode):
                raise ValueError(f"{path} is no file")
            look = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
            known, digest = self._files.get(written, ((0, 0, 0), ""))
            if known == look and self._path(digest).exists():
                return digest
            with path.open("rb") as file:
                data = file.read(CONTENT_BYTES + 1)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        try:
            table = parsed(data, path.name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if not self._path(table.digest).exists():
            self._save(table.digest, table.content)
        self._files[written] = look, table.digest
        return table.digest

    def _save(self, digest: str, content: str) -> None:
        draft = self._directory / f"{_PREFIX}{digest}.new"
        try:
            draft.write_text(content, encoding="utf-8")
            os.replace(draft, self._path(digest))
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise

    def _check(self, feed: Feed, digest: str, lookups: tuple[DataLookup, ...], users: int) -> None:
        shape = self._shapes.get(digest)
        if shape is None:
            table = Table.read(self._path(digest).read_bytes())
            shape = self._shapes[digest] = table.columns, len(table.rows)
        columns, count = shape
        if missing := missing_column(feed.name, columns, lookups):
            raise ValueError(": ".join(missing))
        if feed.mode == "unique" and (few := too_few_rows(count, users)):
            raise ValueError(few)
