"""The server all clients are measured against: nginx on cores of its own, which counts connections and requests."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from certificates import write_certificates

BODY: Final = '{"id":1234567,"name":"user-1234567","mail":"user-1234567@shop.example","a":12}'
_ROW: Final = '{"day":%d,"orders":%d,"visits":%d}'
REPORT: Final = (
    '{"report":"daily-sales","rows":['
    + ",".join(_ROW % (day, 40 + day * 7 % 31, 900 + day * 13) for day in range(60))
    + "]}"
)
_START_WITHIN_S: Final = 10.0

# Subtle: $ and { } are nginx's own here, so %names% are what is filled in.
_CONFIGURATION: Final = """
daemon off;
worker_processes %workers%;
worker_rlimit_nofile 65536;
pid %directory%/nginx.pid;
error_log %directory%/error.log;
events { worker_connections 32768; use epoll; multi_accept on; }
http {
  access_log off;
  keepalive_timeout 3600s;
  keepalive_requests 1000000000;
  client_body_temp_path %directory%/body;
  proxy_temp_path %directory%/proxy;
  fastcgi_temp_path %directory%/fastcgi;
  uwsgi_temp_path %directory%/uwsgi;
  scgi_temp_path %directory%/scgi;
  default_type application/json;
  ssl_certificate %directory%/server.crt;
  ssl_certificate_key %directory%/server.key;
  ssl_protocols TLSv1.3;
  # One cipher for all clients: else Go's and OpenSSL's preferences would be compared.
  ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
  server {
    listen 127.0.0.1:%port% backlog=4096;
    listen 127.0.0.1:%tls_port% ssl backlog=4096;
    location = /__status { stub_status; }
    location = /healthz { return 200 'ok'; }
    location = /varying {
      add_header X-Request-Id $request_id;
      add_header X-Time $msec;
      return 200 '%body%';
    }
    location = /auth/login { return 200 '{"token":"$request_id","user":{"name":"anna"}}'; }
    location = /users { return 200 '{"page":"$arg_page","users":[{"id":1,"name":"user-1"},{"id":2,"name":"user-2"}]}'; }
    location = /users/bulk { return 201 '{"created":3}'; }
    location ~ ^/users/(?<number>[0-9]+)$ {
      if ($http_authorization !~ "^Bearer [0-9a-f]+$") { return 401; }
      return 200 '{"id":$number,"name":"user-$number","email":"user-$number@shop.example","city":"Oslo"}';
    }
    location = /orders { return 201 '{"id":"$request_id","state":"placed"}'; }
    location ~ ^/orders/[0-9a-f]+$ { return 204; }
    location = /reports/daily-sales { return 200 '%report%'; }
    location / { return 200 '%body%'; }
  }
}
"""


def binary() -> str | None:
    """Return where nginx is, None when it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


class Server:
    """One nginx with a worker on each of *cores*; what reading its account costs is taken out of the account."""

    def __init__(self, cores: Sequence[int]) -> None:
        self._cores = cores
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reads = 0
        self._port = self._tls_port = 0

    @property
    def authority(self) -> Path:
        """Return the certificate that the server's is verified with."""
        assert self._directory is not None
        return Path(self._directory.name) / "ca.crt"

    def url(self, *, is_tls: bool = False) -> str:
        """Return the URL without a path."""
        return f"https://127.0.0.1:{self._tls_port}" if is_tls else f"http://127.0.0.1:{self._port}"

    def requests(self) -> int:
        """Return how many requests others have made so far."""
        return self._account()[1]

    def connections(self) -> int:
        """Return how many connections of others are open."""
        return self._account()[0]

    def _account(self) -> tuple[int, int]:
        self._reads += 1
        with urllib.request.urlopen(f"{self.url()}/__status", timeout=5) as answer:
            numbers = [int(number) for number in re.findall(r"\d+", answer.read().decode())]
        active, requests = numbers[0], numbers[3]
        return active - 1, requests - self._reads

    def __enter__(self) -> Self:
        found = binary()
        if found is None:
            raise FileNotFoundError("nginx is not installed (Debian: nginx-light)")
        self._port, self._tls_port = _free_ports()
        self._directory = tempfile.TemporaryDirectory(prefix="bench-nginx-")
        directory = Path(self._directory.name)
        directory.chmod(0o755)  # the worker runs as nobody
        write_certificates(directory)
        filled = {
            "directory": directory, "port": self._port, "tls_port": self._tls_port, "workers": len(self._cores),
            "body": BODY, "report": REPORT,
        }  # fmt: skip
        file = directory / "nginx.conf"
        file.write_text(re.sub(r"%(\w+)%", lambda match: str(filled[match[1]]), _CONFIGURATION))
        command = [found, "-c", str(file), "-p", str(directory), "-e", str(directory / "error.log")]
        pinned = ["taskset", "-c", ",".join(map(str, self._cores))]
        self._process = subprocess.Popen([*pinned, *command], stdin=subprocess.DEVNULL)
        self._wait_until_it_answers()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_WITHIN_S
        while True:
            try:
                self.requests()
            except OSError:
                self._reads -= 1  # it was not counted by a server that was not there
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.__exit__()
                    raise
                time.sleep(0.02)
            else:
                return


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
