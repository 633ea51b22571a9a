"""`trafficsim demo-rollout`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from trafficsim_api.document import load, parse
from trafficsim_api.errors import Problem, SpecError
from trafficsim_api.names import COMMAND_ANNOTATION
from trafficsim_api.policy import LOCAL_DEFAULT
from trafficsim_api.rollout import RolloutPhase
from trafficsim_operator.cli.demo import opened_shop
from trafficsim_operator.cli.faults import FAULT, as_json, tells_faults
from trafficsim_operator.cli.figures import clock
from trafficsim_operator.cli.rollout_history import Tone
from trafficsim_operator.cli.rollout_picture import drawing, picture
from trafficsim_operator.cli.rollout_story import Edit, Story, Told
from trafficsim_operator.cli.run import follow, history_at
from trafficsim_operator.local import Frame, Options, Outcome

__all__ = ["demo_rollout"]

_HERE: Final = Path(__file__).parent
_DOCUMENT: Final = _HERE / "demo_rollout.yaml"
_IMAGES: Final = {f"demo/shop:{number}": _HERE / "shop_versions" / str(number) for number in (1, 2, 3)}
_URL: Final = "http://127.0.0.1:8080"  # what stands in the document for the shop's address
_NAME: Final = "metadata: {name: demo-rollout}"
_STOP: Final = json.dumps({"id": "the-end", "action": "stop"})
_TITLE: Final = "Users of each version while 2 is rolled out, and 3, which is faulty"
_EVERY_MS: Final = 5_000
_NARROW, _WIDE, _PIPED = 40, 110, 240
_TOLD: Final = ("rollout ", "revision ", "edit taken over", "stop: ")
_AT_REST: Final = (RolloutPhase.STABLE, RolloutPhase.RETIRING, RolloutPhase.REJECTED)
_STYLES: Final = {Tone.ASKED: "cyan", Tone.STEP: "", Tone.GOOD: "bold green", Tone.BAD: "bold red"}
EPILOG: Final = """\b
Exit codes: 0 as described, 1 it came otherwise, 2 stopped, 3 the environment is at fault.

\b
Examples:
  trafficsim demo-rollout
  trafficsim demo-rollout --picture ~/rollout.svg
  trafficsim demo-rollout --show > my-first-rollout.yaml      the document, to start from
  trafficsim demo-rollout --json
