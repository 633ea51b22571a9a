"""
The contract of a runner's control API, as tests: a module with a `runner` fixture takes them in by
`class TestX(ControlContract)`. The real supervisor's process is held to it, and so is the fake of one.
"""

from __future__ import annotations

import base64
import signal
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from supervised.running import Running, until
from trafficsim_api.protocol import Envelope
from trafficsim_api.statistics import total


def signed(runner: Running, payload: str) -> bytes:
    """Return an envelope of the operator's around any text."""
    signature = base64.b64encode(runner.key.sign(payload.encode())).decode()
    return Envelope(kid="k1", payload=payload, signature=signature).model_dump_json().encode()


def counted(runner: Running, name: str = "done") -> int:
    """Return one counter of its account."""
    found = runner.statistics()
    return total(found.layout, found.total, name)


class ControlContract:
    """What the operator relies on."""

    def test_a_fresh_runner_is_ready_and_holds_nothing(self, runner: Running) -> None:
        """Epoch 0, no statistics, both probes fine."""
        held = runner.acknowledgement()
        assert (0, 0, True, False) == (held.epoch, held.run, held.drained, held.settled)
        assert [200, 200] == [runner.call(path)[0] for path in ("/readyz", "/healthz")]
        assert (0, 0, ()) == (runner.statistics().run, runner.statistics().sequence, runner.statistics().windows)

    def test_users_are_counted(self, runner: Running) -> None:
        """Windows add up to the total; an unchanged reader gets nothing twice."""
        held = runner.assign(places=10, digest="d1")
        assert (1, 1, 10, "d1", ((0, 10),)) == (held.run, held.epoch, held.active, held.digest, held.places)
        assert ("sim-1", "runner-1", "rev-1") == (held.simulation, held.runner, held.revision)
        until(lambda: counted(runner), lambda done: done > 10)
        found = runner.statistics()
        index = found.layout.action(0, "done")
        summed = sum(int(window.counts[window.indices == index].sum()) for window in found.windows)
        assert summed == total(found.layout, found.total, "done")
        assert [*range(1, found.sequence + 1)] == [window.sequence for window in found.windows]
        later = runner.statistics(found.boot, found.sequence)
        assert found.sequence + 1 == later.first
        assert later.sequence - found.sequence == len(later.windows)
        stranger = runner.statistics("another-boot", found.sequence)
        assert stranger.sequence == len(stranger.windows)

    def test_only_newer_assignments_count(self, runner: Running) -> None:
        """A repeat is harmless, an older epoch and an older run are answered with what is held."""
        first, second = runner.assignment(4), runner.assignment(6)
        assert 200 == runner.put(second)[0]
        assert 200 == runner.put(second)[0]
        status, held = runner.put(first)
        assert (409, 2, 6) == (status, held["epoch"], held["users"])
        assert 409 == runner.put(runner.assignment(4, run=0))[0]

    def test_a_foreign_word_is_refused(self, runner: Running) -> None:
        """Unsigned, signed by a stranger, for another runner or simulation, of another protocol: nothing changes."""
        stranger = Ed25519PrivateKey.generate()
        assert 403 == runner.put(runner.assignment(), key=stranger)[0]
        assert 403 == runner.put(runner.assignment(runner="runner-2"))[0]
        assert 403 == runner.put(runner.assignment(simulation="sim-2"))[0]
        assert 422 == runner.put(runner.assignment(protocol=7))[0]
        assert 422 == runner.call("/v1/assignment", b'{"run": 1}')[0]
        assert 422 == runner.call("/v1/assignment", b"\xff\x00")[0]
        for text in ("no JSON", "[" * 100_000, "[]"):
            assert 422 == runner.call("/v1/assignment", signed(runner, text))[0]
        assert 400 == runner.call("/v1/statistics?since=-1")[0]
        assert 0 == runner.acknowledgement().epoch

    def test_places_come_and_go(self, runner: Running) -> None:
        assert 40 == runner.assign(places=40).active
        assert 60 == runner.assign(places=60).active
        assert 5 == runner.assign(places=5).active

    def test_suspended_keeps_its_places_and_nobody_works(self, runner: Running) -> None:
        """Suspend drains, resume goes on; the runner stays ready."""
        runner.assign(places=10)
        held = runner.assign(places=10, suspended=True)
        assert (0, True, ((0, 10),), True) == (held.active, held.drained, held.places, held.suspended)
        assert 200 == runner.call("/readyz")[0]
        assert 10 == runner.assign(places=10).active

    def test_retired_is_drained_and_not_ready_until_called_back(self, runner: Running) -> None:
        """Retire: users leave, then readiness fails; another assignment un-retires it."""
        runner.assign(places=10)
        runner.assign(places=0, retire=True)
        assert runner.acknowledgement().drained
        assert 503 == runner.call("/readyz")[0]
        assert 200 == runner.call("/healthz")[0]
        assert 10 == runner.assign(places=10).active
        assert 200 == runner.call("/readyz")[0]

    def test_a_new_run_starts_from_nothing(self, runner: Running) -> None:
        """Counts are those of the new run; the sequence goes on."""
        runner.assign(places=10)
        until(lambda: counted(runner), lambda done: done > 10)
        before = runner.statistics()
        runner.assign(places=0, run=2)
        after = runner.statistics(before.boot, before.sequence)
        assert (2, 0) == (after.run, total(after.layout, after.total, "done"))
        assert after.sequence >= before.sequence

    def test_the_end_drains_alone(self, runner: Running) -> None:
        """At its end the runner drains without being told, and goes on answering."""
        assert 10 == runner.assign(places=10).active
        runner.put(runner.assignment(10, end_ms=time.time_ns() // 1_000_000 + 1000))
        until(runner.acknowledgement, lambda held: held.drained and held.settled and not held.active)

    def test_one_that_goes_down_takes_nothing_new(self, runner: Running) -> None:
        """It is not ready, says so, and answers until its last account was read."""
        runner.assign(places=10)
        until(lambda: counted(runner), lambda done: done > 10)
        runner.signal(signal.SIGTERM)
        until(lambda: runner.call("/readyz")[0], lambda status: status == 503)
        assert (503, {"error": "the runner is going down"}) == runner.put(runner.assignment(20))
        held = until(runner.acknowledgement, lambda held: held.drained)
        last = counted(runner)
        final = runner.statistics(held.boot)
        assert last == total(final.layout, final.total, "done")

    def test_a_refused_assignment_is_told_until_one_is_taken(self, runner: Running) -> None:
        """Signed for this runner and refused: whoever reads the acknowledgement sees why."""
        assert "" == runner.assign(places=10).problem
        assert 422 == runner.put(runner.assignment(10, processes=1000))[0]
        assert "an assignment was refused: processes: 1000 are more than 64" == runner.acknowledgement().problem
        assert 403 == runner.put(runner.assignment(10, runner="runner-2"))[0]
        assert "" == runner.assign(places=10).problem
