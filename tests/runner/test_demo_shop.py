"""The demo shop: what its endpoints answer, and that its account is right."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from trafficsim_runner.demo.__main__ import parsed
from trafficsim_runner.demo.delays import DELAYS, Delay, Delays
from trafficsim_runner.demo.http_server import MAX_BODY_BYTES, Reply, Request, listen
from trafficsim_runner.demo.shop import KEPT, Shop, endpoint_of


def a_request(method: str = "GET", target: str = "/healthz", body: object = None, token: str | None = None) -> Request:
    path, _, query = target.partition("?")
    headers = {b"authorization": f"Bearer {token}".encode()} if token is not None else {}
    sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return Request(method=method, path=path, query=query, headers=headers, body=sent, received=0.0, keep_alive=True)


def a_token(shop: Shop, user: str = "user-7") -> str:
    token: str = json.loads(shop.answer(a_request("POST", "/auth/login", {"user": user})).body)["token"]
    return token


# Endpoints.


def test_login_gives_token_user_and_cookie():
    """A login answers with a token, in the body and as the session's cookie, and with the user."""
    reply = Shop().answer(a_request("POST", "/auth/login", {"user": "user-42"}))
    content = json.loads(reply.body)
    assert 200 == reply.status
    assert {"id": 42, "name": "user-42"} == content["user"]
    assert f"set-cookie: session={content['token']}; Path=/; HttpOnly\r\n" in reply.headers


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        pytest.param("GET", "/healthz", None, 200, id="health"),
        pytest.param("HEAD", "/healthz", None, 200, id="head is get without a body"),
        pytest.param("POST", "/healthz", None, 405, id="wrong method"),
        pytest.param("POST", "/auth/login", b"{", 400, id="login without JSON"),
        pytest.param("POST", "/auth/login", {"name": "x"}, 400, id="login without user"),
        pytest.param("POST", "/auth/login", b"[" * 100_000, 400, id="deep nesting"),
        pytest.param("GET", "/users", None, 200, id="first page"),
        pytest.param("GET", "/users?page=3", None, 200, id="a page"),
        pytest.param("GET", "/users?page=x", None, 400, id="page is no number"),
        pytest.param("GET", "/users?page=99999999", None, 400, id="page past the end"),
        pytest.param("PUT", "/users/7", {"name": "x"}, 200, id="change a profile"),
        pytest.param("PUT", "/users/7", [], 400, id="change without object"),
        pytest.param("PUT", "/users/x", {}, 404, id="change nobody"),
        pytest.param("POST", "/users/bulk", [{}, {}], 201, id="bulk"),
        pytest.param("POST", "/users/bulk", {}, 400, id="bulk without list"),
        pytest.param("GET", "/reports/sales", None, 200, id="report"),
        pytest.param("GET", "/reports/a.b", None, 404, id="report with an odd name"),
        pytest.param("POST", "/orders", {"item": 1}, 201, id="order"),
        pytest.param("DELETE", "/orders/1", None, 404, id="cancel what nobody ordered"),
        pytest.param("GET", "/", None, 404, id="unknown"),
        pytest.param("GET", "/users/7/8", None, 404, id="unknown below a user"),
    ],
)
def test_statuses(method, target, body, status):
    """Each endpoint takes its method and refuses what it cannot read."""
    assert status == Shop().answer(a_request(method, target, body)).status


@pytest.mark.parametrize("token", [None, "", "7", "7-wrong", "x-1", "²-1"])
def test_profile_needs_a_token(token):
    """Without the shop's own token a profile is not shown."""
    assert (
        401
        == Shop().answer(a_request("GET", "/users/7", token=token and token.encode("utf-8").decode("latin-1"))).status
    )


def test_profile_shows_what_was_changed():
    """A changed field is seen by the next look; unknown fields are dropped."""
    shop = Shop()
    token = a_token(shop)
    shop.answer(a_request("PUT", "/users/7", {"city": "Lima", "role": "admin"}))
    shop.answer(a_request("PUT", "/users/7", {"name": "Seven"}))
    profile = json.loads(shop.answer(a_request("GET", "/users/7", token=token)).body)
    assert {"id": 7, "name": "Seven", "email": "user-7@shop.example", "city": "Lima"} == profile


