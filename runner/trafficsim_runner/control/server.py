"""The control server; see trafficsim_api.protocol for its table of calls."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from trafficsim_api.protocol import Acknowledgement, Refused
from trafficsim_runner.metrics import CONTENT_TYPE, exposition
from trafficsim_runner.supervisor import Stale, Supervisor

__all__ = ["application"]

# A load of 256 actions with bodies of 64 KiB each stays far below.
LARGEST_BODY: Final = 16 * 1024 * 1024


def application(supervisor: Supervisor) -> web.Application:
    """Return the control API of *supervisor*."""
    control = _Control(supervisor)
    app = web.Application(client_max_size=LARGEST_BODY)
    app.add_routes([
        web.put("/v1/assignment", control.assign),
        web.get("/v1/acknowledgement", control.acknowledgement),
        web.get("/v1/statistics", control.statistics),
        web.get("/metrics", control.metrics),
        web.get("/healthz", control.alive),
        web.get("/readyz", control.ready),
    ])  # fmt: skip
    return app


class _Control:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def assign(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            return _acknowledged(self._supervisor.assign(body))
        except Refused as refused:
            return web.json_response({"error": str(refused)}, status=refused.status)
        except Stale:
            return _acknowledged(self._supervisor.acknowledgement(), status=409)

    async def acknowledgement(self, request: web.Request) -> web.Response:
        return _acknowledged(self._supervisor.acknowledgement())

    async def statistics(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not since.isascii() or not since.isdigit() or len(since) > 19:
            return web.json_response({"error": "since: a whole number is needed"}, status=400)
        body = self._supervisor.statistics(request.query.get("boot", ""), int(since))
        return web.Response(body=body, content_type="application/octet-stream")

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=exposition(self._supervisor), headers={"Content-Type": CONTENT_TYPE})

    async def alive(self, request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def ready(self, request: web.Request) -> web.Response:
        if self._supervisor.is_ready:
            return web.Response(text="ready\n")
        return web.Response(text="retired or going down\n", status=503)


def _acknowledged(acknowledgement: Acknowledgement, status: int = 200) -> web.Response:
    return web.Response(text=acknowledgement.model_dump_json(), content_type="application/json", status=status)
