"""Policy: what is refused, by which field, and which snippet would allow it."""

from datetime import timedelta

import pytest

from trafficsim_api.document import parse, read
from trafficsim_api.policy import DEFAULT, LOCAL_DEFAULT, Policy, PolicyTarget
from trafficsim_api.resource import Archetype, Repeat, Request, Step, Target
from trafficsim_api.resource import TrafficSimulationSpec as Spec
from trafficsim_operator.observed import TargetFacts
from trafficsim_operator.plan.policy import judge, repository_of

OWN = TargetFacts(host="shop", port=8080, addresses=("10.96.3.7",), own_service=True)
ELSEWHERE = TargetFacts(host="shop.example.com", port=443, addresses=("192.0.2.7",))
LOOPBACK = TargetFacts(host="127.0.0.1", port=80, addresses=("127.0.0.1",))
METADATA = TargetFacts(host="metadata", port=80, addresses=("169.254.169.254",))
IMAGE = "trafficsim/runner:1.0"


def a_spec(*, users: int = 100, duration: timedelta | None = timedelta(minutes=30), verb: str = "get") -> Spec:
    """Build a spec whose one request, nested in a repeat, uses *verb*."""
    step = Step(request=Request.model_validate({verb: "/x"}))
    flow = (Step(repeat=Repeat(times="3", flow=(step,))),)
    return Spec(
        target=Target(url="http://x"), users=users, duration=duration, archetypes=(Archetype(name="a", flow=flow),)
    )


def test_the_shipped_default_allows_its_example() -> None:
    """Own Service, shipped image, ≤ 500 users, ≤ 4 runners, ≤ 1 h."""
    ruling = judge(a_spec(users=500), IMAGE, OWN, DEFAULT, 4)
    assert () == ruling.refusals
    assert [("10.96.3.7", (8080,))] == [(a.network, a.ports) for a in ruling.limits.targets]


@pytest.mark.parametrize(
    ("spec", "image", "facts", "policy", "field", "snippet"),
    [
        pytest.param(a_spec(users=501), IMAGE, OWN, DEFAULT, "users", "maxUsers: 501", id="users"),
        pytest.param(
            a_spec(duration=None),
            IMAGE,
            OWN,
            DEFAULT,
            "duration",
            "maxDuration: null  # or in the simulation: duration: 1h",
            id="no duration",
        ),
        pytest.param(
            a_spec(duration=timedelta(hours=2)), IMAGE, OWN, DEFAULT, "duration", "maxDuration: 2h", id="long duration"
        ),
        pytest.param(
            a_spec(),
            "other/image:1",
            OWN,
            DEFAULT,
            "runner.image",
            'images: ["trafficsim/runner", "other/image"]',
            id="image",
        ),
        pytest.param(
            a_spec(),
            IMAGE,
            ELSEWHERE,
            DEFAULT,
            "target.url",
            'targets: [{service: "own"}, {host: "shop.example.com", ports: [443]}]',
            id="another host",
        ),
        pytest.param(
            a_spec(),
            IMAGE,
            TargetFacts(host="shop", port=80, addresses=("10.96.3.7",)),
            DEFAULT,
            "target.url",
            'targets: [{service: "own"}, {host: "shop", ports: [80]}]',
            id="a service without selector is none",
        ),
        pytest.param(
            a_spec(),
            IMAGE,
            METADATA,
            Policy(targets=(PolicyTarget(cidr="0.0.0.0/0"), PolicyTarget(host="metadata"))),
            "target.url",
            'targets: [{cidr: "0.0.0.0/0"}, {host: "metadata"}, {cidr: "169.254.169.254/32", ports: [80]}]',
            id="metadata needs an entry of its own",
        ),
        pytest.param(
            a_spec(verb="delete"),
            IMAGE,
            LOOPBACK,
            Policy(targets=LOCAL_DEFAULT.targets, verbs=("get",)),
            "archetypes[0].flow[0].repeat.flow[0].request",
            "verbs: [delete, get]",
            id="verb in a nested flow",
        ),
        pytest.param(
            a_spec(),
            IMAGE,
            LOOPBACK,
            Policy(targets=(PolicyTarget(cidr="127.0.0.0/8", ports=(8080,)),)),
            "target.url",
            'targets: [{cidr: "127.0.0.0/8", ports: [8080]}, {cidr: "127.0.0.1/32", ports: [80]}]',
            id="port",
        ),
    ],
)
def test_refusals(spec: Spec, image: str, facts: TargetFacts, policy: Policy, field: str, snippet: str) -> None:
    """Each refusal names its field and prints what would allow it."""
    ruling = judge(spec, image, facts, policy, 1)
    assert [field] == [problem.field for problem in ruling.refusals]
    assert snippet == ruling.snippet
    assert () == judge(spec, image, facts, pasted(ruling.snippet, policy), 1).refusals