def test_an_order_can_be_cancelled_once():
    """An order is there until it is cancelled."""
    shop = Shop()
    number = json.loads(shop.answer(a_request("POST", "/orders", {})).body)["id"]
    cancel = a_request("DELETE", f"/orders/{number}")
    assert [204, 404] == [shop.answer(cancel).status, shop.answer(cancel).status]


def test_state_does_not_grow_with_the_load():
    """Orders nobody cancels are forgotten, the oldest first."""
    shop = Shop()
    for _ in range(KEPT + 10):
        shop.place_order("", a_request("POST", "/orders", b"{}"))
    assert KEPT == len(shop._orders)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/users/7", ("/users/{id}", "7")),
        ("/users/bulk", ("/users/bulk", "")),
        ("/users/", ("(unknown)", "")),
        ("/x/7", ("(unknown)", "")),
    ],
)
def test_endpoint_of(path, expected):
    """Paths are counted by template, so that the account stays small."""
    assert expected == endpoint_of(path)


# Delays and errors.


def test_delay_parameters():
    """mu = ln(median), sigma = ln(p95 / median) / 1.645: median 1 s and p95 e^1.645 s give 0 and 1."""
    delay = Delay(median_s=1.0, p95_s=5.180251602233015)
    assert (0.0, pytest.approx(1.0)) == (delay.mu, delay.sigma)


def test_delays_have_their_median_and_p95():
    """20 000 draws come out within a tenth of what the table says."""
    delays, wanted = Delays(1), DELAYS["POST", "/auth/login"]
    drawn = sorted(delays.draw("POST", "/auth/login") for _ in range(20_000))
    assert pytest.approx(wanted.median_s, rel=0.1) == drawn[10_000]
    assert pytest.approx(wanted.p95_s, rel=0.1) == drawn[19_000]


def test_reports_take_40_to_120_ms():
    """A report's delay is cut at both ends, and health takes none."""
    delays = Delays(1)
    drawn = [delays.draw("GET", "/reports/{name}") for _ in range(5_000)]
    assert (0.040, 0.120) == (min(drawn), max(drawn))
    assert 0.0 == delays.draw("GET", "/healthz")


def test_same_seed_same_delays_and_errors():
    """Two shops with one seed treat the same requests alike; another seed differs."""
    requests = [a_request("POST", "/orders", {}) for _ in range(200)]
    first, same, other = (Shop(seed=seed, error_rate=0.3) for seed in (5, 5, 6))

    def treatment(shop: Shop) -> list[tuple[int, float]]:
        return [(reply.status, reply.delay_s) for reply in map(shop.answer, requests)]

    expected = treatment(first)
    assert expected == treatment(same)
    assert expected != treatment(other)


def test_error_rate_is_kept_and_spares_health():
    """A share of requests gets 503; health never."""
    shop = Shop(error_rate=0.25)
    statuses = [shop.answer(a_request("POST", "/orders", {})).status for _ in range(4_000)]
    assert pytest.approx(1_000, rel=0.1) == statuses.count(503)
    assert 200 == Shop(error_rate=1).answer(a_request()).status


@pytest.mark.parametrize(
    "arguments", [["--listen", "8080"], ["--listen", "a:b"], ["--listen", "a:99999"], ["--error-rate", "2"]]
)
def test_bad_options_are_refused(arguments):
    """An option that makes no sense ends the command, before anything listens."""
    with pytest.raises(SystemExit):
        parsed(arguments)


# The server under it.


