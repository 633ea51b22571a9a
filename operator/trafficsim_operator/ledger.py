"""
The ledger of a run: every runner's account, merged by addition, and what of it is missing.

Runners keep cumulative vectors, so the newest answer of each is its whole account: a lost answer, or an operator that
was away, costs nothing. Windows serve the figures of the last ten seconds, rules with `over`, and saturation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from trafficsim_api.errors import Unavailable
from trafficsim_api.layout import DROP_REASONS, Layout
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.rules import Rule, parse_rule
from trafficsim_api.statistics import Answer, Vector, Window, histogram, merge_extremes, quantiles, total, zeros
from trafficsim_api.units import format_instant, milliseconds
from trafficsim_operator.fleet.runners import Runners
from trafficsim_operator.observed import Desired, Evidence, RuleEvidence, Runner
from trafficsim_operator.plan import numbers, saturation
from trafficsim_operator.plan.report import Report, report
from trafficsim_operator.store import Document, Record

__all__ = ["Ledger", "Ledgers"]

log = logging.getLogger(__name__)

_READ_MS: Final = 5_000
_READ_WATCHED_MS: Final = 1_000
_RECENT_MS: Final = 10_000


@dataclass(slots=True, kw_only=True)
class _Account:
    """
    One runner's newest answer, read at *read_ms*, with its counts as of *counted_ms*.

    *ended*: it was retired by us, its account is final.
    """

    name: str
    answer: Answer
    read_ms: int
    counted_ms: int
    ended: bool = False


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The accounts of one simulation's present run."""

    run: int = 0
    remembered: dict[str, Runner] = field(default_factory=dict)
    """The newest look at each runner, by UID: an unreachable one keeps its places."""
    watched: bool = False
    _accounts: dict[str, _Account] = field(default_factory=dict)
    _layout: Layout = field(default_factory=lambda: Layout(actions=()))
    _recent: list[tuple[int, Layout, Window]] = field(default_factory=list)
    _health: dict[tuple[int, str], saturation.Health] = field(default_factory=dict)
    _findings: dict[int, str] = field(default_factory=dict)
    _spans: dict[tuple[str, int], tuple[Layout, Vector, int]] = field(default_factory=dict)
    _breaches: dict[str, int] = field(default_factory=dict)
    _missing: list[str] = field(default_factory=list)
    _unseen: int = 0
    _windows: int = 0
    _lost: int = 0
    _newest_ms: int = 0
    _complete: bool = True

    def begin(self, run: int) -> None:
        """Start the account of *run* anew; what came of the one before is in its status and totals."""
        watched = self.watched
        self.__init__(run=run, watched=watched)  # type: ignore[misc]

    def restore(self, name: str, answer: Answer, now_ms: int) -> None:
        """Take the kept last answer of a runner that has ended."""
        if answer.run == self.run:
            self._account(answer.runner, name, answer, now_ms).ended = True

    def addresses(self) -> frozenset[str]:
        """Return the addresses of the runners that were seen at the last look."""
        return frozenset(runner.address for runner in self.remembered.values() if runner.address is not None)

    def end(self, runner: str) -> None:
        """Say that *runner* (UID) was retired by us: that it goes is no loss."""
        account = self._accounts.get(runner)
        if account is not None:
            account.ended = True

    async def read(
        self, runners: Iterable[Runner], clients: Runners, now_ms: int, spec: TrafficSimulationSpec | None
    ) -> None:
        """Read the accounts that are due, and note runners that are gone."""
        here = {runner.uid: runner for runner in runners}
        self._note_lost(here, now_ms)
        self._complete = True
        await asyncio.gather(*(self._read_one(runner, clients, now_ms, spec) for runner in here.values()))
        self._close_windows(spec)

    async def _read_one(
        self, runner: Runner, clients: Runners, now_ms: int, spec: TrafficSimulationSpec | None
    ) -> None:
        ack = runner.acknowledgement
        if runner.address is None or ack is None or ack.run != self.run or not ack.epoch:
            return
        account = self._accounts.get(runner.uid)
        if not runner.answered:
            self._complete = False
            return
        pace = _READ_WATCHED_MS if self.watched else _READ_MS
        if account is not None and now_ms - account.read_ms < pace and not (ack.retire and ack.drained):
            return
        since = account.answer.sequence if account is not None and account.answer.boot == ack.boot else 0
        try:
            answer = await clients.statistics(runner.address, ack.boot, since)
        except Unavailable as error:
            self._complete = False
            log.info("statistics not read", extra={"runner": runner.name, "error": str(error)})
            return
        if answer.run == self.run:
            self._take(runner, answer, since, now_ms, spec)

    def _take(
        self, runner: Runner, answer: Answer, since: int, now_ms: int, spec: TrafficSimulationSpec | None
    ) -> None:
        if answer.first > since + 1 and answer.sequence > since:
            self._unseen += answer.first - since - 1
        self._account(runner.uid, runner.name, answer, now_ms)
        for window in answer.windows:
            if window.sequence > since:
                self._windows += 1
                self._spread(runner, answer.layout, window, spec)

    def _account(self, uid: str, name: str, answer: Answer, now_ms: int) -> _Account:
        before = self._accounts.get(uid)
        if before is not None and before.answer.boot != answer.boot and _done(answer) < _done(before.answer):
            # The runner came back without its state directory: what it had counted stays counted.
            self._accounts[f"{uid}/{before.answer.boot}"] = _Account(
                name=name, answer=before.answer, read_ms=before.read_ms, counted_ms=before.counted_ms, ended=True
            )
            self._missing.append(
                f"{name} lost its account; what came after {format_instant(before.counted_ms)} until its restart"
            )
        self._layout = numbers.joined(self._layout, answer.layout)
        # Subtle: a read tells what was counted at the runner's last look, up to a second ago. What is missing of one
        # that dies begins there, not at the read.
        counted = answer.windows[-1].wall_ms if answer.windows else before.counted_ms if before is not None else now_ms
        account = self._accounts[uid] = _Account(
            name=name, answer=answer, read_ms=now_ms, counted_ms=min(now_ms, counted)
        )
        return account

    def _note_lost(self, here: Mapping[str, Runner], now_ms: int) -> None:
        for uid in [uid for uid in self.remembered if uid not in here]:
            gone = self.remembered.pop(uid)
            ack, account = gone.acknowledgement, self._accounts.get(uid)
            if ack is None or ack.run != self.run or ack.retire or (account is not None and account.ended):
                continue
            self._lost += 1
            since = format_instant(account.counted_ms) if account else "its start"
            self._missing.append(f"{gone.name} from {since} until it was seen lost at {format_instant(now_ms)}")

    def _spread(self, runner: Runner, layout: Layout, window: Window, spec: TrafficSimulationSpec | None) -> None:
        """Put a window where it is needed: recent figures, health, rules with `over`."""
        self._recent.append((window.wall_ms, layout, window))
        if not window.warm or spec is None:
            return
        warm = milliseconds(spec.warm_up)
        number = saturation.window_of(window.start_ms, warm)
        self._health.setdefault((number, runner.name), saturation.Health(runner=runner.name)).add(window, layout)
        for rule in _spanned(spec):
            assert rule.over is not None
            key = (rule.text, (window.start_ms - warm) // milliseconds(rule.over))
            known, vector, covered = self._spans.get(key, (layout, zeros(layout), 0))
            both = numbers.joined(known, layout)
            vector = numbers.aligned(vector, known, both)
            part = zeros(layout)
            window.add_to(part)
            self._spans[key] = (both, vector + numbers.aligned(part, layout, both), max(covered, window.end_ms))

    def _close_windows(self, spec: TrafficSimulationSpec | None) -> None:
        """Judge what can grow no more: every live runner has reported beyond its end."""
        if self._recent:
            newest = max(wall for wall, _, _ in self._recent)
            self._recent = [entry for entry in self._recent if entry[0] > newest - _RECENT_MS]
        if spec is None:
            return
        live = [a.answer.windows[-1].end_ms for a in self._accounts.values() if not a.ended and a.answer.windows]
        until = min(live, default=0)
        warm = milliseconds(spec.warm_up)
        for key in [k for k in self._health if warm + (k[0] + 1) * saturation.WINDOW_MS <= until]:
            health = self._health.pop(key)
            if health.whole:
                self._findings[key[0]] = self._findings.get(key[0]) or health.finding()
        for rule in _spanned(spec):
            assert rule.over is not None
            length = milliseconds(rule.over)
            for span in [k for k in self._spans if k[0] == rule.text and warm + (k[1] + 1) * length <= until]:
                layout, vector, _ = self._spans.pop(span)
                value = numbers.value_of(rule, layout, vector, seconds=length / 1000)
                if value is not None and numbers.samples_of(rule, layout, vector) >= 1 and not rule.holds(value):
                    self._breaches[rule.text] = self._breaches.get(rule.text, 0) + 1

    def merged(self) -> tuple[Layout, Vector, Vector, tuple[int, ...]]:
        """Return layout, total, the part before the warm-up's end, and extremes over all runners."""
        layout = self._layout
        whole, warm = zeros(layout), zeros(layout)
        extremes: tuple[int, ...] = (0,) * layout.extremes
        for account in self._accounts.values():
            answer = account.answer
            whole = whole + numbers.aligned(answer.total, answer.layout, layout)
            # Subtle: a worker copies its counters at the warm-up's end, and the last snapshot may be older than that.
            early = np.minimum(answer.warmup, answer.total)
            warm = warm + numbers.aligned(early, answer.layout, layout)
            extremes = merge_extremes(extremes, numbers.aligned_extremes(answer.extremes, answer.layout, layout))
        return layout, whole, warm, extremes

    def evidence(self, spec: TrafficSimulationSpec | None, now_ms: int) -> Evidence:
        """Return what the numbers say now."""
        layout, whole, warm, extremes = self.merged()
        judged = whole - warm
        seconds = self._judged_seconds(spec)
        recent = zeros(layout)
        for _, known, window in self._recent:
            part = zeros(known)
            window.add_to(part)
            recent = recent + numbers.aligned(part, known, layout)
        p50, p95, p99 = quantiles(histogram(layout, recent), (0.5, 0.95, 0.99))
        done = total(layout, recent, "done")
        return Evidence(
            requests=total(layout, whole, "done"),
            failed=total(layout, whole, "failed"),
            checks=total(layout, whole, "checks"),
            checks_failed=total(layout, whole, "checks_failed"),
            dropped=_dropped(layout, whole),
            judged_requests=total(layout, judged, "done"),
            wanted_user_ms=int(whole[layout.worker("wanted_user_ms")]),
            active_user_ms=int(whole[layout.worker("active_user_ms")]),
            lost_runners=self._lost,
            rps=done / self._recent_seconds(),
            error_rate=total(layout, recent, "failed") / done if done else None,
            p50=p50,
            p95=p95,
            p99=p99,
            rules=tuple(self._rule(rule, abort, layout, judged, seconds, extremes) for rule, abort in _rules(spec)),
            saturated=saturation.saturated(self._findings),
            windows=len(self._findings),
            bad_windows=sum(map(bool, self._findings.values())),
            missing=tuple(self._missing),
            unseen_windows=self._unseen,
            seen_windows=self._windows,
            worker_restarts=int(whole[layout.worker("worker_restarts")]),
            worker_lost_users=int(whole[layout.worker("worker_lost_users")]),
            complete=self._complete,
        )

    def report(self) -> Report:
        """Return the whole run by action, error and drop."""
        layout, whole, warm, extremes = self.merged()
        return report(layout, whole, warm, extremes, self._missing)

    def _rule(
        self, rule: Rule, abort: bool, layout: Layout, judged: Vector, seconds: float, extremes: tuple[int, ...]
    ) -> RuleEvidence:
        known = bool(numbers.actions_named(layout, rule.action))
        value = numbers.value_of(rule, layout, judged, seconds=seconds, extremes=extremes) if known else None
        samples = numbers.samples_of(rule, layout, judged) if known else 0
        return RuleEvidence(
            rule=rule.text, value=value, samples=samples, abort=abort, breached_windows=self._breaches.get(rule.text, 0)
        )

    def _judged_seconds(self, spec: TrafficSimulationSpec | None) -> float:
        """Return the seconds of the run after the warm-up, as far as the runners have counted."""
        newest = max((a.answer.windows[-1].end_ms for a in self._accounts.values() if a.answer.windows), default=0)
        self._newest_ms = max(self._newest_ms, newest)
        return max(0, self._newest_ms - (milliseconds(spec.warm_up) if spec else 0)) / 1000

    def _recent_seconds(self) -> float:
        if not self._recent:
            return 1.0
        walls = [wall for wall, _, _ in self._recent]
        return (max(walls) - min(walls)) / 1000 + 1.0


def _done(answer: Answer) -> int:
    return total(answer.layout, answer.total, "done")


def _dropped(layout: Layout, vector: Vector) -> int:
    return sum(int(vector[layout.worker(f"drop_{reason}")]) for reason in DROP_REASONS)


def _rules(spec: TrafficSimulationSpec | None) -> list[tuple[Rule, bool]]:
    return [(parse_rule(threshold.rule), threshold.abort) for threshold in spec.thresholds] if spec else []


def _spanned(spec: TrafficSimulationSpec) -> list[Rule]:
    return [rule for rule, _ in _rules(spec) if rule.over is not None]


@dataclass(slots=True, kw_only=True)
class Ledgers:
    """The ledgers of all simulations, by namespace and name; a resource made anew gets a new one."""

    watched: bool = False
    _known: dict[tuple[str, str], tuple[str, Ledger]] = field(default_factory=dict)

    async def of(self, document: Document, desired: Desired, record: Record, now_ms: int) -> Ledger:
        """Return the ledger of the simulation's present run, with what ended runners left."""
        run = desired.status.run.id if desired.status.run else 0
        uid, ledger = self._known.get((document.namespace, document.name), ("", Ledger()))
        if uid != document.uid or ledger.run != run:
            if uid != document.uid:
                ledger = Ledger(watched=self.watched)
            ledger.begin(run)
            for answer in (await record.totals(document)).values():
                try:
                    decoded = Answer.decode(answer)
                except ValueError as error:
                    log.warning("kept totals are unreadable", extra={"simulation": document.name, "error": str(error)})
                    continue
                ledger.restore(decoded.runner, decoded, now_ms)
            self._known[document.namespace, document.name] = (document.uid, ledger)
        return ledger

    def get(self, namespace: str, name: str) -> Ledger | None:
        """Return the ledger if there is one."""
        known = self._known.get((namespace, name))
        return known[1] if known else None

    def forget(self, namespace: str, name: str) -> frozenset[str]:
        """Drop the ledger of a simulation that is gone; return the addresses its runners had."""
        _, ledger = self._known.pop((namespace, name), ("", Ledger()))
        return ledger.addresses()

    async def keep(self, document: Document, names: Iterable[str], record: Record) -> None:
        """Keep the last answers of the runners *names*, which end by our hand."""
        ledger = self.get(document.namespace, document.name)
        if ledger is None:
            return
        for uid, account in list(ledger._accounts.items()):
            if account.name in set(names) and not account.ended:
                await record.keep_totals(document, uid, account.answer.encode())
                ledger.end(uid)
