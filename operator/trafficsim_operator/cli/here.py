"""A run that `trafficsim run` is at on this machine, as commands find it: in the file of its history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from trafficsim_api.errors import Unavailable
from trafficsim_api.phases import Phase
from trafficsim_operator.cli.command import Answered, give
from trafficsim_operator.cli.objects import fault
from trafficsim_operator.kube import Object
from trafficsim_operator.local import NAMESPACE, now_ms
from trafficsim_operator.store.sqlite import SqliteRecord

__all__ = ["Here", "give_here"]

_EVERY_S: Final = 0.25
_ENDED: Final = (Phase.COMPLETED, Phase.FAILED)


def give_here(history: Path | None, name: str, action: str, patience: timedelta) -> Answered:
    """Give the command *action* to the run of *name* that is kept in *history*, and return the answer."""
    if history is None or not history.is_file():
        where = f"at {history}" if history else "on this machine"
        raise fault(f"there is no history {where}, so no run to give a command to")

    async def inside() -> Answered:
        async with SqliteRecord(history, now_ms) as record:
            return await give(Here(record=record, name=name), action, to_rollout=True, patience=patience)

    try:
        return asyncio.run(inside())
    except Unavailable as error:
        raise fault(str(error)) from error


@dataclass(slots=True, kw_only=True)
class Here:
    """One simulation that is being run on this machine, found in the *record* of its history."""

    record: SqliteRecord
    name: str
    unanswered: str = "is its `trafficsim run` still going on?"

    async def read(self) -> Object:
        """Return the newest run of that name as it stands; raise SpecError when none is going on."""
        if not await self.record.adopt(NAMESPACE, self.name):
            raise fault(f"no run of {self.name} is going on that is kept in this history")
        document = await self.record.read(NAMESPACE, self.name)
        assert document is not None, "a run that is going on is not forgotten"
        return dict(document.body)

    async def annotate(self, annotations: Mapping[str, str]) -> None:
        """Write *annotations* onto it."""
        await self.record.annotate(NAMESPACE, self.name, annotations)

    async def looks(self) -> AsyncIterator[Object]:
        """Yield it again and again, to its end."""
        while document := await self.record.read(NAMESPACE, self.name):
            yield dict(document.body)
            if (document.body.get("status") or {}).get("phase") in _ENDED:
                break
            await asyncio.sleep(_EVERY_S)
        raise fault(f"the run of {self.name} has ended")
