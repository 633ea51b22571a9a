"""`trafficsim demo`."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from trafficsim_api.document import load, parse
from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.policy import LOCAL_DEFAULT
from trafficsim_operator.cli.faults import tells_faults
from trafficsim_operator.cli.run import history_at, perform
from trafficsim_operator.local import Options

__all__ = ["demo", "opened_shop"]

_DOCUMENT: Final = Path(__file__).parent / "demo.yaml"
_URL: Final = b"http://127.0.0.1:8080"  # what stands in the document for the shop's address
_PATIENCE_S: Final = 15.0
EPILOG: Final = """\b
Examples:
  trafficsim demo
  trafficsim demo --show > my-first.yaml      the document, to start from
  trafficsim demo --json
"""


@click.command(epilog=EPILOG, short_help="A demo shop and three kinds of users, for about a minute.")
@click.option("--json", "as_json_", is_flag=True, help="Print one JSON document at the end, and nothing else.")
@click.option("--show", is_flag=True, help="Print the document instead of running it.")
@tells_faults
def demo(as_json_: bool, show: bool) -> int:
    """
    Open a small shop on this machine and send three kinds of users to it for about a minute.

    Needs nothing but this installation; ends with a verdict: Passed, exit code 0. On a machine that is busy with
    something else it may be Inconclusive, exit code 2: the users came too late for their times to tell of the shop.
    Try it again when the machine has time.
    """
    data = _DOCUMENT.read_bytes()
    if show:
        click.echo(data.decode(), nl=False)
        return 0
    with opened_shop() as url:
        data = data.replace(_URL, url.encode())
        load(data, "the demo")
        if not as_json_:
            click.echo(f"The demo shop is open at {url}; three kinds of users come for about a minute.", err=True)
        options = Options(
            body=parse(data, "the demo"),
            source="demo",
            policy=LOCAL_DEFAULT,
            history=history_at(None, os.environ),  # noqa: TID251  # the shell: settings are read here
            environ=os.environ,  # noqa: TID251
        )
        return perform(options, as_json_=as_json_)


@contextlib.contextmanager
def opened_shop() -> Iterator[str]:
    """Open the shop at a free port, yield its URL, and close it at the end; it closes with us however we end."""
    command = [sys.executable, "-m", "trafficsim_runner.demo", "--listen", "127.0.0.1:0", "--until-stdin-closes"]
    # Subtle: a session of its own, else Ctrl-C would close the shop under the users that finish their action.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    try:
        yield _url_of(process)
    finally:
        process.stdin.close()  # type: ignore[union-attr]
        process.stdout.close()  # type: ignore[union-attr]
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _url_of(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline().decode() if selector.select(_PATIENCE_S) else ""
    _, _, url = line.strip().rpartition(" ")
    if not url.startswith("http://"):
        raise SpecError(Problem(field="", reason="the demo shop did not open; see what it said above"))
    return url
