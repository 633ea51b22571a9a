"""
Edits of a file while its simulation runs: each one read, judged and described.

A command written into the file, as an annotation, counts at the edit that brings it. Later edits are handed over
without it, so that one given meanwhile by `trafficsim pause` and its like stays the newest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from watchfiles import Change, awatch

from trafficsim_api.document import load, parse
from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.names import COMMAND_ANNOTATION

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
            told = _command(edit.body) != _command(body)
            body = edit.body
            yield edit if told else replace(edit, body=_without_command(body))
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
    metadata = [body.get("metadata") for body in (before, after)]
    if (command := _command(after)) and command != _command(before):
        found.append(f"command {command}")
        metadata = [_without_command(body).get("metadata") for body in (before, after)]
    if metadata[0] != metadata[1]:
        found.append("metadata")
    return ", ".join(found)


def _command(body: Mapping[str, Any]) -> object:
    """Return the command that stands in *body*, None when there is none."""
    annotations = (body.get("metadata") or {}).get("annotations")
    return annotations.get(COMMAND_ANNOTATION) if isinstance(annotations, Mapping) else None


def _without_command(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *body* without the command, and without annotations when that was the only one."""
    metadata = dict(body.get("metadata") or {})
    annotations = metadata.pop("annotations", None)
    left = {key: value for key, value in (annotations or {}).items() if key != COMMAND_ANNOTATION}
    return {**body, "metadata": {**metadata, **({"annotations": left} if left else {})}}


def _plain(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
