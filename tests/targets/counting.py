"""
A server in a thread of this process that counts its open connections, with the most there were at a time.

    with Counting() as server:
        ...                              # load on server.port
    server.most                          # connections open at a time, at most
    server.ports                         # of each request, the client's port: which connection it came on
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Self


class Counting:
    """Answers any request after *delay_s*, with what *answer* gives for its head; bodies of requests are not read."""

    def __init__(self, delay_s: float = 0.0, *, answer: Callable[[bytes], bytes] | None = None) -> None:
        self.delay_s = delay_s
        self.open = self.most = self.opened = self.requests = 0
        self.heads: list[bytes] = []
        self.ports: list[int] = []
        self._answer = answer or (lambda head: b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    def close_all(self) -> None:
        """Close every connection from this side."""
        self._loop.call_soon_threadsafe(lambda: [writer.close() for writer in self._writers])

    def wait_until(self, claim: Callable[[], object], within_s: float = 10.0) -> None:
        """Wait until *claim* is true."""
        deadline = time.monotonic() + within_s
        while not claim():
            assert time.monotonic() < deadline, f"not within {within_s} s: {self.open} open, {self.requests} requests"
            time.sleep(0.01)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for writer in tuple(self._writers):
            writer.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.open += 1
        self.opened += 1
        self.most = max(self.most, self.open)
        port = writer.get_extra_info("peername")[1]
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.requests += 1
                    self.heads.append(head)
                    self.ports.append(port)
                    if self.delay_s:
                        await asyncio.sleep(self.delay_s)
                    writer.write(self._answer(head))
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()
