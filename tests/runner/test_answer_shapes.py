"""Answers whose heads differ: told by the shape of their head, they count and mean what the parser makes of them."""

from __future__ import annotations

import gzip

import pytest

from trafficsim_runner.http.shapes import parts_of
from wires.wire import Outcome, Wire


def an_answer(number, body=b"hello", *, status=b"200 OK", more=b""):
    head = b"HTTP/1.1 %b\r\nDate: %d\r\nContent-Length: %d\r\nX-Request-Id: %d\r\n" % (
        status, number, len(body), number * 7919,
    )  # fmt: skip
    return head + more + b"\r\n" + body


def the_answers_of(directory, answers, **more):
    """Return the outcomes of *answers* in turn, and the wire that saw them."""
    with Wire(directory, **more) as wire:
        return [wire.ask(answer) for answer in answers], wire


@pytest.mark.parametrize("timed", [False, True], ids=["closed-model", "open-model"])
def test_a_step_notices_that_heads_keep_differing(tmp_path, timed):
    """64 heads are kept and one answer more is parsed, then none is."""
    answers = [an_answer(n) for n in range(300)]
    outcomes, wire = the_answers_of(tmp_path, answers, timed=timed)
    assert [Outcome(came="2xx", size=len(answer)) for answer in answers] == outcomes
    assert len(answers) - 64 - 1 - 1 == wire.went_around()
    layout = wire.layout
    assert 65 == wire.account.slab.live[layout.worker("head_records")]


def test_bodies_of_any_length(tmp_path):
    """Two lengths are learned; then each answer has a length of its own, and every byte is counted."""
    answers = [an_answer(n, b"b" * (n * 37 % 1000)) for n in range(300)]
    outcomes, wire = the_answers_of(tmp_path, answers)
    assert [Outcome(came="2xx", size=len(answer)) for answer in answers] == outcomes
    assert (1, len(answers) - 64 - 1 - 2) == (len(wire.step.shapes), wire.went_around())


def test_statuses_and_optional_headers_have_shapes_of_their_own(tmp_path):
    """Each is counted in its class, with its check."""
    kinds = [(b"200 OK", b""), (b"200 OK", b"X-Cache: HIT\r\n"), (b"404 Not Found", b""), (b"503 Busy", b"")]
    answers = [an_answer(n, status=kinds[n % 4][0], more=kinds[n % 4][1]) for n in range(200)]
    outcomes, wire = the_answers_of(tmp_path, answers)
    missed = [kinds[n % 4][0] != b"200 OK" for n in range(200)]
    assert [answer[9:10].decode() + "xx" for answer in answers] == [outcome.came for outcome in outcomes]
    assert missed == [outcome.missed for outcome in outcomes]
    assert 4 == len(wire.step.shapes)


def test_checks_and_saves_see_each_answer_itself(tmp_path):
    """Headers, body and document are those of this answer, and a header that is checked decides."""
    more = {
        "expect": {"status": "200", "header": {"x-kind": "a"}, "json": {"ok": True}},
        "save": {"id": "header.x-request-id", "n": "json.n", "all": "body"},
    }
    with Wire(tmp_path, **more) as wire:
        for n in range(200):
            kind = b"b" if n % 10 == 9 else b"a"
            body = b'{"ok": %b, "n": %d}' % (b"false" if n % 5 == 4 else b"true", n)
            outcome = wire.ask(an_answer(n, body, more=b"X-Kind: %b\r\n" % kind))
            assert (n % 10 == 9) + (n % 5 == 4) == outcome.missed
            assert {"id": str(n * 7919), "n": str(n), "all": body.decode()} == wire.user.saved
        assert wire.went_around() > 120


def test_compressed_bodies_are_unpacked(tmp_path):
    """The coding is part of the shape."""
    with Wire(tmp_path, save={"n": "json.n"}) as wire:
        for n in range(200):
            plain = b'{"n": %d}' % n
            packed = n % 2
            body = gzip.compress(plain) if packed else plain
            wire.ask(an_answer(n, body, more=b"Content-Encoding: %b\r\n" % (b"gzip" if packed else b"identity")))
            assert {"n": str(n)} == wire.user.saved
        assert wire.went_around() > 90


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(b"Set-Cookie: sid=%d\r\n", id="a-cookie"),
        pytest.param(b"X-%d: 1\r\n", id="another-name-each-time"),
        pytest.param(
            b"X-Long-Name-Of-A-Header: %d\r\n" + b"X-Long-Name-Of-A-Header: 1\r\n" * 99, id="too-many-headers"
        ),
    ],
)
def test_what_has_no_shape_is_parsed(tmp_path, more):
    """And counted the same."""
    answers = [an_answer(n, more=more % n) for n in range(200)]
    outcomes, wire = the_answers_of(tmp_path, answers)
    assert [Outcome(came="2xx", size=len(answer)) for answer in answers] == outcomes
    assert 0 == wire.went_around()
    if more.startswith(b"Set-Cookie"):
        assert b"cookie: sid=199\r\n" == wire.user.cookie_line


def test_where_a_redirect_leads_is_not_passed_over(tmp_path):
    """An answer with an empty Location is one; its shape does not take the next for one that leads elsewhere."""
    with Wire(tmp_path, options={"redirects": 3}) as wire:
        wire.step.differs = True
        for n in range(3):
            wire.ask(an_answer(n, status=b"302 Found", more=b"Location: \r\n"))
        assert 2 == wire.went_around()
        outcome = wire.ask(an_answer(4, status=b"302 Found", more=b"Location: ftp://elsewhere/\r\n"))
    assert ("target_protocol", 2) == (outcome.came, wire.went_around())


def test_parts_of_an_answer():
    """Names in lower case, values without the blanks around them, and what follows the head."""
    headers, body = parts_of(b"HTTP/1.1 200 OK\r\nX-A:  b:c \r\nx-b:\r\n\r\nhello\r\n\r\n!")
    assert ((b"x-a", b"b:c"), (b"x-b", b"")) == headers
    assert b"hello\r\n\r\n!" == body
