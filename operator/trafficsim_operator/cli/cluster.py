"""`trafficsim get`, `watch`, `wait`, `stop` and `rerun`: simulations in a cluster."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import nullcontext
from datetime import timedelta
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from trafficsim_api.phases import Phase, Verdict
from trafficsim_api.units import format_duration
from trafficsim_operator.cli.command import InCluster, conclude, give, given_id
from trafficsim_operator.cli.faults import FAULT, as_json, tells_faults
from trafficsim_operator.cli.objects import Place, Time, at_a_place, fault, looks, one, run_at
from trafficsim_operator.cli.rollout_view import rollout_of, rollout_panel
from trafficsim_operator.cli.scaling_view import scaling_lines
from trafficsim_operator.cli.simulation_view import line, panel, table
from trafficsim_operator.kube import SIMULATIONS, KubeApi, Object

__all__ = ["get", "rerun", "stop", "wait", "watch"]

_CODES: Final = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.INCONCLUSIVE: 2}
_WHERE: Final = """
\b
Exit codes: 0 passed (or done), 1 failed, 2 inconclusive, 3 the cluster, the simulation or a time-out is at fault.
"""


@click.command(
    epilog=f"""\b
Examples:
  trafficsim get
  trafficsim get shop -n shop --json
  trafficsim get --all-namespaces
{_WHERE}"""
)
@click.argument("name", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@at_a_place
@tells_faults
def get(name: str | None, all_namespaces: bool, as_json_: bool, **where: str | None) -> int:
    """Show simulations in a cluster, or the one called NAME."""

    async def show(api: KubeApi, namespace: str) -> int:
        if name is not None:
            found = [await one(api, namespace, name)]
        else:
            found = list(await api.list(SIMULATIONS, None if all_namespaces else namespace))
        if as_json_:
            click.echo(as_json(found[0] if name is not None else {"items": found}))
        elif not found:
            click.echo("No simulations." if all_namespaces else f"No simulations in namespace {namespace}.")
        else:
            # A pipe has no width: nothing is to be cut off there.
            console = Console() if sys.stdout.isatty() else Console(width=200)
            console.print(table(found, namespaces=all_namespaces))
            for scaled in scaling_lines(found[0].get("status") or {}) if name is not None else ():
                console.print(f"runners: {scaled}", markup=False, soft_wrap=True)
            rolled = rollout_of(found[0].get("status") or {}) if name is not None else None
            if rolled is not None:
                console.print(rollout_panel(rolled))
        return 0

    return run_at(Place(**where), show)


@click.command(
    epilog=f"""\b
Examples:
  trafficsim watch shop -n shop
  trafficsim watch shop --json | jq .status.users
{_WHERE}"""
)
@click.argument("name")
@at_a_place
@tells_faults
def watch(name: str, as_json_: bool, **where: str | None) -> int:
    """Follow a simulation until it has finished; its verdict is the exit code. Ctrl-C only ends the watching."""

    async def follow(api: KubeApi, namespace: str) -> int:
        console = Console()
        live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json_ else None
        said = ""
        with live or nullcontext():
            async for found in looks(api, namespace, name):
                if live is not None:
                    live.update(panel(found, console.height), refresh=True)
                elif (text := json.dumps(found) if as_json_ else line(found)) != said:
                    click.echo(text)
                    said = text
                if (code := _code(found)) is not None:
                    return code
        raise AssertionError("looks never end")

    return run_at(Place(**where), follow)


@click.command(
    epilog=f"""\b
Examples:
  trafficsim wait shop -n shop
  trafficsim wait shop --timeout 45m --json
  kubectl apply -f shop.yaml && trafficsim wait shop
{_WHERE}"""
)
@click.argument("name")
@click.option("--timeout", type=Time(), default="1h", show_default=True, help="How long to wait at most.")
@at_a_place
@tells_faults
def wait(name: str, timeout: timedelta, as_json_: bool, **where: str | None) -> int:
    """Wait until a simulation has finished; its verdict is the exit code."""

    async def until(api: KubeApi, namespace: str) -> int:
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                async for found in looks(api, namespace, name):
                    if (code := _code(found)) is not None:
                        return _conclude(found, code, as_json_)
        except TimeoutError:
            raise fault(f"{name} has not finished within {format_duration(timeout)}") from None
        raise AssertionError("looks never end")

    return run_at(Place(**where), until)


@click.command(
    epilog=f"""\b
Examples:
  trafficsim stop shop -n shop
  trafficsim stop shop && trafficsim wait shop
{_WHERE}"""
)
@click.argument("name")
@at_a_place
@tells_faults
def stop(name: str, as_json_: bool, **where: str | None) -> int:
    """End a run in good order: users finish their action, what there is gets judged."""
    return run_at(Place(**where), lambda api, namespace: _command(api, namespace, name, "stop", as_json_))


@click.command(
    epilog=f"""\b
Examples:
  trafficsim rerun shop -n shop
  trafficsim rerun shop && trafficsim wait shop
{_WHERE}"""
)
@click.argument("name")
@at_a_place
@tells_faults
def rerun(name: str, as_json_: bool, **where: str | None) -> int:
    """Start the next run of a simulation that has finished."""
    return run_at(Place(**where), lambda api, namespace: _command(api, namespace, name, "rerun", as_json_))


def _code(found: Object) -> int | None:
    """
    Return the exit code of a finished simulation, None while it is not.

    A status about an older generation says nothing yet: whoever applies and waits must not see the run before.
    """
    status = found.get("status") or {}
    if status.get("observedGeneration") != found["metadata"].get("generation"):
        return None
    if status.get("phase") not in (Phase.COMPLETED, Phase.FAILED) or _unanswered(found):
        return None
    verdict = status.get("verdict")
    return _CODES[Verdict(verdict)] if status["phase"] == Phase.COMPLETED and verdict else FAULT


def _unanswered(found: Object) -> bool:
    """Say whether a command was given that the operator has not taken up."""
    given = given_id(found)
    return given is not None and ((found.get("status") or {}).get("lastCommand") or {}).get("id") != given


def _conclude(found: Object, code: int, as_json_: bool) -> int:
    """Print what came of it."""
    status = found["status"]
    verdict, reason = status.get("verdict"), status.get("verdictReason") or status.get("message") or ""
    if as_json_:
        click.echo(as_json({"verdict": verdict, "reason": reason, "exit": code, "status": status}))
    else:
        click.echo(f"{verdict or status['phase']}: {reason}" if reason else verdict or status["phase"])
    return code


async def _command(api: KubeApi, namespace: str, name: str, action: str, as_json_: bool) -> int:
    """Give a command and tell the operator's answer."""
    return conclude(await give(InCluster(api=api, namespace=namespace, name=name), action), name, as_json_)
