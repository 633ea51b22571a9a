"""`trafficsim get`, `watch`, `wait`, `stop` and `rerun`: simulations in a cluster."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import click
from rich.console import Console
from rich.live import Live

from trafficsim_api import names
from trafficsim_api.errors import Problem, SpecError, Unavailable
from trafficsim_api.phases import Phase, Verdict
from trafficsim_api.units import format_duration, parse_duration
from trafficsim_operator.cli.faults import FAULT, as_json, tells_faults
from trafficsim_operator.cli.simulation_view import line, panel, table
from trafficsim_operator.kube import SIMULATIONS, KubeApi, Object, default_namespace, load_configuration

__all__ = ["get", "rerun", "stop", "wait", "watch"]

_EVERY_S: Final = 1.0
_MANAGER: Final = "trafficsim-cli"
_CODES: Final = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.INCONCLUSIVE: 2}
_WHERE: Final = """
\b
Exit codes: 0 passed (or done), 1 failed, 2 inconclusive, 3 the cluster, the simulation or a time-out is at fault.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to look: *namespace* None means the kubeconfig's."""

    namespace: str | None
    kubeconfig: str | None
    context: str | None


def _place(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give *command* the options that say which cluster and namespace, as kubectl has them."""
    for option in (
        click.option("--json", "as_json_", is_flag=True, help="One JSON document on stdout."),
        click.option("--context", metavar="NAME", help="The kubeconfig's context to use."),
        click.option("--kubeconfig", metavar="FILE", help="The kubeconfig to use."),
        click.option("-n", "--namespace", metavar="NAME", help="The namespace; absent: the context's."),
    ):
        command = option(command)
    return command


class _Time(click.ParamType):  # type: ignore[type-arg]
    """A duration as everywhere: 30s, 10m, 1h."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration; fail in the user's words."""
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


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
@_place
@tells_faults
def get(name: str | None, all_namespaces: bool, as_json_: bool, **where: str | None) -> int:
    """Show simulations in a cluster, or the one called NAME."""

    async def show(api: KubeApi, namespace: str) -> int:
        if name is not None:
            found = [await _one(api, namespace, name)]
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
        return 0

    return _run(Place(**where), show)


@click.command(
    epilog=f"""\b
Examples:
  trafficsim watch shop -n shop
  trafficsim watch shop --json | jq .status.users
{_WHERE}"""
)
@click.argument("name")
@_place
@tells_faults
def watch(name: str, as_json_: bool, **where: str | None) -> int:
    """Follow a simulation until it has finished; its verdict is the exit code. Ctrl-C only ends the watching."""

    async def follow(api: KubeApi, namespace: str) -> int:
        console = Console()
        live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json_ else None
        said = ""
        with live or nullcontext():
            async for found in _looks(api, namespace, name):
                if live is not None:
                    live.update(panel(found), refresh=True)
                elif (text := json.dumps(found) if as_json_ else line(found)) != said:
                    click.echo(text)
                    said = text
                if (code := _code(found)) is not None:
                    return code
        raise AssertionError("looks never end")

    return _run(Place(**where), follow)


@click.command(
    epilog=f"""\b
Examples:
  trafficsim wait shop -n shop
  trafficsim wait shop --timeout 45m --json
  kubectl apply -f shop.yaml && trafficsim wait shop
{_WHERE}"""
)
@click.argument("name")
@click.option("--timeout", type=_Time(), default="1h", show_default=True, help="How long to wait at most.")
@_place
@tells_faults
def wait(name: str, timeout: timedelta, as_json_: bool, **where: str | None) -> int:
    """Wait until a simulation has finished; its verdict is the exit code."""

    async def until(api: KubeApi, namespace: str) -> int:
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                async for found in _looks(api, namespace, name):
                    if (code := _code(found)) is not None:
                        return _conclude(found, code, as_json_)
        except TimeoutError:
            raise _fault(f"{name} has not finished within {format_duration(timeout)}") from None
        raise AssertionError("looks never end")

    return _run(Place(**where), until)


@click.command(
    epilog=f"""\b
Examples:
  trafficsim stop shop -n shop
  trafficsim stop shop && trafficsim wait shop
{_WHERE}"""
)
@click.argument("name")
@_place
@tells_faults
def stop(name: str, as_json_: bool, **where: str | None) -> int:
    """End a run in good order: users finish their action, what there is gets judged."""
    return _run(Place(**where), lambda api, namespace: _command(api, namespace, name, "stop", as_json_))


@click.command(
    epilog=f"""\b
Examples:
  trafficsim rerun shop -n shop
  trafficsim rerun shop && trafficsim wait shop
{_WHERE}"""
)
@click.argument("name")
@_place
@tells_faults
def rerun(name: str, as_json_: bool, **where: str | None) -> int:
    """Start the next run of a simulation that has finished."""
    return _run(Place(**where), lambda api, namespace: _command(api, namespace, name, "rerun", as_json_))


def _run(place: Place, what: Callable[[KubeApi, str], Awaitable[int]]) -> int:
    """Do *what* in the cluster; whatever the cluster says against it is told as the environment's fault."""

    async def inside() -> int:
        async with _connected(place) as (api, namespace):
            return await what(api, namespace)

    try:
        return asyncio.run(inside())
    except Unavailable as error:
        raise _fault(str(error)) from error


@asynccontextmanager
async def _connected(place: Place) -> AsyncIterator[tuple[KubeApi, str]]:
    configuration = await load_configuration(place.kubeconfig, place.context)
    async with KubeApi(configuration) as api:
        yield api, place.namespace or default_namespace(place.kubeconfig, place.context)


async def _one(api: KubeApi, namespace: str, name: str) -> Object:
    found = await api.get(SIMULATIONS, namespace, name)
    if found is None:
        raise _fault(f"there is no simulation {name} in namespace {namespace}")
    return found


async def _looks(api: KubeApi, namespace: str, name: str) -> AsyncIterator[Object]:
    """Yield the simulation once a second; it has to be there, and an API server that is away for a while is borne."""
    yield await _one(api, namespace, name)
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            found = await api.get(SIMULATIONS, namespace, name)
        except Unavailable as error:
            click.echo(f"{error}; trying again", err=True)
            continue
        if found is None:
            raise _fault(f"the simulation {name} was deleted")
        yield found


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
    text = (found["metadata"].get("annotations") or {}).get(names.COMMAND_ANNOTATION)
    try:
        given = json.loads(text)["id"] if text else None
    except (ValueError, KeyError, TypeError):
        return False
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
    """Give a command by annotation and wait for the operator's answer."""
    await _one(api, namespace, name)
    given = uuid.uuid4().hex[:16]
    patch = {"metadata": {"annotations": {names.COMMAND_ANNOTATION: json.dumps({"id": given, "action": action})}}}
    await api.merge(SIMULATIONS, namespace, name, patch, _MANAGER)
    try:
        async with asyncio.timeout(60):
            async for found in _looks(api, namespace, name):
                last = (found.get("status") or {}).get("lastCommand") or {}
                if last.get("id") == given:
                    return _answered(last, name, action, as_json_)
    except TimeoutError:
        raise _fault("no answer within 1m: is the operator running?") from None
    raise AssertionError("looks never end")


def _answered(last: Object, name: str, action: str, as_json_: bool) -> int:
    done = last["result"] == "Done"
    code = 0 if done else FAULT
    if as_json_:
        click.echo(
            as_json({"command": action, "result": last["result"], "reason": last.get("reason", ""), "exit": code})
        )
    else:
        text = f"{name}: {action} {last['result'].lower()}" + (f": {last['reason']}" if last.get("reason") else "")
        click.echo(text, err=not done)
    return code


def _fault(reason: str) -> SpecError:
    return SpecError(Problem(field="", reason=reason))
