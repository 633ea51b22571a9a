"""
The operator, which kills itself with SIGKILL the moment that it has put a rollout's phase on record.

The phase stands in DIES_IN. Nothing that follows from the record has been done then: what it intended is on record, and
whoever comes after it has to do that.
"""

import os
import signal
import sys

from trafficsim_api.status import Status
from trafficsim_operator.main import main
from trafficsim_operator.store import Document
from trafficsim_operator.store.kubernetes import KubernetesRecord

_write = KubernetesRecord.write


async def write_and_die(record: KubernetesRecord, document: Document, status: Status) -> None:
    await _write(record, document, status)
    if status.rollout is not None and status.rollout.phase == os.environ.get("DIES_IN"):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    KubernetesRecord.write = write_and_die  # type: ignore[method-assign]
    sys.exit(main())
