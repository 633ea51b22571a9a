"""
What a run's setup saved: from the runner that did it, over the record, into every runner's assignment.

    runner ──sealed──► acknowledgement ──► record (still sealed) ──► memory ──signed──► assignments

The record comes before the status that calls setup done, so a new operator finds what the status tells of. In the open
the values are in memory and on their way to the runners only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from trafficsim_api.errors import Unavailable
from trafficsim_api.protocol import TaskReport
from trafficsim_api.sealed import unseal
from trafficsim_api.status import Status
from trafficsim_operator.fleet.runners import Runners
from trafficsim_operator.ledger import Ledger
from trafficsim_operator.observed import Runner
from trafficsim_operator.store import Document, Record

__all__ = ["saved_values"]

log = logging.getLogger(__name__)


async def saved_values(
    document: Document, status: Status, runners: Iterable[Runner], ledger: Ledger, record: Record, clients: Runners
) -> Mapping[str, str] | None:
    """Return what the present run's setup saved, None while nothing is known of it."""
    run = status.run
    if run is None or run.setup is None or ledger.saved is not None:
        return ledger.saved
    task = f"{run.id}-setup"
    context = f"{document.uid}/{task}"
    if run.setup.state == "Done" and run.setup.saved:
        kept = await record.saved(document, task)
        ledger.saved = _opened(kept, context, clients, document.name) if kept is not None else None
    elif run.setup.state == "Running":
        report = _report(runners, run.setup.uid, task)
        values = _opened(report.sealed, context, clients, document.name) if report is not None else None
        if report is not None and values is not None:
            try:
                await record.keep_saved(document, task, report.sealed)
            except Unavailable as error:
                log.warning("values not kept yet", extra={"simulation": document.name, "error": str(error)})
                return None
            ledger.saved = values
    return ledger.saved


def _report(runners: Iterable[Runner], uid: str, task: str) -> TaskReport | None:
    """Return the report of a *task* that is done and saved something."""
    for runner in runners:
        report = runner.acknowledgement.task if runner.acknowledgement is not None else None
        if runner.uid == uid and report is not None and (report.id, report.state) == (task, "done") and report.sealed:
            return report
    return None


def _opened(sealed: str, context: str, clients: Runners, name: str) -> Mapping[str, str] | None:
    try:
        return unseal(sealed, clients.signer.reader, context)
    except ValueError as error:
        log.error("what setup saved cannot be opened", extra={"simulation": name, "error": str(error)})
        return None