def pasted(snippet: str, policy: Policy) -> Policy:
    """Return *policy* with the fields of *snippet* in place of its own."""
    document = policy.model_dump(mode="json", by_alias=True, exclude_none=True)
    return read(Policy, document | parse(snippet.encode(), "the snippet"))


@pytest.mark.parametrize("duration", [None, timedelta(hours=2)])
@pytest.mark.parametrize(
    "facts",
    [
        ELSEWHERE,
        TargetFacts(host="shop", port=80, addresses=("10.0.0.1", "192.0.2.1")),
        TargetFacts(host="shop", port=80, addresses=("192.0.2.1", "169.254.169.254", "2001:db8::1")),
        TargetFacts(host="::ffff:169.254.169.254", port=80, addresses=("::ffff:169.254.169.254",)),
    ],
    ids=["a name", "one of two addresses", "an address that is guarded", "a guarded address in IPv6"],
)
def test_the_snippet_allows_all_at_once(facts: TargetFacts, duration: timedelta | None) -> None:
    """Pasted into the policy it leaves nothing refused, and takes nothing away that was allowed."""
    spec = a_spec(users=5000, duration=duration, verb="delete")
    policy = DEFAULT.model_copy(update={"verbs": ("get",)})
    ruling = judge(spec, "other/image:1", facts, policy, 5)
    assert {"users", "duration", "runner.image", "target.url"} < {problem.field for problem in ruling.refusals}
    after = pasted(ruling.snippet, policy)
    assert () == judge(spec, "other/image:1", facts, after, 5).refusals
    assert () == judge(a_spec(), IMAGE, OWN, after, 1).refusals


def test_runners_are_bounded() -> None:
    """maxRunners counts what the simulation needs."""
    ruling = judge(a_spec(), IMAGE, OWN, DEFAULT, 5)
    assert "maxRunners: 5" == ruling.snippet


def test_every_address_must_be_allowed() -> None:
    """A name that also resolves to an address outside is refused."""
    facts = TargetFacts(host="shop", port=80, addresses=("10.0.0.1", "192.0.2.1"))
    assert judge(a_spec(), IMAGE, facts, LOCAL_DEFAULT, 1).refusals


def test_metadata_with_an_own_entry_is_allowed() -> None:
    """A network wholly within the guarded ones opens them."""
    policy = Policy(targets=(PolicyTarget(cidr="169.254.169.254/32"),))
    assert not judge(a_spec(), IMAGE, METADATA, policy, 1).refusals


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("a/b:1", "a/b"),
        ("a/b", "a/b"),
        ("host:5000/a/b", "host:5000/a/b"),
        ("host:5000/a/b:1@sha256:00", "host:5000/a/b"),
        ("a/b@sha256:00", "a/b"),
    ],
)
def test_repository(image: str, repository: str) -> None:
    """Repositories are compared, not tags or digests."""
    assert repository == repository_of(image)


@pytest.mark.parametrize("address", ["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"])
def test_ipv6_is_no_way_round_the_guard(address: str) -> None:
    """A metadata address written in IPv6 connects to the same server, and needs the same entry of its own."""
    facts = TargetFacts(host=address, port=80, addresses=(address,))
    assert judge(a_spec(), IMAGE, facts, Policy(targets=(PolicyTarget(cidr="::/0"),)), 1).refusals
    assert judge(a_spec(), IMAGE, facts, Policy(targets=(PolicyTarget(cidr="0.0.0.0/0"),)), 1).refusals


def test_a_mapped_address_is_judged_and_allowed_as_ipv4() -> None:
    """Runners are told the address they really connect to."""
    facts = TargetFacts(host="::ffff:10.1.2.3", port=80, addresses=("::ffff:10.1.2.3",))
    ruling = judge(a_spec(), IMAGE, facts, Policy(targets=(PolicyTarget(cidr="10.0.0.0/8"),)), 1)
    assert ((), ("10.1.2.3",)) == (ruling.refusals, tuple(allowed.network for allowed in ruling.limits.targets))
    refused = judge(a_spec(), IMAGE, facts, Policy(targets=(PolicyTarget(cidr="::/0"),)), 1)
    assert 'targets: [{cidr: "::/0"}, {cidr: "10.1.2.3/32", ports: [80]}]' == refused.snippet
