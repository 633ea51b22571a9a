"""Who holds the Lease, in virtual time: three candidates and an API server that does what a test wants."""

import asyncio
import copy
import random
from datetime import UTC, datetime, timedelta

import pytest

from trafficsim_api.errors import Unavailable
from trafficsim_operator.elector import Elector, LeaseLost, Mandate, Timing, address_of, identity_of
from trafficsim_operator.kube import Changed, Forbidden

pytestmark = pytest.mark.looptime

NAMESPACE, NAME = "trafficsim-system", "trafficsim-operator"
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class Leases:
    """The API server's side: one Lease, replaced only by who knows its version."""

    def __init__(self):
        self.lease = None
        self.version = 0

    def put(self, body):
        self.version += 1
        meta = body["metadata"] | {"resourceVersion": str(self.version), "uid": "u"}
        self.lease = copy.deepcopy({"metadata": meta, "spec": body["spec"]})
        return copy.deepcopy(self.lease)


class Client:
    """One candidate's way there: *faults* are used up one by one, "hang" and "error" for ever when set as *always*."""

    def __init__(self, leases, latency_s=0.01):
        self.leases, self.latency_s = leases, latency_s
        self.always = ""
        self.faults = []
        self.writes = 0

    async def _way(self):
        fault = self.faults.pop(0) if self.faults else self.always
        if fault == "hang":
            await asyncio.sleep(3600)
        await asyncio.sleep(self.latency_s)
        if fault == "error":
            raise Unavailable("500 the API server is not well")
        if fault == "forbidden":
            raise Forbidden("403 it may not")
        return fault

    async def _back(self, fault):
        if fault == "lost":
            await asyncio.sleep(3600)
        await asyncio.sleep(self.latency_s)

    async def get(self, resource, namespace, name):
        fault = await self._way()
        found = copy.deepcopy(self.leases.lease)
        await self._back(fault)
        return found

    async def create(self, resource, body):
        fault = await self._way()
        if self.leases.lease is not None:
            raise Changed("409 it is there")
        made = self.leases.put(body)
        self.writes += 1
        await self._back(fault)
        return made

    async def replace(self, resource, body, manager):
        fault = await self._way()
        if body["metadata"]["resourceVersion"] != str(self.leases.version):
            raise Changed("409 it has changed")
        made = self.leases.put(body)
        self.writes += 1
        await self._back(fault)
        return made


class Candidate:
    """One operator: when it worked, and how it ended."""

    def __init__(self, name, leases, *, clock_off=timedelta(), draw=lambda: 0.5, latency_s=0.01, stubborn_s=0.0):
        now = asyncio.get_running_loop().time
        self.name, self.client, self.mandate = name, Client(leases, latency_s), Mandate(now)
        self.spans, self.renewals, self.fails, self.stubborn_s = [], [], None, stubborn_s
        self.elector = Elector(
            self.client,
            namespace=NAMESPACE,
            name=NAME,
            identity=name,
            mandate=self.mandate,
            wall=lambda: EPOCH + timedelta(seconds=now()) + clock_off,
            draw=draw,
            renewed=self.renewals.append,
        )
        self.task = asyncio.create_task(self.elector.run(self.work))

    async def work(self):
        now = asyncio.get_running_loop().time
        self.spans.append([now(), None])
        try:
            if self.fails is not None:
                await asyncio.sleep(self.fails)
                raise RuntimeError("a worker died")
            await asyncio.sleep(1e9)
        finally:
            if self.stubborn_s:
                await asyncio.sleep(self.stubborn_s)
            self.spans[-1][1] = now()

    @property
    def began(self):
        return self.spans[-1][0] if self.spans else None

    @property
    def ended(self):
        return self.spans[-1][1]

    async def stop(self):
        self.task.cancel()
        await asyncio.wait({self.task})


def overlaps(*candidates):
    """Return the pairs of times in which two worked."""
    spans = sorted((began, ended if ended is not None else 1e9) for c in candidates for began, ended in c.spans)
    return [(a, b) for a, b in zip(spans, spans[1:], strict=False) if b[0] < a[1]]


async def three(**options):
    """The first has the Lease, the others wait."""
    leases = Leases()
    found = [Candidate(name, leases, **options) for name in ("a", "b", "c")]
    await asyncio.sleep(5)
    found.sort(key=lambda candidate: candidate.began is None)
    assert [True, False, False] == [candidate.began is not None for candidate in found]
    return leases, *found


async def stop(*candidates):
    for candidate in candidates:
        await candidate.stop()


