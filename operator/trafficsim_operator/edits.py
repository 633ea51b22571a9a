"""Edits of a file while its simulation runs: each one read, judged and described."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from watchfiles import Change, awatch

from trafficsim_api.document import load, parse
from trafficsim_api.errors import Problem, SpecError

__all__ = ["Edit", "changes", "edits"]

log = logging.getLogger(__name__)

_DEBOUNCE_MS: Final = 300  # an editor writes a file in several steps
_STEP_MS: Final = 50
_LOOK_MS: Final = 2_000  # also without a word from the kernel: network file systems have none


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One edit: the new *body* and *what* is new about it, or the *problems* that keep it from being taken over."""

    body: Mapping[str, Any] = field(default_factory=dict)
    what: str = ""
    problems: tuple[Problem, ...] = ()


async def edits(file: Path, body: Mapping[str, Any]) -> AsyncIterator[Edit]:
    """Yield every edit of *file* that changes something; *body* is what stood there last."""
    wrong: tuple[Problem, ...] = ()
    async for _ in _wakes(file):
        edit = _read(file, body)
        if edit is None:  # Replaced this very moment: what comes is another change.
            continue
        if edit.problems:
            if edit.problems != wrong:
                yield edit
        elif edit.what:
            body = edit.body
            yield edit
        wrong = edit.problems


async def _wakes(file: Path) -> AsyncIterator[None]:
    """Yield whenever *file* may have changed; every two seconds where the kernel cannot watch it."""

    def concerns(change: Change, path: str) -> bool:
        return Path(path).name == file.name

    # Subtle: the directory is watched, because many editors replace the file rather than write into it.
    watch = awatch(
        file.absolute().parent, watch_filter=concerns, debounce=_DEBOUNCE_MS, step=_STEP_MS, recursive=False,
        rust_timeout=_LOOK_MS, yield_on_timeout=True,
    )  # fmt: skip
    try:
        async for _ in watch:
            yield
    except (OSError, RuntimeError) as error:
        # No watch left (fs.inotify.max_user_watches), or the directory is gone for now.
        log.warning("the file is read every 2 s instead of watched", extra={"error": str(error)})
    while True:
        await asyncio.sleep(_LOOK_MS / 1000)
        yield


def _read(file: Path, before: Mapping[str, Any]) -> Edit | None:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return Edit(problems=(Problem(field=str(file), reason=f"cannot be read: {error.strerror}"),))
    try:
        load(data, file.name)
        body = parse(data, file.name)
    except SpecError as error:
        return Edit(problems=error.problems)
    return Edit(body=body, what=changes(before, body))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """
    Return what of the spec differs, in the order of the new document.

    `users: 10 → 20, thresholds`: a value that fits on the line is shown, of any other the name.
    """
    old, new = before.get("spec", {}), after.get("spec", {})
    found = []
    for key in [*new, *(key for key in old if key not in new)]:
        if old.get(key) == new.get(key):
            continue
        values = [str(_plain(spec.get(key, "(default)"))) for spec in (old, new)]
        simple = all(not isinstance(spec.get(key), (dict, list)) for spec in (old, new))
        found.append(f"{key}: {values[0]} → {values[1]}" if simple else key)
    if before.get("metadata") != after.get("metadata"):
        found.append("metadata")
    return ", ".join(found)


def _plain(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
