"""A real nginx on a free loopback port, when the machine has one: the reference target of the benchmarks."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Self

BODY = '{"id":1234567,"name":"user-1234567","mail":"user-1234567@shop.example","a":12}'
START_WITHIN_S = 10.0

_CONFIGURATION = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 16384; use epoll; }}
http {{
  access_log off;
  keepalive_timeout 3600s;
  keepalive_requests 1000000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /__status {{ stub_status; }}
    location = /healthz {{ return 200 'ok'; }}
    location / {{ return 200 '{body}'; }}
  }}
}}
"""


def is_installed() -> bool:
    """Return whether an nginx can be started."""
    return _binary() is not None


def _binary() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


class Nginx:
    """One nginx with one worker and a 78-byte JSON body; *core* pins it."""

    def __init__(self, *, core: int | None = None) -> None:
        self._core = core
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Return the URL without a path."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start nginx and wait until it answers."""
        binary = _binary()
        if binary is None:
            raise FileNotFoundError("nginx is not installed (Debian: nginx-light)")
        self.port = _free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="nginx-")
        directory = Path(self._directory.name)
        file = directory / "nginx.conf"
        file.write_text(_CONFIGURATION.format(directory=directory, port=self.port, body=BODY))
        directory.chmod(0o755)  # the worker runs as nobody
        pinned = ["taskset", "-c", str(self._core)] if self._core is not None else []
        command = [*pinned, binary, "-c", str(file), "-p", str(directory), "-e", str(directory / "error.log")]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._wait_until_it_answers()
        return self

    def requests(self) -> int:
        """Return how many requests nginx has handled, the ones to this page included."""
        with urllib.request.urlopen(f"{self.url}/__status", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return int(lines[2].split()[2])

    def stop(self) -> None:
        """Stop nginx at once."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            try:
                self.requests()
                return
            except OSError:
                if time.monotonic() > deadline or (self._process is not None and self._process.poll() is not None):
                    self.stop()
                    raise
                time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