@asynccontextmanager
async def serving(site: Shop | Slow) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    server = await listen(site, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        async with asyncio.timeout(20):
            yield reader, writer
        writer.close()


class Slow(Shop):
    """A shop whose answers name their path and take as long as it says."""

    def answer(self, request: Request) -> Reply:
        self.log.record(request.method, request.path, 200)
        return Reply(body=request.path.encode(), delay_s=float(request.path[1:]))


async def until(claim) -> None:
    async with asyncio.timeout(10):
        while not claim():
            await asyncio.sleep(0.001)


async def test_pipelined_requests_are_answered_in_order():
    """A fast second request waits for the slow first one."""
    async with serving(Slow()) as (reader, writer):
        writer.write(b"GET /0.05 HTTP/1.1\r\n\r\nGET /0 HTTP/1.1\r\n\r\nGET /0.01 HTTP/1.1\r\n\r\n")
        bodies = []
        for _ in range(3):
            head = await reader.readuntil(b"\r\n\r\n")
            bodies.append(await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0])))
    assert [b"/0.05", b"/0", b"/0.01"] == bodies


async def test_a_client_that_leaves_is_counted():
    """started = finished + abandoned, also when nobody waits for the answer."""
    shop = Slow()
    async with serving(shop) as (_, writer):
        writer.write(b"GET /30 HTTP/1.1\r\n\r\n")
        await until(lambda: shop.log.started == 1)
        writer.close()
        await until(lambda: shop.log.abandoned == 1)
        await until(lambda: shop.log.open_connections == 0)
    assert (1, 0, 1) == (shop.log.started, shop.log.finished, shop.log.opened_connections)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"\x16\x03\x01 what\r\n\r\n", b"400", id="no HTTP"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, b"431", id="endless headers"),
        pytest.param(
            b"POST /orders HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (MAX_BODY_BYTES * 2) + b"x" * (MAX_BODY_BYTES + 1),
            b"413",
            id="too large a body",
        ),
    ],
)
async def test_what_is_no_request_is_refused(sent, status):
    """Malformed and oversized input is answered once, counted and cut off."""
    shop = Shop()
    async with serving(shop) as (reader, writer):
        writer.write(sent)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 " + status)
    assert 1 <= shop.log.malformed
    assert 0 == shop.log.started


async def test_a_report_comes_in_four_chunks():
    """A report is chunked and ends properly."""
    async with serving(Shop()) as (reader, writer):
        writer.write(b"GET /reports/sales HTTP/1.1\r\n\r\n")
        assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
        chunks = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            chunks.append(await reader.readexactly(size))
            await reader.readexactly(2)
    assert 4 == len(chunks)
    assert "sales" == json.loads(b"".join(chunks))["report"]


async def test_expect_100_continue_is_invited():
    """A client that asks before it sends its body is told to go on."""
    async with serving(Shop()) as (reader, writer):
        writer.write(b"POST /orders HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == await reader.readuntil(b"\r\n\r\n")
        writer.write(b"{}")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 201")


# The command.


def test_the_command_serves_and_leaves_its_account(tmp_path):
    """The URL is on the first line; the account is served and written, and is what was sent; input's end stops it."""
    log = tmp_path / "log.json"
    command = [sys.executable, "-m", "trafficsim_runner.demo", "--listen", "127.0.0.1:0", "--log", str(log)]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "--until-stdin-closes"], stdin=pipe, stdout=pipe, text=True) as shop:
        assert shop.stdout is not None
        assert shop.stdin is not None
        url = shop.stdout.readline().split()[-1]
        for _ in range(3):
            urllib.request.urlopen(url + "/healthz", timeout=10).close()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url + "/users/1", timeout=10)
        refused.value.close()
        with urllib.request.urlopen(url + "/__log", timeout=10) as answer:
            served = json.load(answer)
        shop.stdin.close()
        assert 0 == shop.wait(timeout=10)
    assert {"GET /healthz 200": 3, "GET /users/{id} 401": 1} == served["counts"]
    written = json.loads(log.read_text())
    assert served["counts"] == written["counts"]
    assert (4, 4) == (written["started"], written["finished"])
    assert 5 == written["connections"]["opened"]


def test_a_taken_port_is_said(tmp_path):
    """An address that cannot be had is exit code 3 and one line."""
    command = [sys.executable, "-m", "trafficsim_runner.demo", "--listen", "192.0.2.1:1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert 3 == ended.returncode
    assert ended.stderr.startswith("The demo shop cannot listen at 192.0.2.1:1:")
    assert 1 == len(ended.stderr.splitlines())
