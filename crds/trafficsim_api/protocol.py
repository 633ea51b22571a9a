"""
What operator and runner say to each other over the runner's HTTP API.

| call | body | answer |
|---|---|---|
| PUT /v1/assignment | Envelope (signed Assignment) | Acknowledgement; 403 signature, 409 older epoch, 422 content |
| GET /v1/acknowledgement | – | Acknowledgement |
| GET /v1/statistics?boot=B&since=N | – | statistics.Answer, application/octet-stream |
| GET /metrics · /healthz · /readyz | – | Prometheus text · alive · ready |

An assignment is absolute, never a difference: a repeat or an older epoch is harmless. Its envelope is signed with
Ed25519; runners hold the public keys, so no Secret exists in a user's namespace.

An operator of protocol N serves runners of N-1 and N. Between equal protocols either side may be newer: fields of
Assignment and Acknowledgement that one does not know are passed over, so a field may be added whose absence means what
was so before. What is nested in an assignment stays strict: users that do half of a load, or a limit that nobody keeps,
are worse than a refusal.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ConfigDict, Field, ValidationError

from trafficsim_api.arrivals import Arrivals
from trafficsim_api.data import Feed
from trafficsim_api.places import Places
from trafficsim_api.resource import Archetype, Connections, Model, Profile, Step, Target
from trafficsim_api.turns import Turn

__all__ = [
    "LAST_READ_S",
    "PORT",
    "PROTOCOL",
    "SUPPORTED",
    "Acknowledgement",
    "Allowed",
    "Assignment",
    "Envelope",
    "Limits",
    "Load",
    "Refused",
    "Task",
    "TaskReport",
    "bare",
    "covers",
    "sign",
    "verify",
]

PROTOCOL: Final = 1
SUPPORTED: Final = (1,)
"""N-1 and N; there was none before the first."""
PORT: Final = 9646
LAST_READ_S: Final = 5
"""How long at most a runner that drained after SIGTERM waits for somebody to read its last account (s)."""

Range = Annotated[tuple[int, int], Field()]


class Refused(Exception):
    """
    An assignment that a runner will not take; *status* is the HTTP status of the answer.

    *is_signed*: it came from who may sign, for this runner.
    """

    def __init__(self, status: int, reason: str, *, is_signed: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.is_signed = is_signed


class Allowed(Model):
    """Addresses that may be connected to: a network in CIDR notation and ports (empty: all)."""

    network: str
    ports: tuple[int, ...] = ()


def bare(address: str) -> IPv4Address | IPv6Address:
    """Return *address* without a scope; an IPv4 address mapped into IPv6 (::ffff:10.0.0.1) is the IPv4 address."""
    ip = ip_address(address.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


def covers(allowed: Iterable[Allowed], address: str, port: int) -> bool:
    """Say whether *address* may be connected to: its network must be named, and its port when any port is."""
    ip = bare(address)
    return any(
        ip in ip_network(rule.network, strict=False) and (not rule.ports or port in rule.ports) for rule in allowed
    )


class Limits(Model):
    """What policy allows; checked again by the runner at every connect."""

    targets: tuple[Allowed, ...]
    verbs: tuple[str, ...] = ()
    """Allowed verbs in lower case; empty: all. The one GET of the target's health path is allowed whatever they are."""
    connections: int = 1000
    """Open connections per runner."""
    concurrency: int = 50_000
    """Requests in flight per runner; what is due beyond is dropped with reason no_slot."""


class Load(Model):
    """What the users do. An edit of it is live, never a rollout."""

    target: Target
    profile: tuple[Profile, ...] | None = None
    arrivals: Arrivals | None = None
    """The open model; None: the closed one."""
    since_ms: int = 0
    """From when on rate and profile count (ms from the run's start); what was told before counts until then."""
    before: int = 0
    """The work due until then, in arrivals.UNIT: the numbers of the arrivals go on."""
    archetypes: tuple[Archetype, ...]
    seed: int = 0
    saved: Annotated[dict[str, str] | None, Field(repr=False)] = None
    """What setup saved: every user's templates may look it up until the user saves its own under the name."""
    connections: Connections = Connections()
    data: tuple[Feed, ...] | None = None
    """What `{{data.X.Y}}` looks up; None: nothing."""
    ca: str | None = None
    """PEM of the certificates to trust, resolved by the operator; None: the runner image's."""


class Task(Model):
    """
    A flow that this runner alone does once, with no user at work: setup or teardown.

    *id* is `<run>-<kind>`: what a runner has begun under an id it never begins again. An assignment without the task
    breaks off one that is still running.
    """

    kind: Literal["setup", "teardown"]
    id: str
    flow: tuple[Step, ...]
    timeout_ms: int
    reader: str = ""
    """Whom the saved values are sealed for (see sealed.py)."""


class TaskReport(Model):
    """How a task stands: *requests* it sent, *failed* those without an answer or with a 5xx."""

    model_config = ConfigDict(extra="ignore")

    id: str
    state: Literal["running", "done", "failed"]
    message: str = ""
    """Why it failed: the action and the cause, never a value."""
    requests: int = 0
    failed: int = 0
    saved: int = 0
    """How many values it saved."""
    sealed: str = ""
    """The values, for the operator alone; told as long as the assignment names the task."""


