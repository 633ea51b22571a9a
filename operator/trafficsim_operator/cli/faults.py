"""What every command shares: reading the user's files, and saying what is wrong with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click

from trafficsim_api.document import MAX_BYTES, load, parse
from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.policy import LOCAL_DEFAULT, Policy, PolicyTarget
from trafficsim_api.problems import read
from trafficsim_api.resource import TrafficSimulation

__all__ = [
    "FAULT",
    "allowing",
    "as_json",
    "policy_from",
    "policy_in",
    "read_bytes",
    "simulation_from",
    "tell",
    "tells_faults",
]

FAULT: Final = 3
"""The exit code when the file or the environment is at fault."""

P = ParamSpec("P")
R = TypeVar("R")


def tells_faults(command: Callable[P, int]) -> Callable[P, None]:
    """Have *command*'s return value be the exit code, and a SpecError be told on stderr and be exit code 3."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except SpecError as error:
            if kwargs.get("as_json_"):
                problems = [{"field": problem.field, "reason": problem.reason} for problem in error.problems]
                print(as_json({"verdict": None, "reason": str(error), "exit": FAULT, "problems": problems}))
            else:
                source, policy = kwargs.get("file"), kwargs.get("policy")
                tell(
                    error.problems,
                    source if isinstance(source, str) else "",
                    beside=policy if isinstance(policy, str) else "",
                )
            code = FAULT
        click.get_current_context().exit(code)

    return wrapped


def tell(problems: tuple[Problem, ...], source: str, *, beside: str = "") -> None:
    """Print every problem on stderr, after the file it is in: *source*, unless it names the one *beside* it."""
    named = tuple(name for name in (source, beside, "--") if name)
    for problem in problems:
        text = str(problem)
        told = text if not source or text.startswith(named) else f"{source}: {text}"
        click.echo(told, err=True)


def as_json(document: Mapping[str, Any]) -> str:
    """Return *document* as the JSON that a command prints."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def read_bytes(file: str) -> bytes:
    """Return what stands in *file*, or on standard input for `-`; raise SpecError when it cannot be read."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with Path(file).open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(Problem(field=file, reason=f"cannot be read: {reason}")) from error


def simulation_from(file: str) -> tuple[Mapping[str, Any], TrafficSimulation]:
    """Return the document in *file*, as it stands there and as the simulation it means."""
    data, source = read_bytes(file), "standard input" if file == "-" else file
    return parse(data, source), load(data, source)


def policy_from(file: str | None, allowed: tuple[str, ...]) -> Policy:
    """Return the policy in *file* (None: loopback and private addresses), with the targets *allowed* beside it."""
    policy = LOCAL_DEFAULT
    if file is not None:
        policy = policy_in(read_bytes(file), file)
    return policy.model_copy(update={"targets": (*policy.targets, *(allowing(text) for text in allowed))})


def policy_in(data: bytes, source: str) -> Policy:
    """Return the policy in *data*; raise SpecError naming *source* and the field that is wrong."""
    value = parse(data, source)
    if not isinstance(value, dict):
        raise SpecError(Problem(field=source, reason="a policy is needed: targets, verbs, images, maxUsers …"))
    try:
        return read(Policy, value)
    except SpecError as error:
        raise SpecError(*(Problem(field=f"{source}: {p.field}", reason=p.reason) for p in error.problems)) from None


def allowing(text: str) -> PolicyTarget:
    """Return the policy entry for `--allow-target` host:port; an address is its own network."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]").lower()
    if not (colon and host and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise SpecError(Problem(field="--allow-target", reason=f"host:port is needed, not {text!r}"))
    try:
        return PolicyTarget(cidr=host, ports=(int(port),))
    except ValueError:
        return PolicyTarget(host=host, ports=(int(port),))
