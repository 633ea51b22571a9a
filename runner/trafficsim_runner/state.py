"""
The runner's state directory, a memory emptyDir: it survives a restart of the container, not the pod.

    assignment          the last envelope taken, as it came
    origin.json         the run's start as a monotonic instant, with the machine's boot it counts from
    account             the sum of workers that ended, and the names of the files already in it
    slab-*              a worker's counters (with .1, .2, … after a load edit brought new actions)
    own-*               the supervisor's own counters of one boot
    tasks.json          what was begun once in the run, and how it stands

A file counts either by itself or within the account, never both: the account names what it swallowed, and is replaced
by an atomic rename before those files go. All counts are of the account's run; without an account there are none.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trafficsim_api.statistics import Answer
from trafficsim_runner.stats.merge import Total

__all__ = ["Origin", "State"]

MACHINE_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The start of run *run* (*start_at_ms*, wall clock) as CLOCK_MONOTONIC ns, valid within one machine boot."""

    run: int
    start_at_ms: int
    origin_ns: int


class State:
    """The files of one runner in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def save_assignment(self, body: bytes) -> None:
        """Keep the envelope *body*; with an OSError none is kept: a restart must not take up an older one."""
        try:
            self._replace("assignment", body)
        except OSError:
            (self.directory / "assignment").unlink(missing_ok=True)
            raise

    def assignment(self) -> bytes | None:
        """Return the last envelope kept."""
        return self._read("assignment")

    def save_origin(self, origin: Origin) -> None:
        """Keep *origin*."""
        fields = {"machine": _machine_boot(), "run": origin.run, "start_at_ms": origin.start_at_ms}
        self._replace("origin.json", json.dumps(fields | {"origin_ns": origin.origin_ns}).encode())

    def origin(self) -> Origin | None:
        """Return the origin kept, unless the machine was started anew since."""
        try:
            fields: dict[str, Any] = json.loads(self._read("origin.json") or b"{}")
            if fields.pop("machine", None) != _machine_boot():
                return None
            return Origin(**fields)
        except (ValueError, TypeError):
            return None

    def save_tasks(self, text: str) -> None:
        """Keep how the tasks of the run stand."""
        self._replace("tasks.json", text.encode())

    def tasks(self) -> bytes:
        """Return how the tasks of the run stood, "[]" when none is known."""
        return self._read("tasks.json") or b"[]"

    def slab(self, boot: str, number: int) -> Path:
        """Return where the slab of the process *number* that *boot* started stands."""
        return self.directory / f"slab-{boot[:8]}-{number}"

    def own(self, boot: str, run: int) -> Path:
        """Return where the supervisor's own counters stand."""
        return self.directory / f"own-{run}-{boot[:8]}"

    def newest(self, slab: Path) -> Path | None:
        """Return the newest generation of *slab* on disk."""
        found = [path for path in self.directory.glob(f"{slab.name}*") if _is_generation(path.name, slab.name)]
        return max(found, key=lambda path: _generation(path.name), default=None)

    def slabs(self) -> list[Path]:
        """Return the newest generation of each slab on disk."""
        names = sorted({_stem(path.name) for path in self.directory.glob("slab-*")})
        return [path for name in names if (path := self.newest(self.directory / name))]

    def owns(self) -> list[Path]:
        """Return the files of own counters on disk."""
        return sorted(self.directory.glob("own-*"))

    def save_account(self, runner: str, run: int, total: Total, swallowed: list[str]) -> None:
        """Keep *total* as the account of *run*, the files named *swallowed* being in it."""
        answer = Answer(
            runner=runner, boot="", run=run, layout=total.layout, sequence=0, first=1, total=total.vector,
            warmup=total.warmup, extremes=total.extremes, windows=(),
        )  # fmt: skip
        self._replace("account", json.dumps(swallowed).encode() + b"\n" + answer.encode())

    def account(self, run: int) -> tuple[Total, list[str]] | None:
        """Return the account of *run* and the names of the files in it; None when there is none that can be read."""
        try:
            names, _, body = (self._read("account") or b"").partition(b"\n")
            answer = Answer.decode(body)
            swallowed = [str(name) for name in json.loads(names)]
        except ValueError:
            return None
        if answer.run != run:
            return None
        total = Total(layout=answer.layout, vector=answer.total, warmup=answer.warmup, extremes=answer.extremes)
        return total, swallowed

    def remove(self, *names: str) -> None:
        """Remove the files *names*, and the other generations of those that are slabs."""
        for name in names:
            for path in self.directory.glob(f"{_stem(name)}*"):
                if _stem(path.name) == _stem(name):
                    path.unlink(missing_ok=True)

    def forget_run(self) -> None:
        """Remove every count: a new run starts from nothing."""
        for pattern in ("slab-*", "own-*", "account", "tasks.json"):
            for path in self.directory.glob(pattern):
                path.unlink(missing_ok=True)

    def _read(self, name: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / name).read_bytes()
        return None

    def _replace(self, name: str, content: bytes) -> None:
        draft = self.directory / f"{name}.new"
        try:
            draft.write_bytes(content)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        os.replace(draft, self.directory / name)


def _machine_boot() -> str:
    with contextlib.suppress(OSError):
        return MACHINE_BOOT.read_text().strip()
    return ""


def _stem(name: str) -> str:
    return name.partition(".")[0]


def _is_generation(name: str, stem: str) -> bool:
    first, _, generation = name.partition(".")
    return first == stem and (not generation or generation.isdigit())


def _generation(name: str) -> int:
    return int(name.partition(".")[2] or 0)
