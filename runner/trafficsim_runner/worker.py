"""
A worker process: one event loop with an engine, told what to do by its supervisor in JSON lines over a socket pair.

Started as `python -m trafficsim_runner.worker --fd N --index I --slab PATH`. It ends on `exit`, or when the
supervisor's end of the channel closes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import uvloop

from trafficsim_api.arrivals import Course, works_of
from trafficsim_api.connections import Pool, pools_of
from trafficsim_api.layout import MAX_ACTIONS, MAX_METRICS, Layout, grown
from trafficsim_api.places import Places
from trafficsim_api.profile import shape
from trafficsim_api.protocol import Limits, Load
from trafficsim_api.resource import Step, actions_of
from trafficsim_api.turns import Turn, by_place, turns_of
from trafficsim_runner.engine import MS, Engine
from trafficsim_runner.feeding import Rows, modes_of, read_rows
from trafficsim_runner.flow import closing_groups, compile_load
from trafficsim_runner.health.load import CpuLoad
from trafficsim_runner.health.waiting import Waiting
from trafficsim_runner.http.endpoint import Endpoint, endpoint_of, tls_of
from trafficsim_runner.pacing import Pacer
from trafficsim_runner.program import Step as ProgramStep
from trafficsim_runner.scenario.declared import Declared, ScenarioProblem, bind, declared_by
from trafficsim_runner.scenario.stage import Stage
from trafficsim_runner.starts import PRIORITY
from trafficsim_runner.stats.account import Account
from trafficsim_runner.stats.active import ENDING, ActiveLog
from trafficsim_runner.stats.raw import RawLog
from trafficsim_runner.stats.slab import SlabWriter
from trafficsim_runner.visits import Piece

__all__ = ["Task", "Worker", "main"]

SECOND_NS: Final = 1_000_000_000
CORE: Final = 1000
SWEEP_MS: Final = 250
SWEPT_AT_ONCE: Final = 256
LINE_LIMIT: Final = 64 * 1024 * 1024
FAULT_KEPT: Final = 4000
FAULTS_TOLD: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """
    An assignment for a worker: its share of places and limits, instants in CLOCK_MONOTONIC ns.

    *cores* is what CPU it can have, in millicores: its share of the runner's quota, a core at most.
    *rows* are the files with the rows of each feeder, *pools* its most and least connections of each group, "" those of
    a group that no action has; none: each user has its own.
    """

    run: int
    epoch: int
    users: int
    places: tuple[tuple[int, int], ...]
    cores: int
    takes: Mapping[int, int]
    gives: Mapping[int, int]
    origin_ns: int
    warm_up_ms: int
    end_ns: int
    suspended: bool
    load: Load
    limits: Limits
    rows: Mapping[str, str]
    pools: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Task:
        """Return the assignment in *fields*; raise ValueError, KeyError or TypeError when it is none."""
        return cls(
            run=int(fields["run"]),
            epoch=int(fields["epoch"]),
            users=int(fields["users"]),
            places=tuple((int(first), int(stop)) for first, stop in fields["places"]),
            cores=int(fields.get("cores", CORE)),
            takes=_turns(fields.get("takes", ())),
            gives=_turns(fields.get("gives", ())),
            origin_ns=int(fields["origin_ns"]),
            warm_up_ms=int(fields["warm_up_ms"]),
            end_ns=int(fields["end_ns"]),
            suspended=bool(fields.get("suspended", False)),
            load=Load.model_validate_json(json.dumps(fields["load"])),
            limits=Limits.model_validate_json(json.dumps(fields["limits"])),
            rows={str(name): str(path) for name, path in fields.get("rows", {}).items()},
            pools={str(name): (int(most), int(least)) for name, (most, least) in fields.get("pools", {}).items()},
        )


class Worker:
    """What a worker does with its supervisor's messages; *say* sends it one."""

    def __init__(
        self,
        *,
        slab: Path,
        say: Callable[[Mapping[str, Any]], None],
        environ: Mapping[str, str],
        raw: RawLog | None = None,
        active: ActiveLog | None = None,
    ) -> None:
        self._say = say
        self._environ = environ
        self._raw = raw
        self._active = active
        self._loop = asyncio.get_running_loop()
        self._path = slab
        self._generation = 0
        self._started_ns = self._now()
        self._cpu_ns = 0
        self._wall_ns = self._started_ns
        self._waiting = Waiting()
        self._load = CpuLoad(self._started_ns, time.process_time_ns())
        self._takes: list[dict[str, Any]] = []
        self._gc_began_ns = 0
        self._task: Task | None = None
        self._declared: Mapping[str, Declared] = {}
        self._account: Account | None = None
        self._engine: Engine | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._said: Mapping[str, Any] = {}
        self._faults: set[str] = set()
        self._rows: Mapping[str, Rows] = {}
        self._ended = asyncio.Event()
        gc.callbacks.append(self._on_gc)

    def _now(self) -> int:
        return time.monotonic_ns()  # noqa: TID251 - the process' own clock, handed down from here

    # Messages.

    def hear(self, message: Mapping[str, Any]) -> None:
        """Do what *message* asks; an assignment it cannot take is answered with an error, the one before stays."""
        if "assign" in message:
            try:
                self._assign(Task.of(message["assign"]))
            except ScenarioProblem as problem:
                self._say({"error": {"message": str(problem)}})
            except (ValueError, KeyError, TypeError, OSError) as error:
                self._say({"error": {"message": f"{type(error).__name__}: {error}"}})
        elif "drain" in message:
            self._drain(int(message["drain"]["deadline_ns"]))
        elif "exit" in message:
            self._ended.set()

    async def run(self) -> None:
        """Work until `exit` was heard (or `stop` called)."""
        await self._ended.wait()
        self._finish()

    def stop(self) -> None:
        """End: the supervisor is gone, or wants it."""
        self._ended.set()

    def _assign(self, task: Task) -> None:
        load = task.load
        # Whatever may be wrong with the assignment shows before anything changes.
        if task.limits.verbs:
            _check_verbs(task)
        before = self._task
        if before is not None and before.run != task.run:
            raise ValueError(f"a worker's counts are of one run: this one's is {before.run}, not {task.run}")
        endpoint = endpoint_of(load.target)
        is_elsewhere = before is None or (before.load.target, before.load.ca) != (load.target, load.ca)
        tls = tls_of(load) if endpoint.is_tls and is_elsewhere else None
        declared = declared_by(load.archetypes, self._declared, self._environ.get("TRAFFICSIM_SCENARIOS", ""))
        engine, account = self._prepared(load, declared)
        if before is None or before.rows != task.rows or _recompiles(before.load, load):
            rows = read_rows(load, task.rows, self._rows)
            numbers = {action: number for number, action in enumerate(account.slab.layout.actions)}
            scenes = self._staged(declared, load, endpoint)
            program = compile_load(load, endpoint, numbers, account.tallies, self._environ, rows, scenes)
            if is_elsewhere:
                engine.client.aim(endpoint, tls, lambda: tls_of(load))
            engine.use_program(
                program, [archetype.weight for archetype in load.archetypes], load.seed,
                [PRIORITY if archetype.priority is None else archetype.priority for archetype in load.archetypes],
            )  # fmt: skip
            self._rows = rows
        for feeder in self._rows.values():
            feeder.users = task.users
        limits = task.limits
        engine.client.allow(
            limits.targets, connections=limits.connections, concurrency=limits.concurrency, verbs=limits.verbs
        )
        engine.client.share(*_pools_of(task))
        if engine.stage is not None:
            engine.stage.verbs, engine.stage.rows = limits.verbs, self._rows
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        engine.starts.bound(limits.concurrency, soft)
        engine.client.max_age_ns = load.connections.max_age // timedelta(microseconds=1) * 1000
        self._task = task
        if self._active is not None:
            self._active.epoch = task.epoch
        self._cancel("deadline")
        engine.follow(_pacer_of(task), task.origin_ns, _piece_of(task))
        self._takes = [turn.model_dump(mode="json") for turn in turns_of(engine.takes)]
        self._schedule(task)
        self._report(force=True)

    def _staged(self, declared: Mapping[str, Declared], load: Load, endpoint: Endpoint) -> Mapping[str, ProgramStep]:
        """Return where the users of each scenario begin, by its reference."""
        engine, account = self._engine, self._account
        assert engine is not None and account is not None
        if engine.stage is None and declared:
            clock = time.monotonic_ns  # noqa: TID251 - see _now
            engine.enact(Stage(account=account, host=engine, clock=clock, on_fault=self._tell))
        if engine.stage is None:
            return {}
        self._declared = declared
        return engine.stage.use(declared, load, endpoint)

    def _prepared(self, load: Load, declared: Mapping[str, Declared]) -> tuple[Engine, Account]:
        """Return engine and account with room for every action and metric of *load*; the layout only grows."""
        before = self._account.slab.layout if self._account is not None else Layout(actions=())
        flows = Layout(actions=actions_of(load.archetypes))
        layout = grown(before, (flows, *(scenario.layout for scenario in declared.values())))
        for what, found, most in (("actions", layout.actions, MAX_ACTIONS), ("metrics", layout.metrics, MAX_METRICS)):
            if len(found) > most:
                raise ValueError(f"{len(found)} {what} since the run began, at most {most} are possible")
        if self._account is None or self._engine is None:
            self._account = Account(SlabWriter(self._next_path(), layout, started_ns=self._started_ns))
            self._engine = Engine(
                account=self._account, clock=time.monotonic_ns, wall_s=time.time,  # noqa: TID251 - see _now
                raw=self._raw, on_change=self._report, on_fault=self._tell,
            )  # fmt: skip
            self._engine.log = self._active
            self._loop.add_reader(self._engine.client.fileno(), self._engine.client.drain)
            self._loop.call_soon(gc.freeze)
        elif layout != before:
            self._account.fold()
            # Without room on the disk this fails, and everything stays as it is.
            slab = SlabWriter(self._next_path(), layout, started_ns=self._started_ns, before=self._account.slab)
            self._account.use(slab)
            self._snapshot()
        bind(self._account, (*self._declared.values(), *declared.values()))
        return self._engine, self._account

    def _next_path(self) -> Path:
        number = self._generation
        self._generation += 1
        return self._path if not number else self._path.with_name(f"{self._path.name}.{number}")

    def _drain(self, deadline_ns: int) -> None:
        self._cancel("look")
        if self._engine is not None:
            self._engine.drain()
            self._at("deadline", deadline_ns, self._engine.cut)
        self._report(force=True)

    # The clockwork.

    def _at(self, name: str, at_ns: int, call: Callable[[], None]) -> None:
        """Call at *at_ns* (CLOCK_MONOTONIC), in place of an earlier call of this name."""
        self._cancel(name)
        delay = min(max(0, at_ns - self._now()) / SECOND_NS, 86_400.0)
        self._timers[name] = self._loop.call_later(delay, call)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _schedule(self, task: Task) -> None:
        self._look()
        if "tick" not in self._timers:
            self._tick()
        timeouts = task.load.target.timeouts
        shared = (_pools_of(task)[0] or {}).values()
        smallest_ms = min(
            timeouts.connect.total_seconds() * 1000, timeouts.request.total_seconds() * 1000,
            *(min(pool.connect_ms, pool.wait_ms, pool.idle_ms) for pool in shared),
        )  # fmt: skip
        self._sweep_ns = int(min(SWEEP_MS, max(10, smallest_ms / 4)) * MS)
        if "sweep" not in self._timers:
            self._sweep()
        if self._account is not None and not self._account.slab.is_warm:
            self._at("warm", task.origin_ns + task.warm_up_ms * MS, self._warm)

    def _look(self) -> None:
        if self._engine is not None:
            self._at("look", self._engine.look(), self._look)

    def _warm(self) -> None:
        task, account = self._task, self._account
        if task is None or account is None or account.slab.is_warm:
            return
        at_ns = task.origin_ns + task.warm_up_ms * MS
        if self._now() < at_ns:  # the loop's clock may run a little ahead
            self._at("warm", at_ns, self._warm)
            return
        self._settle_account()
        account.slab.mark_warm()

    def _sweep(self) -> None:
        if self._engine is not None:
            client = self._engine.client
            client.sweep(self._now(), SWEPT_AT_ONCE)
            self._engine.end_overdue(self._now())
            if self._engine.is_drained:
                client.rest()
            parts = 1 + client.open_connections // SWEPT_AT_ONCE
            self._at("sweep", self._now() + self._sweep_ns // parts, self._sweep)

    def _tick(self) -> None:
        if self._engine is not None and self._task is not None:
            self._engine.measure(self._load.since_last(self._now(), time.process_time_ns(), self._task.cores))
        self._snapshot()
        self._report(force=True)
        now_ns = self._now()
        self._at("tick", now_ns - now_ns % SECOND_NS + SECOND_NS, self._tick)

    def _settle_account(self) -> None:
        """Bring every counter up to now."""
        account, engine = self._account, self._engine
        assert account is not None and engine is not None
        account.fold()
        now_ns, cpu_ns = self._now(), time.process_time_ns()
        engine.read_time(now_ns)
        account.count("cpu_ns", cpu_ns - self._cpu_ns)
        account.count("wall_ns", now_ns - self._wall_ns)
        account.count("waited_ns", self._waiting.since_last_ns())
        self._cpu_ns, self._wall_ns = cpu_ns, now_ns

    def _snapshot(self) -> None:
        account, engine = self._account, self._engine
        if account is None or engine is None:
            return
        self._settle_account()
        account.slab.snapshot(
            mono_ns=self._now(),
            wall_ms=time.time_ns() // MS,  # noqa: TID251 - see _now
            active=engine.active,
            wanted=engine.wanted,
            epoch=self._task.epoch if self._task else 0,
        )
        if self._raw is not None:
            self._raw.flush()

    def _tell(self, fault: Exception) -> None:
        """Tell the supervisor of a mistake of ours: once of each kind and place, the counters say how often."""
        text = "".join(traceback.format_exception(fault))[-FAULT_KEPT:]
        kind = "\n".join(line for line in text.splitlines() if not line.startswith(type(fault).__name__))
        if kind not in self._faults and len(self._faults) < FAULTS_TOLD:
            self._faults.add(kind)
            self._say({"fault": {"message": text}})

    def _on_gc(self, phase: str, _: Mapping[str, int]) -> None:
        if phase == "start":
            self._gc_began_ns = self._now()
        elif self._account is not None:
            self._account.count("gc_ns", self._now() - self._gc_began_ns)
            self._account.count("gc_runs")

    def _report(self, *, force: bool = False) -> None:
        """Tell the supervisor how things stand: when something it waits for changed, and when *force* is given."""
        engine, account = self._engine, self._account
        if engine is None or account is None:
            if force:  # nothing was ever assigned: nobody is there
                self._say({"ack": {"epoch": 0, "settled": True, "drained": True, "slab": "", "active": 0}})
            return
        state = {
            "epoch": self._task.epoch if self._task else 0,
            "settled": engine.is_settled,
            "drained": engine.is_drained,
            "slab": str(account.slab.path),
        }
        if force or state != self._said:
            if state["drained"] and not self._said.get("drained"):
                # Subtle: who hears that all is over reads the slab next; its figures must be the last ones.
                self._snapshot()
            self._said = state
            state = {**state, "takes": self._takes}
            if engine.late_us is not None:
                state["late_us"] = engine.late_us
            gauges = {"active": engine.active, "in_flight": engine.client.in_flight, "pooled": engine.pooled,
                      "connections": engine.client.open_connections, "parked": engine.parked,
                      "starts_waiting": len(engine.starts), "starts_limit": engine.starts.limit}  # fmt: skip
            self._say({"ack": {**state, **gauges, "pools": engine.client.pool_figures()}})

    def _finish(self) -> None:
        for name in tuple(self._timers):
            self._cancel(name)
        if self._engine is not None:
            self._loop.remove_reader(self._engine.client.fileno())
            self._engine.drain()
            self._engine.cut()
            self._snapshot()
            self._engine.client.close()
        self._waiting.close()
        if self._raw is not None:
            self._raw.flush()


def _pacer_of(task: Task) -> Pacer:
    end_ms = (task.end_ns - task.origin_ns) // MS
    return Pacer(
        users=task.users, ranges=task.places, shape=shape(task.load.profile), end_ms=end_ms, suspended=task.suspended
    )


def _piece_of(task: Task) -> Piece | None:
    """Return the arrivals of *task*, None in the closed model."""
    load = task.load
    if load.arrivals is None:
        return None
    return Piece(
        course=Course(
            shape=shape(load.profile), rate=load.arrivals.rate, since_ms=load.since_ms, before=load.before
        ),
        works=works_of(load.arrivals.process, load.seed),
        places=Places.of(task.places).below(task.users),
        users=max(1, task.users),
        takes=task.takes,
        gives={place: number for place, number in task.gives.items() if place < task.users},
    )  # fmt: skip


def _turns(turns: Iterable[Mapping[str, Any]]) -> Mapping[int, int]:
    return by_place(Turn.model_validate_json(json.dumps(turn)) for turn in turns)


def _pools_of(task: Task) -> tuple[Mapping[str, Pool] | None, Pool | None]:
    """Return the pools of *task*, and the one for a group that no action has; None where they are not pooled."""
    names = [name or "user" for name in task.pools]
    if not names or task.load.connections.mode != "pooled":
        return None, None
    known = pools_of(task.load.connections, names)
    shared = {
        name: replace(known[name or "user"], most=most, least=least) for name, (most, least) in task.pools.items()
    }
    otherwise = shared.pop("", None)
    return shared, otherwise or replace(known[names[0]], most=1, least=0)


def _recompiles(before: Load, load: Load) -> bool:
    """Say whether the users' steps change: anything but profile and rate."""
    fields = ("target", "archetypes", "seed", "ca", "saved")
    changed = any(getattr(before, field) != getattr(load, field) for field in fields)
    changed = changed or before.connections.mode != load.connections.mode
    changed = changed or closing_groups(before) != closing_groups(load)
    return changed or modes_of(before) != modes_of(load) or (before.arrivals is None) != (load.arrivals is None)


def _check_verbs(task: Task) -> None:
    def walk(flow: tuple[Step, ...]) -> None:
        for step in flow:
            for _, inner in step.nested:
                walk(inner)
            if step.request and step.request.verb not in task.limits.verbs:
                raise ValueError(f"{step.name}: the policy does not allow {step.request.verb.upper()}")

    for archetype in task.load.archetypes:
        walk(archetype.steps)


async def serve(fd: int, index: int, slab: Path, environ: Mapping[str, str]) -> None:
    """Serve the supervisor at the other end of *fd* until it says exit or is gone."""
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd), limit=LINE_LIMIT)
    raw = (
        RawLog(Path(environ["TRAFFICSIM_RAW"]) / f"{os.getpid()}-{index}.raw")
        if environ.get("TRAFFICSIM_RAW")
        else None
    )
    active = None
    if environ.get("TRAFFICSIM_ACTIVE"):
        path = Path(environ["TRAFFICSIM_ACTIVE"]) / f"{os.getpid()}-{index}.{ENDING}"
        active = ActiveLog(path, time.monotonic_ns)  # noqa: TID251 - see Worker._now

    def say(message: Mapping[str, Any]) -> None:
        if not writer.is_closing():
            writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    worker = Worker(slab=slab, say=say, environ=environ, raw=raw, active=active)
    running = asyncio.create_task(worker.run())
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            message = json.loads(line)
            worker.hear(message)
            if "exit" in message:
                break
    worker.stop()
    await running
    if raw is not None:
        raw.close()
    if active is not None:
        active.close()
    writer.close()


def main() -> None:
    """Run a worker process."""
    parser = argparse.ArgumentParser(prog="python -m trafficsim_runner.worker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="descriptor of the channel to the supervisor")
    parser.add_argument("--index", type=int, required=True, help="number of this worker, from 0")
    parser.add_argument("--slab", type=Path, required=True, help="file to keep the counters in")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(serve(options.fd, options.index, options.slab, os.environ))  # noqa: TID251 - main() hands it down


if __name__ == "__main__":
    main()
