"""The runner's process: supervisor, control server and signals put together."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from trafficsim_runner.child import worker_command
from trafficsim_runner.control.keys import Keys
from trafficsim_runner.control.server import application
from trafficsim_runner.crew import Command
from trafficsim_runner.health.processes import raise_descriptor_limit
from trafficsim_runner.logs import event
from trafficsim_runner.settings import Settings
from trafficsim_runner.supervisor import Supervisor

__all__ = ["serve"]

log: Final = logging.getLogger(__name__)

# A client that is still being answered at the end gets this long.
CLOSING_S: Final = 1.0
FAILED: Final = 1
CANNOT_START: Final = 2


async def serve(
    settings: Settings, signals: Sequence[signal.Signals], command: Command = worker_command,
    environ: Mapping[str, str] | None = None,
) -> int:  # fmt: skip
    """Run a runner until one of *signals* (a second one ends at once); return the exit code. *environ*: see Once."""
    raise_descriptor_limit()
    loop = asyncio.get_running_loop()
    supervisor = Supervisor(settings, Keys(settings.keys, loop.time), command=command, environ=environ)

    def stop(received: signal.Signals) -> None:
        if supervisor.stopping:
            supervisor.crew.kill()
            os._exit(128 + received)
        supervisor.stop()

    for number in signals:
        loop.add_signal_handler(number, stop, number)
    work = asyncio.create_task(supervisor.run(), name="supervisor")
    await supervisor.started()
    server = web.AppRunner(application(supervisor), access_log=None, shutdown_timeout=CLOSING_S)
    await server.setup()
    try:
        await web.TCPSite(server, settings.host, settings.port).start()
        host, port = server.addresses[0][:2]
        event(log, logging.INFO, "listening", f"control API on {host}:{port}", server_address=host, server_port=port)
        await work
    except OSError as error:
        event(log, logging.CRITICAL, "not-listening", f"no control API on {settings.host}:{settings.port}: {error}")
        return CANNOT_START
    except Exception:
        log.exception("the supervisor failed")
        return FAILED
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await server.cleanup()
    event(log, logging.INFO, "ended", "all users left")
    return 0
