"""The control protocol: what is signed is what is done, by the one it is addressed to."""

import base64
import json
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.places import Places
from trafficsim_api.protocol import (
    PROTOCOL,
    SUPPORTED,
    Acknowledgement,
    Allowed,
    Assignment,
    Envelope,
    Limits,
    Load,
    Refused,
    covers,
    sign,
    verify,
)
from trafficsim_api.resource import Archetype, Expect, Hold, Profile, Ramp, Request, Step, Target, Think

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEYS = {"k1": KEY.public_key()}


def an_assignment(**given):
    flow = (
        Step(
            action="login", group="auth", request=Request(post="/auth/login", json={"user": "user-{{user.id}}"}),
            expect=Expect(status="200"), save={"token": "json.token"},
        ),
        Step(think=Think(median=timedelta(seconds=2), p95=timedelta(seconds=8))),
        Step(request=Request(get="/", headers={"authorization": "Bearer {{token}}"})),
    )  # fmt: skip
    load = Load(
        target=Target(url="http://shop:8080"), seed=7,
        profile=(
            Profile(ramp=Ramp(to=2500, over=timedelta(seconds=90))),
            Profile(hold=Hold(for_=timedelta(minutes=5))),
        ),
        archetypes=(Archetype(name="browser", weight=70, flow=flow),),
    )  # fmt: skip
    fixed = {
        "simulation": "uid-1", "run": 1, "runner": "runner-1", "revision": "0123abcd", "epoch": 5, "users": 1200,
        "places": ((0, 600), (700, 800)), "processes": 2, "start_at_ms": 1_700_000_000_000, "warm_up_ms": 10_000,
        "end_ms": 1_700_000_600_000, "load": load,
        "limits": Limits(targets=(Allowed(network="10.0.0.0/8", ports=(8080,)),), verbs=("get", "post")),
    }  # fmt: skip
    return Assignment(**{**fixed, **given})


def refusal(body, simulation="uid-1", runner="runner-1"):
    with pytest.raises(Refused) as error:
        verify(body, KEYS, simulation, runner)
    return error.value.status, str(error.value)


def body_of(envelope):
    return envelope.model_dump_json().encode()


def resigned(**changes):
    """Return a body whose payload is not what our models would write, signed all the same."""
    payload = json.dumps({**json.loads(an_assignment().model_dump_json(exclude_none=True)), **changes})
    signature = base64.b64encode(KEY.sign(payload.encode())).decode()
    return body_of(Envelope(kid="k1", payload=payload, signature=signature))


def test_what_is_signed_is_what_is_read():
    """An assignment survives signing, the wire and verification unchanged."""
    assignment = an_assignment()
    assert assignment == verify(body_of(sign(assignment, "k1", KEY)), KEYS, "uid-1", "runner-1")


@given(
    users=st.integers(0, 10**6),
    ranges=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=6),
    epoch=st.integers(0, 2**53),
    retire=st.booleans(),
)
def test_any_assignment_survives(users, ranges, epoch, retire):
    assignment = an_assignment(users=users, places=tuple(ranges), epoch=epoch, retire=retire)
    found = verify(body_of(sign(assignment, "k1", KEY)), KEYS, "uid-1", "runner-1")
    assert (assignment, Places.of(ranges)) == (found, found.held)


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        pytest.param({"payload": "{}"}, 403, "the signature does not fit", id="another payload"),
        pytest.param({"kid": "k2"}, 403, "unknown signing key 'k2'", id="another key's name"),
        pytest.param({"signature": "AAAA"}, 403, "the signature does not fit", id="another signature"),
        pytest.param({"signature": "no base64!"}, 422, "not a signed assignment", id="no base64"),
        pytest.param({"signature": "é"}, 422, "not a signed assignment", id="no ASCII"),
    ],
)
def test_tampering_is_refused(change, status, reason):
    """Whoever cannot sign cannot change an assignment."""
    envelope = json.loads(body_of(sign(an_assignment(), "k1", KEY)))
    assert (status, reason) == refusal(json.dumps({**envelope, **change}).encode())


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(at, bit):
    """No bit of the payload can change unseen."""
    envelope = sign(an_assignment(), "k1", KEY)
    payload = bytearray(envelope.payload.encode())
    payload[at % len(payload)] ^= 1 << bit
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return
    assert 403 == refusal(body_of(Envelope(kid="k1", payload=text, signature=envelope.signature)))[0]


