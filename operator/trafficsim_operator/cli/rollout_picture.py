"""The users of each version over time as a picture: one of coloured cells for a terminal, one as an SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import accumulate
from typing import Final

from rich.text import Text

from trafficsim_operator.cli.rollout_history import History, Mark, Tone

__all__ = ["drawing", "picture"]

# Of the versions, in order of appearance: told apart also by those who see red and green as one.
_INKS: Final = ("#3b7dd8", "#2fa66f", "#d9822b", "#9b59b6")
_TONES: Final = {Tone.ASKED: "dim", Tone.STEP: "", Tone.GOOD: "bold green", Tone.BAD: "bold red"}
_TONE_INKS: Final = {Tone.ASKED: "#667085", Tone.STEP: "#344054", Tone.GOOD: "#1a7f4b", Tone.BAD: "#c0362c"}
_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
_AXIS: Final = 6
"""The columns left of the picture: the scale."""
_TICK_MS: Final = (5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000)
# What is asked for and what comes of it may be near one another: each kind has a line of its own under the area.
_LINES: Final = {Tone.ASKED: 42, Tone.GOOD: 60, Tone.BAD: 78}
_LETTER: Final = 7
_LEFT, _TOP, _WIDE, _HIGH = 56, 64, 820, 260


def picture(history: History, *, width: int, height: int = 12, coloured: bool = True) -> Text:
    """
    Return *history* as text of *width* columns, its area *height* lines high.

    Users are stacked, the oldest version at the bottom. Without colours the area is filled with each version's name.
    """
    columns = max(10, width - _AXIS)
    top = _top(history)
    text = Text(no_wrap=True, overflow="crop")
    stacks = [tuple(accumulate(users)) for users in history.steps(columns)]
    for row in reversed(range(height)):
        text.append(_scale(history.total, top * row / height, top / height).rjust(_AXIS - 1) + "┤", "dim")
        for stack in stacks:
            _cell(text, history, [users * height * 8 / top - row * 8 for users in stack], coloured=coloured)
        text.append("\n")
    _under(text, history, columns)
    return text


def _top(history: History) -> int:
    """Return what the scale ends with: T, or the most that was active while users moved."""
    return max(1, history.total, *(sample.total for sample in history.samples), 1)


def _scale(total: int, lowest: float, high: float) -> str:
    """Return what stands beside a line that is *high* users high from *lowest* on: T or its half if it is full then."""
    full = next((str(users) for users in (total, total // 2) if lowest < users <= lowest + high), "")
    return full or ("" if lowest else "0")


def _cell(text: Text, history: History, tops: Sequence[float], *, coloured: bool) -> None:
    """Add one cell; *tops* are where each version ends in it, in eighths of its height, below 0 or above 8 outside."""
    if not coloured:
        # Half a cell is enough to be seen, and to be nobody's.
        shown = next((number for number, top in enumerate(tops) if top >= 4), None)
        text.append(" " if shown is None else list(history.labels.values())[shown][-1])
        return
    ends = [min(8, max(0, round(top))) for top in tops]
    lower = next((number for number, end in enumerate(ends) if end > 0), None)
    if lower is None:
        text.append(" ")
    elif ends[lower] == 8:
        text.append("█", _INKS[lower % len(_INKS)])
    else:
        upper = next((number for number in range(lower + 1, len(ends)) if ends[number] > ends[lower]), None)
        ground = f" on {_INKS[upper % len(_INKS)]}" if upper is not None else ""
        text.append(_EIGHTHS[ends[lower]], _INKS[lower % len(_INKS)] + ground)


def _under(text: Text, history: History, columns: int) -> None:
    """Add what stands under the area: time, steps, what happened, and which colour is whose."""
    until_ms = max(1, history.until_ms)
    text.append(" " * (_AXIS - 1) + "└", "dim")
    axis = ["─"] * columns
    ticks = _ticks(until_ms)
    for at_ms in ticks:
        axis[_column(at_ms, until_ms, columns)] = "┴"
    text.append("".join(axis) + "\n", "dim")
    _labels(text, [Mark(at_ms=at_ms, text=f"{at_ms // 1000}s", tone=Tone.ASKED) for at_ms in ticks], until_ms, columns)
    _labels(text, [mark for mark in history.marks if mark.tone is Tone.STEP], until_ms, columns)
    _labels(text, [mark for mark in history.marks if mark.tone is not Tone.STEP], until_ms, columns)
    text.append(" " * _AXIS)
    for number, label in enumerate(history.labels.values()):
        text.append("█", _INKS[number % len(_INKS)]).append(f" version {label}   ")
    text.append(f"active users, of {history.total}", "dim")


def _labels(text: Text, marks: Sequence[Mark], until_ms: int, columns: int) -> None:
    """Add a line with each mark's text from its instant on; what would overlap or stand out is moved."""
    text.append(" " * _AXIS)
    at = 0
    for mark, column in zip(marks, _places(marks, until_ms, columns), strict=True):
        if column >= at:
            text.append(" " * (column - at)).append(mark.text, _TONES[mark.tone])
            at = column + len(mark.text)
    text.append("\n")


def _places(marks: Sequence[Mark], until_ms: int, columns: int) -> list[int]:
    """Return where each text begins: behind the one before it, and all before the end of the line."""
    found, least = [], 0
    for mark in marks:
        found.append(max(least, _column(mark.at_ms, until_ms, columns)))
        least = found[-1] + len(mark.text) + 1
    most = columns
    for number in reversed(range(len(found))):
        found[number] = min(found[number], most - len(marks[number].text))
        most = found[number] - 1
    return found


