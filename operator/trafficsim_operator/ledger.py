"""
The ledger of a run: every runner's account, merged by addition, and what of it is missing.

Runners keep cumulative vectors, so the newest answer of each is its whole account: a lost answer, or an operator that
was away, costs nothing. Windows serve the figures of the last ten seconds, rules with `over`, and saturation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from trafficsim_api.connections import pools_told
from trafficsim_api.errors import Unavailable
from trafficsim_api.layout import DROP_REASONS, Layout
from trafficsim_api.resource import TrafficSimulationSpec
from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.rules import Rule, parse_rule
from trafficsim_api.statistics import Answer, Vector, histogram, quantiles, total
from trafficsim_api.status import RolloutStatus, Status, UnkeptShare
from trafficsim_api.units import format_instant, milliseconds, parse_instant
from trafficsim_operator.fleet.runners import Runners
from trafficsim_operator.observed import Evidence, Fence, Loss, RuleEvidence, Runner, RunnerLoad, RunnerState, Unwilling
from trafficsim_operator.plan import numbers, saturation
from trafficsim_operator.plan.attention import Attention
from trafficsim_operator.plan.colour_windows import ColourWindows, grid_of
from trafficsim_operator.plan.loads import Loads
from trafficsim_operator.plan.measured import measured, problem_of
from trafficsim_operator.plan.report import Report, report
from trafficsim_operator.plan.shares import Shares
from trafficsim_operator.plan.starts import Starts
from trafficsim_operator.plan.unkept import Unkept, after, holds_up, is_due, told
from trafficsim_operator.plan.windows import Windows
from trafficsim_operator.store import Document, Record

__all__ = ["Ledger", "Ledgers"]

log = logging.getLogger(__name__)

_READ_MS: Final = 5_000
_READ_WATCHED_MS: Final = 1_000
# So long a runner that ends by our hand is kept for an account that can't be read; then what is missing is told.
_LAST_READ_MS: Final = 10_000
_AT_REST: Final = frozenset({RolloutPhase.STABLE, RolloutPhase.RETIRING, RolloutPhase.REJECTED})


@dataclass(slots=True, kw_only=True)
class Ledger:
    """
    The accounts of one simulation's present run, and what a look has to remember of the one before.

    *remembered*: the newest look at each runner, by UID: an unreachable one keeps its places. *accepted*: the newest
    spec that was accepted, by which a run goes on while an edit is refused. *trouble*: what the world last said no to.
    *saved*: what the run's setup saved. *fence*: from which epoch on assignments are this operator's. *origin_ms*: when
    the run began, None before. *rollout* and *phase_since*: as they are on record.
    """

    run: int = 0
    watched: bool = False
    remembered: dict[str, Runner] = field(default_factory=dict)
    accepted: TrafficSimulationSpec | None = None
    trouble: str = ""
    saved: Mapping[str, str] | None = field(default=None, repr=False)
    unkept: dict[str, Unkept] = field(default_factory=dict, repr=False)
    """The last answers, by UID, of runners that have ended, and that are not on record yet."""
    on_record: frozenset[str] = frozenset()
    """Of which of them the status tells."""
    said: tuple[frozenset[str], tuple[UnkeptShare, ...]] = (frozenset(), ())
    """What is missing and what is not kept, as the status tells of it as far as it has room."""
    fence: Fence | None = None
    unwilling: dict[str, Unwilling] = field(default_factory=dict)
    """The runners that said no to what they were told last, by UID."""
    origin_ms: int | None = None
    rollout: RolloutStatus | None = None
    phase_since: str = ""
    _colours: ColourWindows = field(default_factory=ColourWindows)
    _attention: Attention = field(default_factory=Attention)
    _listening_ms: int = 0
    _windows: Windows = field(default_factory=Windows)
    _loads: Loads = field(default_factory=Loads)
    _told: tuple[RunnerLoad, ...] = ()
    _starts: Starts = field(default_factory=Starts)
    _shares: Shares = field(default_factory=Shares)
    _killed: set[tuple[str, int]] = field(default_factory=set)
    _lost: int = 0
    _losses: list[Loss] = field(default_factory=list)
    _known_lost: frozenset[str] = frozenset()
    """The names of those that were lost before this operator looked."""
    _unseen: set[str] = field(default_factory=set)
    """The UIDs of those that nobody saw end, also in runs before: each is told once."""
    _unread: dict[str, int] = field(default_factory=dict)
    """Since when reading the account of a runner that answers has failed, by UID."""
    _open: tuple[str, ...] = ()
    _complete: bool = True
    _evidence: tuple[TrafficSimulationSpec | None, int, Evidence] | None = None

    def begin(self, status: Status) -> None:
        """Start the account of the present run anew, with the losses that the status tells of."""
        self.run = status.run.id if status.run else 0
        self._lost = status.run.lost_runners if status.run else 0
        self._losses = []
        self._known_lost = frozenset(lost.name for lost in status.run.lost) if status.run else frozenset()
        self._shares.begin(self.run, status.accounts)
        self._windows, self._evidence, self._open = Windows(), None, ()
        self._colours, self._attention = ColourWindows(), Attention()
        self._loads, self._told = Loads(), ()
        self.origin_ms, self._killed, self.unwilling, self._unread = None, set(), {}, {}
        self.saved, self.unkept, self.on_record, self.said = None, {}, frozenset(), (frozenset(), ())

    def restore(self, key: str, kept: bytes, now_ms: int) -> None:
        """Take the last answer of a runner that has ended, as it was kept under *key*; say so if it can't be read."""
        try:
            answer = Answer.decode(kept)
        except ValueError as error:
            log.warning("kept totals are unreadable", extra={"key": key, "error": str(error)})
            self._shares.miss(key, f"what was kept of {key}: it can't be read any more")
            return
        if answer.run == self.run:
            self._shares.restore(key, answer, now_ms)

    def addresses(self) -> frozenset[str]:
        """Return the addresses of the runners that were seen at the last look."""
        return frozenset(runner.address for runner in self.remembered.values() if runner.address is not None)

    def owed(self, now_ms: int) -> dict[str, Answer]:
        """Return the last answers, by UID, that are to be tried again to be put on record."""
        return {uid: share.answer for uid, share in self.unkept.items() if is_due(share, now_ms)}

    def not_kept(self, uid: str, answer: Answer, reason: str, *, refused: bool, now_ms: int) -> None:
        """Remember that the last *answer* of a runner is in this process alone, and why."""
        name = share.name if (share := self._shares.by_uid.get(uid)) is not None else uid
        no = Unkept(name=name, answer=answer, reason=reason, refused=refused, since_ms=now_ms, tried_ms=now_ms)
        self.unkept[uid] = after(self.unkept.get(uid), no)

    def unkept_of(self, names: Iterable[str], now_ms: int) -> list[str]:
        """Return which of the runners *names* are not to go, for a last answer that is not on record yet."""
        waited = [share.name for uid, share in self.unkept.items() if holds_up(uid, share, self.on_record, now_ms)]
        return sorted(set(waited) & set(names))

    def unread_of(self, names: Iterable[str], now_ms: int) -> list[str]:
        """Return which of the runners *names* answer, and may still give numbers that could not be read just now."""
        waited = {uid for uid, since_ms in self._unread.items() if now_ms - since_ms < _LAST_READ_MS}
        return sorted({runner.name for uid, runner in self.remembered.items() if uid in waited} & set(names))

    def ending(self, names: Iterable[str], *, is_over: bool) -> tuple[dict[str, Answer], bool]:
        """
        Return the last answers, by UID, of the runners *names*, which end by our hand, and whether that costs numbers.

        That is so once: it is to be on record before they go. Not when the run *is_over*: its numbers have been told.
        """
        return self._shares.let_go((r for r in self.remembered.values() if r.name in names), is_over=is_over)

    async def read(
        self,
        runners: Iterable[Runner],
        clients: Runners,
        now_ms: int,
        spec: TrafficSimulationSpec | None,
        unseen: Collection[Runner] = (),
    ) -> dict[str, Answer]:
        """
        Read the accounts that are due; return the last answers of those gone since, by the name to keep them under.

        *unseen* are gone though nobody saw them end.
        """
        here = {runner.uid: runner for runner in runners}
        self._listen(now_ms)
        self._starts.look(here.values(), self.run, now_ms)
        lost = self._note_lost(here, {runner.uid for runner in unseen}, now_ms)
        self._note_unheard(unseen, now_ms)
        self._note_killed(here.values())
        self._complete = True
        if spec is not None:
            self._windows.warm_up_ms, self._windows.rules = (
                milliseconds(spec.warm_up),
                tuple(r for r, _ in _rules(spec)),
            )
        await asyncio.gather(*(self._read_one(runner, clients, now_ms) for runner in here.values()))
        self._windows.judge(runner.name for runner in here.values() if runner.answered)
        self._colours.judge({runner.name: runner.revision for runner in here.values() if self._tells(runner)})
        loads = (self._load_of(runner, now_ms) for runner in here.values() if self._tells(runner))
        self._told = tuple(load for load in loads if load is not None)
        if self._complete:
            self._shares.hold_to_told()
        self._open = tuple(self._shares.open(here.values()))
        return lost | self._shares.take_owed()

    def _load_of(self, runner: Runner, now_ms: int) -> RunnerLoad | None:
        """Return what *runner* carries; None when it told of nothing lately."""
        found = self._loads.of(runner.name, now_ms)
        if found is None:
            return None
        return RunnerLoad(
            runner=runner.name,
            revision=runner.revision,
            users=found.users,
            utilisation=found.utilisation,
            strained=found.strained,
            crowded=found.crowded,
            covered_ms=found.covered_ms,
            ready_ms=self._starts.ready_ms(runner, now_ms),
        )

    def _listen(self, now_ms: int) -> None:
        """Note since when, in run time, the windows of the rollout's step have been asked for without a break."""
        run_ms = now_ms - self.origin_ms if self.origin_ms is not None else 0
        # Subtle: the run's time goes back when a pause is over, and with it the instant since when somebody listens.
        is_new = self._attention.look(self.phase_since, now_ms)
        self._listening_ms = run_ms if is_new else min(self._listening_ms, run_ms)
        self._shares.attending_ms, self._shares.begun = self._attention.since_ms, self.origin_ms is not None
        self._colours.begin(grid_of(self.rollout))

    def _tells(self, runner: Runner) -> bool:
        """Say whether *runner* answers and counts in this run."""
        ack = runner.acknowledgement
        return runner.answered and ack is not None and ack.run == self.run and bool(ack.epoch)

    @property
    def _pace_ms(self) -> int:
        rollout = self.rollout
        is_moving = rollout is not None and rollout.phase not in _AT_REST
        return _READ_WATCHED_MS if self.watched or is_moving else _READ_MS

    async def _read_one(self, runner: Runner, clients: Runners, now_ms: int) -> None:
        ack = runner.acknowledgement
        if ack is None and self._shares.may_count(runner):
            self._complete = False  # whom this operator has not heard yet may have numbers that nobody read
        if runner.address is None or ack is None or ack.run != self.run or not ack.epoch:
            return
        account = self._shares.by_uid.get(runner.uid)
        if not runner.answered:
            self._complete = False
            return
        urgent = (ack.retire and ack.drained) or runner.state is RunnerState.LEAVING
        if account is not None and now_ms - account.read_ms < self._pace_ms and not urgent:
            return
        since = account.answer.sequence if account is not None and account.answer.boot == ack.boot else 0
        try:
            answer = await clients.statistics(runner.address, ack.boot, since)
        except Unavailable as error:
            self._complete = False
            self._unread.setdefault(runner.uid, now_ms)
            log.info("statistics not read", extra={"runner": runner.name, "error": str(error)})
            return
        self._unread.pop(runner.uid, None)
        if answer.run == self.run and answer.runner == runner.uid:
            self._take(runner, answer, since, now_ms)

    def _take(self, runner: Runner, answer: Answer, since: int, now_ms: int) -> None:
        if answer.first > since + 1 and answer.sequence > since:
            self._windows.unseen += answer.first - since - 1
        self._shares.take(runner, answer, now_ms)
        fresh = [window for window in answer.windows if window.sequence > since]
        for window in fresh:
            self._windows.add(runner.name, answer.layout, window)
            self._loads.add(runner.name, answer.layout, window, now_ms)
        self._colours.add(
            runner.name, runner.revision, answer.layout, fresh, in_flight=answer.gauges.get("in_flight", 0)
        )

    def _note_lost(self, here: Mapping[str, Runner], unseen: set[str], now_ms: int) -> dict[str, Answer]:
        """
        Take note of the runners that are gone, *unseen* being the UIDs of those that nobody saw end.

        Nor did anybody see one end whose node was not ready when it went, and which did not answer.
        """
        last = {}
        for uid in [uid for uid in self.remembered if uid not in here]:
            gone = self.remembered.pop(uid)
            self._unread.pop(uid, None)
            self.unwilling.pop(uid, None)
            self._windows.forget(gone.name)
            self._loads.forget(gone.name)
            self._colours.forget(gone.name)
            ack, share = gone.acknowledgement, self._shares.by_uid.get(uid)
            self._unseen |= {uid} & unseen if ack is not None else set()
            is_ours = share is not None and (share.ended or share.let_go)
            if (answer := self._shares.gone(gone, now_ms)) is not None:
                last[uid] = answer
            if ack is not None and ack.run == self.run and not ack.retire and not is_ours:
                end_unseen = uid in unseen or (gone.node_lost and not gone.answered)
                since_ms = share.counted_ms if share is not None else None
                self._lose(gone, len(ack.held), since_ms, now_ms, end_unseen=end_unseen)
        return last

    def _note_unheard(self, unseen: Iterable[Runner], now_ms: int) -> None:
        """
        Take note of the runners whose end nobody saw, and which this operator has never heard.

        One whose grace ended within the run may have had users; not if its last account is on record.
        """
        for runner in unseen:
            share = self._shares.by_uid.get(runner.uid)
            is_known = runner.uid in self._unseen or runner.name in self._known_lost
            self._unseen.add(runner.uid)
            is_within = self.origin_ms is not None and runner.grace_ends_ms >= self.origin_ms
            if is_within and not is_known and not (share is not None and share.ended):
                self._lose(runner, 0, None, now_ms, end_unseen=True)

    def _lose(self, runner: Runner, users: int, since_ms: int | None, now_ms: int, *, end_unseen: bool) -> None:
        """Count *runner* with *users* as lost; its numbers are missing from *since_ms* on, None: all of them."""
        self._lost += 1
        self._evidence = None
        text = f"{self._shares.since(runner)} until it was seen lost at {format_instant(now_ms)}"
        self._shares.miss(f"{runner.uid} lost", text)
        begin_ms = (self.origin_ms or now_ms) if since_ms is None else since_ms
        self._losses.append(Loss(name=runner.name, users=users, since_ms=begin_ms, at_ms=now_ms, end_unseen=end_unseen))

    def _note_killed(self, runners: Iterable[Runner]) -> None:
        """Count each kill of a whole runner since the run's beginning once."""
        if self.origin_ms is not None:
            killed = {(runner.uid, runner.killed_ms) for runner in runners if runner.killed_ms >= self.origin_ms}
            if not killed <= self._killed:
                self._killed |= killed
                self._evidence = None

    def merged(self) -> tuple[Layout, Vector, Vector, tuple[int, ...]]:
        """Return layout, total, the part before the warm-up's end, and extremes over all runners."""
        return self._shares.merged()

    def evidence(self, spec: TrafficSimulationSpec | None) -> Evidence:
        """Return what the numbers say now; computed anew only when something was read or lost since."""
        changes = self._shares.changes
        if self._evidence is None or self._evidence[:2] != (spec, changes):
            self._evidence = spec, changes, self._gathered(spec)
        windows, gathered = self._windows, self._evidence[2]
        return replace(
            gathered,
            saturated=saturation.saturated(
                windows.findings,
                decisive=windows.decisive,
                kills=gathered.oom_kills,
                held_back=gathered.held_back,
            ),
            windows=len(windows.findings),
            bad_windows=sum(map(bool, windows.findings.values())),
            unseen_windows=windows.unseen,
            seen_windows=windows.seen,
            complete=self._complete,
            open=self._open,
            unkept=told(self.unkept, self._shares.unkept),
            requests_told=self._shares.told,
            colours=self._colours.told(),
            loads=self._told,
            starts_ms=self._starts.measured_ms,
            listening_ms=self._listening_ms,
            attended_ms=self._attention.looked_ms - self._attention.since_ms,
            attended_in_phase_ms=self._attention.in_phase_ms,
        )

    def _gathered(self, spec: TrafficSimulationSpec | None) -> Evidence:
        layout, whole, warm, _ = self.merged()
        judged = whole - warm
        warm_up_ms = milliseconds(spec.warm_up) if spec else 0
        seconds = max(0, self._windows.newest_ms - warm_up_ms) / 1000
        recent, recent_s = self._windows.recent(layout)
        p50, p95, p99 = quantiles(histogram(layout, recent), (0.5, 0.95, 0.99))
        done = total(layout, recent, "done")
        return Evidence(
            requests=total(layout, whole, "done"),
            failed=total(layout, whole, "failed"),
            checks=total(layout, whole, "checks"),
            checks_failed=total(layout, whole, "checks_failed"),
            dropped=_dropped(layout, whole),
            arrivals_planned=int(whole[layout.worker("arrivals_planned")]),
            arrivals_started=int(whole[layout.worker("arrivals_started")]),
            held_back=sum(int(judged[layout.worker(name)]) for name in ("starts_delayed", "drop_generator_saturated")),
            arrivals_twice=int(whole[layout.worker("arrivals_twice")]),
            judged_requests=total(layout, judged, "done"),
            wanted_user_ms=int(whole[layout.worker("wanted_user_ms")]),
            active_user_ms=int(whole[layout.worker("active_user_ms")]),
            lost_runners=self._lost,
            losses=tuple(self._losses),
            rps=done / recent_s,
            error_rate=total(layout, recent, "failed") / done if done else None,
            p50=p50,
            p95=p95,
            p99=p99,
            rules=tuple(self._rule(rule, abort, layout, judged, seconds) for rule, abort in _rules(spec)),
            missing=tuple(self._shares.missing.values()),
            worker_restarts=int(whole[layout.worker("worker_restarts")]),
            worker_lost_users=int(whole[layout.worker("worker_lost_users")]),
            metrics=measured(layout, judged),
            oom_kills=int(whole[layout.worker("oom_kills")]) + len(self._killed),
        )

    def report(self) -> Report:
        """Return the whole run by action, error and drop."""
        layout, whole, warm, _ = self.merged()
        pools = (pools_told(share.answer.gauges) for share in self._shares.by_uid.values())
        missing = [*self._shares.missing.values(), *self._open]
        return report(layout, whole, warm, missing, pools)

    def _rule(self, rule: Rule, abort: bool, layout: Layout, judged: Vector, seconds: float) -> RuleEvidence:
        return RuleEvidence(
            rule=rule.text,
            value=numbers.value_of(rule, layout, judged, seconds=seconds),
            samples=numbers.samples_of(rule, layout, judged),
            abort=abort,
            breached_windows=self._windows.breaches.get(rule.text, 0),
            problem=problem_of(rule, layout),
        )