def test_another_ones_signature_is_refused():
    assert (403, "the signature does not fit") == refusal(body_of(sign(an_assignment(), "k1", OTHER)))


@pytest.mark.parametrize(("simulation", "runner"), [("uid-1", "runner-2"), ("uid-2", "runner-1")])
def test_a_replay_to_another_runner_is_refused(simulation, runner):
    """An assignment is for one runner of one simulation."""
    body = body_of(sign(an_assignment(), "k1", KEY))
    assert (403, "the assignment is for another runner") == refusal(body, simulation, runner)


@pytest.mark.parametrize("protocol", [PROTOCOL + 1, -1, "1", None, 99])
def test_another_protocol_is_refused_by_name(protocol):
    status, reason = refusal(resigned(protocol=protocol))
    assert (422, f"protocol {protocol} is not one of 1") == (status, reason)


def test_protocols_served():
    """An operator of protocol N serves runners of N - 1 and N; before the first there was none."""
    assert tuple(range(max(1, PROTOCOL - 1), PROTOCOL + 1)) == SUPPORTED


@pytest.mark.parametrize("changes", [{"users": "many"}, {"places": [[1]]}, {"load": {}}, {"epoch": None}], ids=repr)
def test_what_a_runner_cannot_read_is_refused(changes):
    """A signed document of another shape is named, not guessed at."""
    status, reason = refusal(resigned(**changes))
    assert (422, True) == (status, reason.startswith("unreadable assignment: "))


@pytest.mark.parametrize("payload", ["", "no JSON", "{", "[" * 100_000, "[]", "5"], ids=lambda text: text[:8])
def test_signed_nonsense_is_refused(payload):
    """A signature says whose it is, not that it makes sense."""
    signature = base64.b64encode(KEY.sign(payload.encode())).decode()
    status, _ = refusal(body_of(Envelope(kid="k1", payload=payload, signature=signature)))
    assert 422 == status


def test_fields_of_a_newer_side_are_passed_over():
    """A field may be added to assignment and acknowledgement: whoever does not know it does as before."""
    assert an_assignment() == verify(resigned(surprise=1), KEYS, "uid-1", "runner-1")
    told = json.loads(Acknowledgement(boot="b1").model_dump_json())
    assert Acknowledgement(boot="b1") == Acknowledgement.model_validate_json(json.dumps({**told, "surprise": [1]}))


@pytest.mark.parametrize("part", ["load", "limits"])
def test_what_is_nested_stays_strict(part):
    """Half of a load, or a limit that nobody keeps, is worse than a refusal."""
    document = json.loads(an_assignment().model_dump_json(exclude_none=True))
    assert 422 == refusal(resigned(**{part: {**document[part], "surprise": 1}}))[0]


@pytest.mark.parametrize(
    ("address", "port", "covered"),
    [
        ("10.1.2.3", 80, True),
        ("::ffff:10.1.2.3", 80, True),
        ("10.1.2.3", 81, False),
        ("::ffff:169.254.169.254", 80, False),
        ("fe80::1%eth0", 80, True),
    ],
)
def test_addresses_allowed(address, port, covered):
    """An address is what it connects to, however it is written; IPv6 networks hold no IPv4."""
    allowed = (Allowed(network="10.0.0.0/8", ports=(80,)), Allowed(network="::/0"))
    assert covered == covers(allowed, address, port)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"kid": 5}'], ids=repr)
def test_any_body_is_refused(body):
    assert (422, "not a signed assignment") == refusal(body)


def test_the_wire_format_is_final(golden):
    """The names on the wire; a change of meaning is a new protocol version."""
    acknowledgement = Acknowledgement(
        simulation="uid-1", runner="runner-1", boot="b1", revision="0123abcd", run=1, epoch=5, users=1200,
        places=((0, 600),), processes=2, active=580, settled=True, drained=False, clock_ms=1_700_000_000_123,
    )  # fmt: skip
    document = {
        "assignment": json.loads(an_assignment().model_dump_json(exclude_none=True)),
        "acknowledgement": json.loads(acknowledgement.model_dump_json()),
        "envelope": json.loads(body_of(Envelope(kid="k1", payload="{}", signature="AAAA"))),
    }
    golden("protocol.json", json.dumps(document, indent=2) + "\n")


def test_acknowledgements_survive():
    acknowledgement = Acknowledgement(boot="b1", places=((0, 5), (7, 9)), active=3)
    found = Acknowledgement.model_validate_json(acknowledgement.model_dump_json())
    assert (acknowledgement, 7) == (found, len(found.held))
