"""
The operator, which is stopped (SIGSTOP) the moment that it has put new assignments on record, once STOPS_AT exists.

What it meant to send then, it sends when it is continued. With MANDATE=ignored it does not ask whether it may, and is
slow to notice that it may not: so a process does that is stopped just after it asked.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from trafficsim_api.status import Status
from trafficsim_operator.elector import Elector, Mandate
from trafficsim_operator.main import main
from trafficsim_operator.store import Document
from trafficsim_operator.store.kubernetes import KubernetesRecord

_write = KubernetesRecord.write
_keep = Elector._keep
# Less than until the next look, enough for what is on its way.
_SLOW_S = 0.4


async def write_and_stop(record: KubernetesRecord, document: Document, status: Status) -> None:
    await _write(record, document, status)
    mark = Path(os.environ["STOPS_AT"])
    if status.epoch > (document.body.get("status") or {}).get("epoch", 0) and mark.exists():
        mark.unlink()
        os.kill(os.getpid(), signal.SIGSTOP)


async def keep_and_be_slow(elector: Elector, task: asyncio.Task[None]) -> str:
    why = await _keep(elector, task)
    await asyncio.sleep(_SLOW_S)
    return why


if __name__ == "__main__":
    KubernetesRecord.write = write_and_stop  # type: ignore[method-assign]
    if os.environ.get("MANDATE") == "ignored":
        Mandate.holds = lambda mandate: True  # type: ignore[method-assign]
        Elector._keep = keep_and_be_slow  # type: ignore[method-assign]
    sys.exit(main())
