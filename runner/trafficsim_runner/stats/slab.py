"""
A worker's counters in one memory-mapped file, written by that worker alone.

    [ header page ][ layout JSON ][ live ][ live extremes ][ snapshot ][ snapshot extremes ][ warm-up ]

Counters are written straight into the *live* area, so a worker that is killed loses only what was in flight. Once a
second the worker copies live to *snapshot* under a sequence number (odd while it copies: a seqlock), so a reader in
another process always sees figures of one instant. *warm-up* is a copy of live at the warm-up's end.

All numbers are unsigned 64-bit in the machine's order; each area starts on a page. In the closed model the response
time equals the service time: then only the service histogram and its sum and extremes are written, the header says
*mirrored*, and the reader fills in the rest. So the response histogram and its sum are written as what they differ by
from the service ones (modulo 2⁶⁴): nothing in the closed model, and either model can follow the other in one slab.
"""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path
from typing import Final

from trafficsim_api.layout import (
    FIRST_ACTION,
    METRIC_COUNTERS,
    METRIC_STRIDE,
    SERVICE,
    STRIDE,
    Layout,
)

__all__ = ["HEADER", "MAGIC", "PAGE", "SLAB_FORMAT", "SlabWriter", "areas"]

PAGE: Final = 4096
MAGIC: Final = int.from_bytes(b"TSIMSLAB", "little")
SLAB_FORMAT: Final = 2

# Names of the header's words. Append only.
HEADER: Final = {
    name: index
    for index, name in enumerate(
        (
            "magic", "format", "json_bytes", "sequence", "mono_ns", "wall_ms", "active", "wanted", "epoch", "pid",
            "warm", "mirrored", "live_active", "live_wanted", "live_epoch", "started_ns",
        )
    )
}  # fmt: skip
_SEQUENCE: Final = HEADER["sequence"]
_LIVE_ACTIVE: Final = HEADER["live_active"]
_LIVE_WANTED: Final = HEADER["live_wanted"]
_LIVE_EPOCH: Final = HEADER["live_epoch"]


def _pages(size: int) -> int:
    return (size + PAGE - 1) // PAGE * PAGE


def areas(layout: Layout, json_bytes: int) -> dict[str, tuple[int, int]]:
    """Return offset and length in bytes of each area of a slab for *layout*, and of the whole file as "file"."""
    at = PAGE + _pages(json_bytes)
    found: dict[str, tuple[int, int]] = {}
    vector, extremes = 8 * layout.size, 8 * layout.extremes
    for name, size in (
        ("live", vector), ("live_extremes", extremes),
        ("snapshot", vector), ("snapshot_extremes", extremes),
        ("warm", vector),
    ):  # fmt: skip
        found[name] = (at, size)
        at += max(PAGE, _pages(size))
    found["file"] = (0, at)
    return found