"""


@click.command("demo-rollout", epilog=EPILOG, short_help="A good version promoted and a bad one rolled back.")
@click.option("--json", "as_json_", is_flag=True, help="Print one JSON document at the end, and nothing else.")
@click.option("--show", is_flag=True, help="Print the document instead of running it.")
@click.option(
    "--picture", "file", metavar="FILE", default="demo-rollout.svg", show_default=True,
    help="Where the picture is written, as SVG.",
)  # fmt: skip
@tells_faults
def demo_rollout(as_json_: bool, show: bool, file: str) -> int:
    """
    Roll out two new versions of a runner on this machine, in less than three minutes: a good one and a bad one.

    A hundred customers of a small shop move to version 2 in steps of 10, 25, 50, 75 and 100 %. Version 3 asks in one
    request of five for somebody who is not there: it is rolled back at its first step. The edits are those of a file,
    as one would make them; the picture shows how many users each version had, as its runners acknowledged them.
    """
    if show:
        click.echo(_DOCUMENT.read_text(), nl=False)
        return 0
    svg = _writable(file)
    with opened_shop() as url, tempfile.TemporaryDirectory(prefix="trafficsim-demo-") as directory:
        document = Path(directory) / "rollout.yaml"
        document.write_text(_DOCUMENT.read_text().replace(_URL, url))
        view = _view(document, as_json_=as_json_)
        view.begin(url)
        outcome = follow(_options(document), view)
    words = view.story.words()
    svg.write_text(drawing(view.story.history, title=_TITLE, lines=words), encoding="utf-8")
    code = _code(view.story, outcome)
    if as_json_:
        click.echo(as_json(_document(view.story, outcome, svg, code)))
    else:
        _conclude(view.story, outcome, svg, code)
    return code


def _writable(file: str) -> Path:
    """Return where the picture goes; raise SpecError now, not in three minutes, when it cannot be written there."""
    path = Path(file).expanduser()
    try:
        with path.open("a"):
            return path
    except OSError as error:
        raise SpecError(Problem(field="--picture", reason=f"{path} cannot be written: {error.strerror}")) from error


def _options(document: Path) -> Options:
    data = document.read_bytes()
    load(data, "the demo")
    return Options(
        body=parse(data, "the demo"),
        source="demo-rollout",
        policy=LOCAL_DEFAULT,
        images=_IMAGES,
        history=history_at(None, os.environ),  # noqa: TID251  # the shell: settings are read here
        environ=os.environ,  # noqa: TID251
        base=document.parent,
        file=document,
    )


def _code(story: Story, outcome: Outcome) -> int:
    """Return 0 when all came as described; 2 when somebody stopped it before."""
    if story.is_shown:
        return 0
    if outcome.verdict is None:
        return FAULT
    return 2 if "stopped by SIG" in outcome.reason or outcome.reason.startswith("stopped") else 1


def _document(story: Story, outcome: Outcome, svg: Path, code: int) -> Mapping[str, Any]:
    good, bad = (
        {
            "version": attempt.label,
            "steps": attempt.steps,
            "promoted": attempt.promoted,
            "rejected": attempt.rejected,
            "askedMs": attempt.asked_ms,
            "verdictMs": attempt.verdict_ms,
            "endedMs": attempt.ended_ms,
            "mostUsers": story.history.most(attempt.revision),
            "message": attempt.message,
        }
        for attempt in (story.good, story.bad)
    )
    return {
        "exit": code,
        "words": list(story.words()),
        "good": good,
        "bad": bad,
        "picture": str(svg),
        **story.history.document(),
        "verdict": outcome.verdict.value if outcome.verdict else None,
        "reason": outcome.reason,
        "requests": outcome.report.requests,
        "status": outcome.frame.status.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def _conclude(story: Story, outcome: Outcome, svg: Path, code: int) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED)
    console.print()
    if story.history.samples:
        console.print(_picture(story, console))
        console.print()
    for sentence in story.words():
        console.print(Text(sentence), soft_wrap=True)
    if code:
        console.print(Text(f"That is not what the demo is to show. {outcome.reason}", "bold red"), soft_wrap=True)
    else:
        console.print(Text("The good version was promoted, the bad one rolled back.", "bold green"))
    console.print(Text(f"The picture is in {svg}", "dim"), soft_wrap=True)


def _picture(story: Story, console: Console) -> Text:
    """Return the picture as wide as the terminal has room for; what is piped has neither width nor colours."""
    width = max(_NARROW, min(_WIDE, console.width - 1)) if console.is_terminal else _WIDE
    return picture(story.history, width=width, coloured=console.is_terminal and console.color_system is not None)


# What is seen while it runs.


@dataclass(slots=True, kw_only=True)
class _Silent:
    """Lets the story make its edits in *document*, and tells it to nobody."""

    document: Path
    story: Story = field(default_factory=Story)

    def begin(self, url: str) -> None:
        """Say what will be seen."""

    def show(self, frame: Frame) -> None:
        """Take a look over, and make the edit that is due."""
        told, edit = self.story.see(frame)
        for line in told:
            self.tell(line)
        if edit is not None:
            self._make(edit, frame.elapsed_ms or 0)

    def tell(self, told: Told) -> None:
        """Tell a line of the story."""

    def note(self, text: str, *, warning: bool = False) -> None:
        """Say what happened beside it."""

    def close(self) -> None:
        """Leave nothing behind."""

    def _make(self, edit: Edit, at_ms: int) -> None:
        """Make *edit* as an editor does: a new file in place of the old one."""
        text = self.document.read_text()
        if edit is Edit.STOP:
            annotated = f"metadata: {{name: demo-rollout, annotations: {{{COMMAND_ANNOTATION}: '{_STOP}'}}}}"
            changed = text.replace(_NAME, annotated)
        else:
            changed = text.replace(_image_in(text), f"image: {edit}")
            self.tell(Told(at_ms=at_ms, text=f"the file is edited: runner.image is {edit} now", tone=Tone.ASKED))
        new = self.document.with_suffix(".new")
        new.write_text(changed)
        os.replace(new, self.document)


def _image_in(text: str) -> str:
    return next(line.strip().partition("  ")[0] for line in text.splitlines() if line.strip().startswith("image: "))


@dataclass(slots=True, kw_only=True)
class _Lines(_Silent):
    """The story in lines, and between them one every five seconds that says how it stands."""

    console: Console
    _last_ms: int = 0
    _is_said: bool = False

    def begin(self, url: str) -> None:
        """Say what will be seen."""
        self._print(f"The demo shop is open at {url}; its customers come from a runner of version 1.")

    def show(self, frame: Frame) -> None:
        """Take a look over; print a line when one is due."""
        _Silent.show(self, frame)
        if not self._is_said and frame.now_ms - self._last_ms >= _EVERY_MS:
            self._print(f"{clock(max(0, frame.elapsed_ms or 0))}  {_standing(self.story, frame)}")
        if self._is_said:
            self._last_ms, self._is_said = frame.now_ms, False

    def tell(self, told: Told) -> None:
        """Print a line of the story."""
        self._print(f"{clock(told.at_ms)}  {told.text}", _STYLES[told.tone])

    def note(self, text: str, *, warning: bool = False) -> None:
        """Print what happened, unless the story tells it."""
        if not text.startswith(_TOLD):
            self._print(f"{'!' if warning else '·'} {text}", "yellow" if warning else "dim")

    def _print(self, text: str, style: str = "") -> None:
        self._is_said = True
        self.console.print(Text(text, style), soft_wrap=True)


@dataclass(slots=True, kw_only=True)
class _Drawn(_Lines):
    """The story in lines above a picture that grows."""

    _live: Live | None = None

    def show(self, frame: Frame) -> None:
        """Take a look over, and draw it."""
        _Silent.show(self, frame)
        if self._live is None:
            self._live = Live(console=self.console, transient=True, auto_refresh=False)
            self._live.start()
        standing = Text(f"{clock(max(0, frame.elapsed_ms or 0))}  {_standing(self.story, frame)}", no_wrap=True)
        parts = [Text(), _picture(self.story, self.console)] if self.story.history.samples else []
        self._live.update(Group(*parts, Text(), standing), refresh=True)

    def close(self) -> None:
        """Take the picture away; the last one is printed at the end."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _standing(story: Story, frame: Frame) -> str:
    """Return how it stands in one line: users of each version, and what is waited for."""
    status, samples = frame.status, story.history.samples
    if not samples:
        return f"{status.phase}  {status.message.partition(chr(10))[0]}"
    labels = story.history.labels
    users = ", ".join(f"version {labels[name]} {count}" for name, count in samples[-1].active.items())
    rollout = status.rollout
    is_on = rollout is not None and rollout.phase not in _AT_REST and bool(rollout.message)
    waits = f"  {rollout.phase}: {rollout.message}" if rollout is not None and is_on else ""
    return f"users: {users}{waits}"


def _view(document: Path, *, as_json_: bool) -> _Silent:
    if as_json_:
        return _Silent(document=document)
    console = Console(stderr=True)
    return (
        _Drawn(document=document, console=console)
        if console.is_terminal
        else _Lines(document=document, console=console)
    )