class Assignment(Model):
    """
    Everything a runner is to do, absolutely.

    *start_at_ms* and *end_ms* are wall-clock ms since the Unix epoch; a runner turns them into monotonic instants once.
    *users* is T; *places* are half-open ranges. *suspended*: u(t) = 0, places kept. *retire*: drain, then fail
    readiness.
    """

    model_config = ConfigDict(extra="ignore")

    protocol: int = PROTOCOL
    simulation: str
    run: int
    runner: str
    revision: str
    epoch: int
    users: int
    places: tuple[Range, ...]
    takes: tuple[Turn, ...] = ()
    """Open model: of the places, those that count from an arrival on; before it another runner has them."""
    gives: tuple[Turn, ...] = ()
    """Open model: places no longer held whose arrivals before a number are still to be begun here."""
    processes: int
    digest: str = ""
    """Hash over what is not echoed one by one (load, limits, instants): a runner that echoes it has all of it."""
    start_at_ms: int
    warm_up_ms: int
    end_ms: int
    suspended: bool = False
    retire: bool = False
    load: Load
    limits: Limits
    rows: Mapping[str, str] = {}
    """Rows of load.data by digest, packed (see tables.py): those that the runner did not say it has."""
    task: Task | None = None

    @property
    def held(self) -> Places:
        """Return the places assigned."""
        return Places.of(self.places)


class Acknowledgement(Model):
    """
    What a runner does with its assignment now.

    *settled*: every place gained has made its first send (or is not on now by the profile), every place lost is
    parked, and the last arrival before each turn of *gives* was begun. *active* counts users from their first send
    until parked.
    *clock_ms* is the runner's wall clock at the answer; half the round trip off, the difference is its offset.
    *run*, *places*, *users*, *processes*, *retire*, *suspended* read back what it holds (epoch 0: nothing yet).
    """

    model_config = ConfigDict(extra="ignore")

    protocol: int = PROTOCOL
    simulation: str = ""
    runner: str = ""
    boot: str
    revision: str = ""
    run: int = 0
    epoch: int = 0
    users: int = 0
    places: tuple[Range, ...] = ()
    takes: tuple[Turn, ...] | None = None
    """What of the assignment's takes is in force, by its workers' word: later than asked where it came too late."""
    gives: tuple[Turn, ...] = ()
    """The assignment's, echoed. A runner that knows of neither leaves *takes* out."""
    processes: int = 0
    digest: str = ""
    """The assignment's, echoed."""
    active: int = 0
    settled: bool = False
    retire: bool = False
    suspended: bool = False
    drained: bool = True
    """No user is active and no request in flight."""
    clock_ms: int = 0
    target: str = ""
    """What came of asking target.healthPath: "" not yet, "reachable", or what was wrong."""
    rows: tuple[str, ...] = ()
    """The digests of the rows it has: they need not be sent again."""
    problem: str = ""
    """Why the assignment is not carried out and will not be without a change: a worker refuses it or keeps dying."""
    fault: str = ""
    """The first exception in the run that a scenario raised, or that is a mistake of ours, with its place."""
    task: TaskReport | None = None
    """The last task of the run that this runner was given."""
    start_at_ms: int = 0
    """The assignment's, echoed."""
    late_us: int | None = None
    """By how much the first user of the run began after it was due, on the runner's monotonic clock; None: none did."""

    @property
    def held(self) -> Places:
        """Return the places held."""
        return Places.of(self.places)


class Envelope(Model):
    """A signed document: *payload* is the JSON text that was signed, *signature* base64 of its Ed25519 signature."""

    kid: str
    payload: str
    signature: str


def sign(assignment: Assignment, kid: str, key: Ed25519PrivateKey) -> Envelope:
    """Return *assignment* in an envelope signed by *key*, known to runners as *kid*."""
    payload = assignment.model_dump_json(exclude_none=True)
    return Envelope(kid=kid, payload=payload, signature=base64.b64encode(key.sign(payload.encode())).decode())


def verify(body: bytes, keys: Mapping[str, Ed25519PublicKey], simulation: str, runner: str) -> Assignment:
    """
    Return the assignment in *body*, after its signature, addressee and protocol were checked.

    Raises Refused: 403 for an unknown key, a bad signature or another addressee (a replay), 422 for another protocol
    or a document this runner cannot read.
    """
    try:
        envelope = Envelope.model_validate_json(body)
        signature = base64.b64decode(envelope.signature, validate=True)
    except ValueError as error:
        raise Refused(422, "not a signed assignment") from error
    key = keys.get(envelope.kid)
    if key is None:
        raise Refused(403, f"unknown signing key {envelope.kid!r}")
    try:
        key.verify(signature, envelope.payload.encode())
    except InvalidSignature as error:
        raise Refused(403, "the signature does not fit") from error
    try:
        raw: Any = json.loads(envelope.payload)
    except (ValueError, RecursionError) as error:
        raise Refused(422, "the signed text is no assignment") from error
    if not isinstance(raw, dict):
        raise Refused(422, "the signed text is no assignment")
    is_ours = (raw.get("simulation"), raw.get("runner")) == (simulation, runner)
    if (protocol := raw.get("protocol")) not in SUPPORTED:
        served = ", ".join(map(str, SUPPORTED))
        raise Refused(422, f"protocol {protocol} is not one of {served}", is_signed=is_ours)
    try:
        assignment = Assignment.model_validate_json(envelope.payload)
    except ValidationError as error:
        reason = f"unreadable assignment: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
        raise Refused(422, reason, is_signed=is_ours) from error
    if not is_ours:
        raise Refused(403, "the assignment is for another runner")
    return assignment