def _column(at_ms: int, until_ms: int, columns: int) -> int:
    return min(columns - 1, at_ms * columns // until_ms)


def _ticks(until_ms: int) -> Sequence[int]:
    """Return the instants that are named on the axis: every 20 s in two minutes, never more than eight."""
    apart = next((tick for tick in _TICK_MS if until_ms <= 8 * tick), _TICK_MS[-1])
    return range(0, until_ms + 1, apart)


def drawing(history: History, *, title: str, lines: Sequence[str] = ()) -> str:
    """Return *history* as an SVG document with a *title* and the *lines* that tell what happened under it."""
    top, until_ms = _top(history), max(1, history.until_ms)
    bottom = _TOP + _HIGH
    parts = [
        _text(_LEFT, 28, title, size=17, weight=600),
        *_grid(history.total, top, bottom),
        *_areas(history, top, until_ms),
        f'<line x1="{_LEFT}" x2="{_LEFT + _WIDE}" y1="{_y(history.total, top)}" y2="{_y(history.total, top)}" '
        'stroke="#101828" stroke-dasharray="5 4"/>',
        *_time(until_ms, bottom),
        *_marks(history.marks, until_ms, bottom),
        *_legend(history),
    ]
    under = bottom + 134
    parts += [_text(_LEFT, under + 20 * number, line, size=13) for number, line in enumerate(lines)]
    wide, high = _LEFT + _WIDE + 24, under + 20 * len(lines)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
            'role="img" font-family="system-ui, sans-serif">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _grid(total: int, top: int, bottom: int) -> list[str]:
    found = []
    for number in range(5):
        users = total * number // 4
        y = _y(users, top)
        found.append(f'<line x1="{_LEFT}" x2="{_LEFT + _WIDE}" y1="{y}" y2="{y}" stroke="#e4e7ec"/>')
        found.append(_text(_LEFT - 8, y + 4, str(users), anchor="end"))
    return [*found, f'<line x1="{_LEFT}" x2="{_LEFT + _WIDE}" y1="{bottom}" y2="{bottom}" stroke="#98a2b3"/>']


def _areas(history: History, top: int, until_ms: int) -> list[str]:
    """Return a closed path for each version: steps from look to look, on top of the versions before it."""
    stacks = [
        (sample.at_ms, [0, *accumulate(sample.active.get(revision, 0) for revision in history.labels)])
        for sample in history.samples
    ]
    found = []
    for number in range(len(history.labels)):
        upper = _edge([(at_ms, stack[number + 1]) for at_ms, stack in stacks], top, until_ms)
        lower = _edge([(at_ms, stack[number]) for at_ms, stack in stacks], top, until_ms)
        if upper:
            path = " L".join([*upper, *reversed(lower)])
            found.append(f'<path d="M{path} Z" fill="{_INKS[number % len(_INKS)]}" fill-opacity="0.85"/>')
    return found


def _edge(points: Sequence[tuple[int, int]], top: int, until_ms: int) -> list[str]:
    """Return the corners of a line that stays at each value until the next look."""
    corners: list[str] = []
    for number, (at_ms, users) in enumerate(points):
        if number:
            corners.append(f"{_x(at_ms, until_ms)} {_y(points[number - 1][1], top)}")
        corners.append(f"{_x(at_ms, until_ms)} {_y(users, top)}")
    return corners


def _time(until_ms: int, bottom: int) -> list[str]:
    return [
        _text(_x(at_ms, until_ms), bottom + 18, f"{at_ms // 1000} s", anchor="middle") for at_ms in _ticks(until_ms)
    ]


def _marks(marks: Sequence[Mark], until_ms: int, bottom: int) -> list[str]:
    """Return a line at each mark and its text: steps above the area, what was asked and came of it under it."""
    found = []
    for mark in marks:
        x, ink = _x(mark.at_ms, until_ms), _TONE_INKS[mark.tone]
        if mark.tone is Tone.STEP:
            found.append(
                f'<line x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{bottom}" stroke="#ffffff" stroke-opacity="0.7"/>'
            )
            found.append(_text(x, _TOP - 10, mark.text, ink=ink))
            continue
        y = bottom + _LINES[mark.tone]
        found.append(f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{y - 12}" stroke="{ink}" stroke-dasharray="2 3"/>')
        anchor = "end" if x + _LETTER * len(mark.text) > _LEFT + _WIDE else "start"
        found.append(_text(x, y, mark.text, ink=ink, weight=600, anchor=anchor))
    return found


def _legend(history: History) -> list[str]:
    found, x, y = [], _LEFT, _TOP + _HIGH + 106
    for number, label in enumerate(history.labels.values()):
        found.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" rx="2" fill="{_INKS[number % len(_INKS)]}"/>')
        found.append(_text(x + 18, y, f"version {label}"))
        x += 110
    told = f"active users; those above {history.total} are on twice for a moment"
    return [*found, _text(x, y, told, ink="#667085")]


def _text(
    x: float, y: float, text: str, *, size: int = 12, ink: str = "#344054", weight: int = 400, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{ink}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _x(at_ms: int, until_ms: int) -> float:
    return round(_LEFT + _WIDE * at_ms / until_ms, 1)


def _y(users: int, top: int) -> float:
    return round(_TOP + _HIGH * (1 - users / top), 1)