class SlabWriter:
    """
    The worker's side of its slab: *live* and *extremes* are written directly, `view[index] += 1`.

    Its room on the disk is taken when it is made: a disk that fills up later costs no count (a page of a mapped file
    that finds no room ends the process). Without room there is no slab, and OSError says so. A slab made from an older
    one of the same run begins with its counts (a layout only grows, so the old indices keep their meaning).
    """

    __slots__ = (
        "_file",
        "_header",
        "_rows",
        "_snapshot",
        "_snapshot_extremes",
        "_warm",
        "extremes",
        "layout",
        "live",
        "path",
    )

    def __init__(self, path: Path, layout: Layout, *, started_ns: int, before: SlabWriter | None = None) -> None:
        text = json.dumps([layout.actions, layout.metrics], separators=(",", ":")).encode()
        where = areas(layout, len(text))
        # Made beside and renamed: a reader never opens a half-made slab.
        draft = path.with_name(path.name + ".draft")
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(handle, 0, where["file"][1])
            self._file = mmap.mmap(handle, where["file"][1])
        except OSError:
            draft.unlink()
            raise
        finally:
            os.close(handle)
        self.path = path
        self.layout = layout
        self._rows = (
            *((layout.action(number, "sent"), SERVICE, STRIDE) for number in range(len(layout.actions))),
            *((layout.metric(number), len(METRIC_COUNTERS), METRIC_STRIDE) for number in range(len(layout.metrics))),
        )
        whole = memoryview(self._file)
        whole[PAGE : PAGE + len(text)] = text

        def area(name: str) -> memoryview:
            start, size = where[name]
            return whole[start : start + size].cast("Q")

        self._header = whole[:PAGE].cast("Q")
        self.live = area("live")
        self.extremes = area("live_extremes")
        self._snapshot = area("snapshot")
        self._snapshot_extremes = area("snapshot_extremes")
        self._warm = area("warm")
        fields = (("magic", MAGIC), ("format", SLAB_FORMAT), ("json_bytes", len(text)), ("pid", os.getpid()),
                  ("mirrored", 1), ("started_ns", started_ns))  # fmt: skip
        for name, value in fields:
            self._header[HEADER[name]] = value
        if before is not None:
            self._take_over(before)
        os.rename(draft, path)

    def _take_over(self, before: SlabWriter) -> None:
        mine, theirs = self.layout, before.layout
        if (mine.actions[: len(theirs.actions)], mine.metrics[: len(theirs.metrics)]) != (
            theirs.actions, theirs.metrics
        ):  # fmt: skip
            raise ValueError("a layout only grows: the actions and metrics of the older slab must come first")
        old, new = theirs.first_metric, mine.first_metric
        for area, older in (
            (self.live, before.live), (self._snapshot, before._snapshot), (self._warm, before._warm),
        ):  # fmt: skip
            area[:old] = older[:old]
            area[new : new + len(older) - old] = older[old:]
        for area, older in (
            (self.extremes, before.extremes), (self._snapshot_extremes, before._snapshot_extremes)
        ):  # fmt: skip
            area[: len(older)] = older
        for name in ("mono_ns", "wall_ms", "active", "wanted", "epoch", "warm", "live_active", "live_wanted",
                     "live_epoch"):  # fmt: skip
            self._header[HEADER[name]] = before._header[HEADER[name]]

    @property
    def is_warm(self) -> bool:
        """Say whether the warm-up's end was marked."""
        return bool(self._header[HEADER["warm"]])

    def now(self, *, active: int, wanted: int, epoch: int | None = None) -> None:
        """Note the users active and wanted at this moment: what is lost if the worker dies now."""
        header = self._header
        header[_LIVE_ACTIVE] = active
        header[_LIVE_WANTED] = wanted
        if epoch is not None:
            header[_LIVE_EPOCH] = epoch

    def snapshot(self, *, mono_ns: int, wall_ms: int, active: int, wanted: int, epoch: int) -> None:
        """
        Copy live to the snapshot: figures of one instant.

        An action or metric whose counters did not change since the last snapshot is skipped: no histogram changes then.
        """
        header, live, copy = self._header, self.live, self._snapshot
        header[_SEQUENCE] += 1
        copy[:FIRST_ACTION] = live[:FIRST_ACTION]
        for start, counters, stride in self._rows:
            seen = slice(start, start + counters)
            if copy[seen] != live[seen]:
                copy[start : start + stride] = live[start : start + stride]
        if len(self.extremes):
            self._snapshot_extremes[:] = self.extremes
        for name, value in (("mono_ns", mono_ns), ("wall_ms", wall_ms), ("active", active), ("wanted", wanted),
                            ("epoch", epoch)):  # fmt: skip
            header[HEADER[name]] = value
        self.now(active=active, wanted=wanted, epoch=epoch)
        header[_SEQUENCE] += 1

    def mark_warm(self) -> None:
        """Copy live to the warm-up area: everything so far happened before the warm-up's end."""
        live, warm = self.live, self._warm
        warm[:FIRST_ACTION] = live[:FIRST_ACTION]
        for start, counters, stride in self._rows:
            if any(live[start : start + counters]):
                warm[start : start + stride] = live[start : start + stride]
        self._header[HEADER["warm"]] = 1

    def close(self) -> None:
        """Let go of the mapping; the file stays for its readers."""
        for view in (self.live, self.extremes, self._snapshot, self._snapshot_extremes, self._warm, self._header):
            view.release()