async def test_one_of_three_works_and_renews():
    """For an hour nothing changes hands, and only the holder writes: once a period."""
    leases, one, two, three_ = await three()
    await asyncio.sleep(3600)
    assert [None, None] == [two.began, three_.began]
    assert (0, 0) == (two.client.writes, three_.client.writes)
    assert 1784 <= one.client.writes <= 1786, "every 2 s, and 20 ms there and back"
    assert all(one.renewals)
    spec = leases.lease["spec"]
    assert (one.name, 15, 0) == (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"])
    assert spec["renewTime"] > spec["acquireTime"] == "2030-01-01T00:00:00.020000Z"
    assert {one.name} == {candidate.elector.holder for candidate in (one, two, three_)}
    await stop(one, two, three_)


@pytest.mark.parametrize("fault", ["hang", "error"])
async def test_a_holder_that_can_not_renew_stops_before_another_begins(fault):
    """Its work ends at the latest 10 s after it sent its last renewal; another begins 15 s after it saw that."""
    leases, one, two, three_ = await three()
    renewed_s = asyncio.get_running_loop().time()
    one.client.always = fault
    await asyncio.sleep(60)
    with pytest.raises(LeaseLost, match="no answer within" if fault == "hang" else "500 the API server"):
        one.task.result()
    assert renewed_s + 7.5 <= one.ended <= renewed_s + 10
    [began] = [candidate.began for candidate in (two, three_) if candidate.began is not None]
    assert renewed_s + 13 <= began <= renewed_s + 18
    assert [] == overlaps(one, two, three_)
    assert 1 == leases.lease["spec"]["leaseTransitions"]
    assert False in one.renewals
    await stop(two, three_)


async def test_a_graceful_stop_hands_over_at_once():
    """The work is stopped, then the Lease given up; the next one begins within a period."""
    leases, one, two, three_ = await three()
    stopped_s = asyncio.get_running_loop().time()
    await one.stop()
    assert "" == leases.lease["spec"]["holderIdentity"]
    assert one.ended == stopped_s
    await asyncio.sleep(3)
    [began] = [candidate.began for candidate in (two, three_) if candidate.began is not None]
    assert stopped_s < began <= stopped_s + 2.1
    assert [] == overlaps(one, two, three_)
    assert one.task.cancelled()
    await stop(two, three_)


async def test_of_two_that_find_it_free_at_once_one_gets_it():
    """Both read, both replace what they read: the second one's version is old."""
    leases = Leases()
    leases.put({"metadata": {"namespace": NAMESPACE, "name": NAME}, "spec": {"holderIdentity": ""}})
    both = [Candidate(name, leases, latency_s=0.5) for name in ("a", "b")]
    await asyncio.sleep(6)
    assert [False, True] == sorted(candidate.began is not None for candidate in both)
    assert 1 == len({candidate.elector.holder for candidate in both})
    await asyncio.sleep(60)
    assert [] == overlaps(*both)
    await stop(*both)


async def test_clocks_that_are_off_change_nothing():
    """The instants in the Lease are for people: hours of difference neither take it nor keep it."""
    leases = Leases()
    off = [timedelta(hours=-9), timedelta(), timedelta(hours=9)]
    all_three = [Candidate(str(d), leases, clock_off=d, draw=random.Random(1).random) for d in off]
    await asyncio.sleep(600)
    [one] = [candidate for candidate in all_three if candidate.began is not None]
    one.client.always = "hang"
    sent_s = asyncio.get_running_loop().time()
    await asyncio.sleep(14)
    assert 1 == sum(candidate.began is not None for candidate in all_three)
    await asyncio.sleep(5)
    assert 2 == sum(candidate.began is not None for candidate in all_three)
    assert one.ended <= sent_s + 10
    assert [] == overlaps(*all_three)
    await stop(*all_three)


async def test_what_another_has_by_now_is_lost_at_once():
    """A holder that finds another's name does not wait for its deadline, and takes nothing back."""
    leases, one, two, three_ = await three()
    await stop(two, three_)
    foreign = leases.lease["spec"] | {"holderIdentity": "somebody"}
    leases.put({"metadata": leases.lease["metadata"], "spec": foreign})
    taken_s = asyncio.get_running_loop().time()
    await asyncio.sleep(3)
    with pytest.raises(LeaseLost, match="somebody holds it now"):
        one.task.result()
    assert one.ended <= taken_s + 2.1
    assert "somebody" == leases.lease["spec"]["holderIdentity"]


async def test_a_holder_outlives_what_is_no_loss():
    """An answer that gets lost, another's annotation on the Lease, single failures, and the Lease deleted by hand."""
    leases, one, two, three_ = await three()
    for faults in (["lost"], ["error", "error"], ["hang"]):
        one.client.faults = faults
        await asyncio.sleep(30)
    leases.put({"metadata": leases.lease["metadata"] | {"annotations": {"a": "b"}}, "spec": leases.lease["spec"]})
    await asyncio.sleep(30)
    leases.lease, leases.version = None, leases.version + 1
    one.client.latency_s = 0.001
    await stop(two, three_)
    await asyncio.sleep(30)
    assert [[one.began, None]] == one.spans
    assert one.mandate.holds()
    assert one.name == leases.lease["spec"]["holderIdentity"]
    await one.stop()


async def test_a_mandate_ends_by_a_clock_of_its_own():
    """Whatever the loop's time says: a process that was stopped for long looks at the clock, and may not."""
    passed_s = [100.0]
    mandate = Mandate(lambda: passed_s[0])
    assert not mandate.holds()
    mandate.until_s = 110.0
    assert mandate.holds()
    passed_s[0] = 110.0
    assert not mandate.holds()
    assert Mandate.without_end().holds()


async def test_work_that_dies_gives_the_lease_up():
    """A holder without work would keep the others from it; what killed the work is raised."""
    leases = Leases()
    one = Candidate("a", leases)
    one.fails = 7
    await asyncio.sleep(20)
    with pytest.raises(RuntimeError, match="a worker died"):
        one.task.result()
    assert "" == leases.lease["spec"]["holderIdentity"]
    assert not one.mandate.holds()


async def test_work_that_does_not_end_may_do_nothing_any_more():
    """It is waited for three seconds; its mandate ended before."""
    _, one, two, three_ = await three(stubborn_s=100)
    one.client.always = "error"
    began_s = asyncio.get_running_loop().time()
    await asyncio.sleep(9.9)
    assert not one.mandate.holds()
    await asyncio.sleep(3.2)
    assert one.task.done()
    assert asyncio.get_running_loop().time() - began_s < 15
    with pytest.raises(LeaseLost):
        one.task.result()
    await asyncio.sleep(120)
    await stop(two, three_)


@pytest.mark.parametrize("seed", range(5))
async def test_never_two_at_work_whatever_the_network_does(seed):
    """A quarter of an hour of hangs, lost answers, errors, slow ways, drawn by the seed; who lost comes as another."""
    draws, leases, ended = random.Random(seed), Leases(), []
    alive = [Candidate(f"{name}0", leases, draw=draws.random) for name in "abc"]
    for _ in range(90):
        await asyncio.sleep(10)
        for place, one in enumerate(alive):
            if one.task.done():
                ended.append(one)
                alive[place] = Candidate(f"{one.name[0]}{len(ended)}", leases, draw=draws.random)
            client = alive[place].client
            client.always = draws.choice(["", "", "", "", "hang", "error", "lost"])
            client.latency_s = draws.choice([0.01, 0.3, 1.2])
    assert [] == overlaps(*alive, *ended)
    assert len(ended) > 2
    assert sum(bool(one.spans) for one in (*alive, *ended)) > 2
    for one in ended:
        assert isinstance(one.task.exception(), LeaseLost)
    await stop(*alive)


def test_the_deadline_lies_between_the_renewals_and_the_end():
    """duration > deadline > 2 · period, and a request ends before two periods have passed."""
    timing = Timing()
    assert (15, 10, 2) == (timing.duration_s, timing.deadline_s, timing.period_s)
    assert timing.request_s < 2 * timing.period_s
    with pytest.raises(AssertionError):
        Timing(deadline_s=15)
    with pytest.raises(AssertionError):
        Timing(period_s=5)


@pytest.mark.parametrize(
    ("holder", "address"),
    [
        (identity_of("operator-0", "1f2e3d4c", "10.0.0.7:8080"), "10.0.0.7:8080"),
        (identity_of("operator-0", "1f2e3d4c", "[fd00::7]:8080"), "[fd00::7]:8080"),
        (identity_of("operator-0", "1f2e3d4c", ""), ""),
        ("somebody", ""),
        ("", ""),
    ],
)
def test_the_holder_tells_where_its_pages_are(holder, address):
    assert address == address_of(holder)


async def test_whose_role_knows_no_lease_says_so():
    """Until it is let in: an operator that can never work is not ready, so an upgrade to it does not go on."""
    leases = Leases()
    one = Candidate("a", leases)
    one.client.always = "forbidden"
    await asyncio.sleep(5)
    assert "403 it may not" in one.elector.refused
    one.client.always = "error"
    await asyncio.sleep(5)
    assert "403 it may not" in one.elector.refused, "an API server that is not well says nothing else"
    one.client.always = ""
    await asyncio.sleep(5)
    assert ("", True) == (one.elector.refused, one.began is not None)
    await one.stop()