def _dropped(layout: Layout, vector: Vector) -> int:
    return sum(int(vector[layout.worker(f"drop_{reason}")]) for reason in DROP_REASONS)


def _rules(spec: TrafficSimulationSpec | None) -> list[tuple[Rule, bool]]:
    return [(parse_rule(threshold.rule), threshold.abort) for threshold in spec.thresholds] if spec else []


@dataclass(slots=True, kw_only=True)
class Ledgers:
    """The ledgers of all simulations, by namespace and name; a resource made anew gets a new one."""

    watched: bool = False
    _known: dict[tuple[str, str], tuple[str, Ledger]] = field(default_factory=dict)

    async def of(self, document: Document, status: Status, record: Record, now_ms: int) -> Ledger:
        """Return the ledger of the simulation's present run, with what ended runners left."""
        run = status.run.id if status.run else 0
        uid, ledger = self._known.get((document.namespace, document.name), ("", Ledger(watched=self.watched)))
        if uid != document.uid or ledger.run != run:
            if uid and uid != document.uid:
                ledger = Ledger(watched=self.watched)
            # Subtle: read before it begins anew, else a read that fails would never be made up for.
            totals = await record.totals(document)
            ledger.begin(status)
            for key, kept in totals.items():
                ledger.restore(key, kept, now_ms)
            self._known[document.namespace, document.name] = (document.uid, ledger)
        ledger.origin_ms = parse_instant(status.run.origin) if status.run and status.run.origin else None
        ledger.phase_since = status.run.phase_since if status.run else ""
        ledger.rollout = status.rollout
        return ledger

    def get(self, namespace: str, name: str) -> Ledger | None:
        """Return the ledger if there is one."""
        known = self._known.get((namespace, name))
        return known[1] if known else None

    def forget(self, namespace: str, name: str) -> frozenset[str]:
        """Drop the ledger of a simulation that is gone; return the addresses its runners had."""
        _, ledger = self._known.pop((namespace, name), ("", Ledger()))
        return ledger.addresses()
