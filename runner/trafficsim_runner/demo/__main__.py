"""Run the demo shop: `python -m trafficsim_runner.demo --listen 127.0.0.1:8080`."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from trafficsim_runner.demo.http_server import listen
from trafficsim_runner.demo.shop import Shop

_LOG_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for; port 0 takes a free one."""

    host: str
    port: int
    log: Path | None
    error_rate: float
    seed: int
    until_stdin_closes: bool


def parsed(arguments: Sequence[str]) -> Options:
    """Return the options in *arguments*."""
    parser = argparse.ArgumentParser(
        prog="python -m trafficsim_runner.demo", description="A small shop to put load on."
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="address; port 0 takes a free one"
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="write the account of requests here, every second and at the end"
    )
    parser.add_argument(
        "--error-rate", type=float, default=0.0, metavar="P", help="share of requests answered 503, 0 to 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of delays and errors")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop with the process that started the shop")
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        parser.error(f"--listen {given.listen}: HOST:PORT is needed")
    if not 0 <= given.error_rate <= 1:
        parser.error(f"--error-rate {given.error_rate}: a share from 0 to 1 is needed")
    return Options(
        host=host.strip("[]"),
        port=int(port),
        log=given.log,
        error_rate=given.error_rate,
        seed=given.seed,
        until_stdin_closes=given.until_stdin_closes,
    )


async def run(options: Options) -> None:
    """Serve until a signal, or until standard input closes; the first line printed ends in the shop's URL."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), _stop_at_end_of_input, stop)
    shop = Shop(seed=options.seed, error_rate=options.error_rate)
    server = await listen(shop, options.host, options.port)
    host, port = server.sockets[0].getsockname()[:2]
    print(f"The demo shop is open at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    try:
        await _keep_log(shop, options.log, stop)
    finally:
        server.close()
        if options.log is not None:
            shop.log.write(options.log)


async def _keep_log(shop: Shop, path: Path | None, stop: asyncio.Event) -> None:
    while not stop.is_set():
        if path is not None:
            shop.log.write(path)
        try:
            async with asyncio.timeout(_LOG_EVERY_S if path is not None else None):
                await stop.wait()
        except TimeoutError:
            continue


def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the shop and return the exit code: 0 after a requested stop, 3 when the address cannot be had."""
    options = parsed(sys.argv[1:] if arguments is None else arguments)
    _allow_many_connections()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(options))
    except OSError as error:
        print(f"The demo shop cannot listen at {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
