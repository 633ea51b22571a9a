"""Simulations in a cluster as the commands reach them: which cluster and namespace, and looks at one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import click

from trafficsim_api.errors import Problem, SpecError, Unavailable
from trafficsim_api.units import parse_duration
from trafficsim_operator.kube import (
    SIMULATIONS,
    KubeApi,
    Object,
    allow_deep_json,
    default_namespace,
    load_configuration,
)

__all__ = ["EVERY_S", "Place", "Time", "at_a_place", "fault", "looks", "one", "run_at"]

EVERY_S: Final = 1.0
"""How often a simulation is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to look: *namespace* None means the kubeconfig's."""

    namespace: str | None = None
    kubeconfig: str | None = None
    context: str | None = None


def at_a_place(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give *command* the options that say which cluster and namespace, as kubectl has them."""
    for option in (
        click.option("--json", "as_json_", is_flag=True, help="One JSON document on stdout."),
        click.option("--context", metavar="NAME", help="The kubeconfig's context to use."),
        click.option("--kubeconfig", metavar="FILE", help="The kubeconfig to use."),
        click.option("-n", "--namespace", metavar="NAME", help="The namespace; absent: the context's."),
    ):
        command = option(command)
    return command


class Time(click.ParamType):  # type: ignore[type-arg]
    """A duration as everywhere: 30s, 10m, 1h."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration; fail in the user's words."""
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def run_at(place: Place, what: Callable[[KubeApi, str], Awaitable[int]]) -> int:
    """Do *what* in the cluster; whatever the cluster says against it is told as the environment's fault."""

    async def inside() -> int:
        async with _connected(place) as (api, namespace):
            return await what(api, namespace)

    try:
        return asyncio.run(inside())
    except Unavailable as error:
        raise fault(str(error)) from error


@asynccontextmanager
async def _connected(place: Place) -> AsyncIterator[tuple[KubeApi, str]]:
    allow_deep_json()
    configuration = await load_configuration(place.kubeconfig, place.context)
    async with KubeApi(configuration) as api:
        yield api, place.namespace or default_namespace(place.kubeconfig, place.context)


async def one(api: KubeApi, namespace: str, name: str) -> Object:
    """Return the simulation; it has to be there."""
    found = await api.get(SIMULATIONS, namespace, name)
    if found is None:
        raise fault(f"there is no simulation {name} in namespace {namespace}")
    return found


async def looks(api: KubeApi, namespace: str, name: str) -> AsyncIterator[Object]:
    """Yield the simulation once a second; it has to be there, and an API server that is away for a while is borne."""
    yield await one(api, namespace, name)
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            found = await api.get(SIMULATIONS, namespace, name)
        except Unavailable as error:
            click.echo(f"{error}; trying again", err=True)
            continue
        if found is None:
            raise fault(f"the simulation {name} was deleted")
        yield found


def fault(reason: str) -> SpecError:
    """Return what is told, with exit code 3, of what no field of a file is to blame for."""
    return SpecError(Problem(field="", reason=reason))
