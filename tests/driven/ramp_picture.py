"""What became of a ramp: the users of the fullest runner beside what a runner carries, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

TOP, LEFT, WIDE, HIGH, APART = 56, 64, 620, 190, 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One look: users at work, those of the fullest runner, what one carries, runners with users, wanted ones."""

    at_s: float
    users: int
    fullest: int
    carries: int
    runners: int
    wanted: int

    @property
    def is_over(self) -> bool:
        """Say whether a runner has more users than it carries."""
        return self.fullest > self.carries


@dataclass(slots=True, kw_only=True)
class Course:
    """One run, from the beginning of its ramp on."""

    title: str
    moments: list[Moment] = field(default_factory=list)

    @property
    def over_s(self) -> float:
        """Return for how long a runner had more users than it carries."""
        pairs = zip(self.moments, self.moments[1:], strict=False)
        return sum(after.at_s - before.at_s for before, after in pairs if before.is_over)

    def __str__(self) -> str:
        lines = [
            f"{self.title}: above what a runner carries for {self.over_s:.0f} s",
            "     s users fullest carries runners",
        ]
        for number, now in enumerate(self.moments):
            if not number or int(now.at_s) // 5 != int(self.moments[number - 1].at_s) // 5:
                lines.append(
                    f"{now.at_s:6.1f} {now.users:5} {now.fullest:7} {now.carries:7} {now.runners:3} of {now.wanted}"
                )
        return "\n".join(lines)


def drawing(courses: Sequence[Course], ramp_s: float, *, how: str) -> str:
    """
    Return the *courses*, one under the other, as an SVG document; the ramp begins at 0 and ends at *ramp_s*.

    *how* says where the numbers are from.
    """
    moments = [now for course in courses for now in course.moments]
    panels = [
        _Panel(
            course=course,
            base=TOP + HIGH + number * (HIGH + APART),
            first_s=min(now.at_s for now in moments),
            until_s=max(now.at_s for now in moments),
            most=1.1 * max(max(now.fullest, now.carries) for now in moments),
        )
        for number, course in enumerate(courses)
    ]
    under = panels[-1].base + 66
    told = f"users of the fullest runner; dashed: what a runner carries ({how})"
    wide, high = LEFT + WIDE + 24, under + 24
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
            'role="img" font-family="system-ui, sans-serif">',
            "<title>From 400 to 2000 users in 60 s, with prediction and without it</title>",
            f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
            _text(LEFT, 26, "From 400 to 2000 users in 60 s", size=17, weight=600),
            *(part for panel in panels for part in panel.parts(ramp_s)),
            _text(LEFT, under, told, ink="#667085"),
            "</svg>\n",
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One course, drawn above its *base*."""

    course: Course
    base: int
    first_s: float
    until_s: float
    most: float

    def _x(self, at_s: float) -> float:
        return round(LEFT + WIDE * (at_s - self.first_s) / (self.until_s - self.first_s), 1)

    def _y(self, users: float) -> float:
        return round(self.base - HIGH * users / self.most, 1)

    def parts(self, ramp_s: float) -> Iterator[str]:
        """Yield its elements."""
        course, base = self.course, self.base
        over = f"above it for {course.over_s:.0f} s" if course.over_s else "never above it"
        yield _text(LEFT, base - HIGH - 12, f"{course.title}: the fullest runner is {over}", size=14, weight=600)
        for users in range(0, int(self.most) + 1, 200):
            yield _line(LEFT, LEFT + WIDE, self._y(users), self._y(users), "#e4e7ec")
            yield _text(LEFT - 8, self._y(users) + 4, str(users), anchor="end")
        for tick in range(0, int(self.until_s) + 1, 20):
            yield _text(self._x(tick), base + 18, f"{tick} s", anchor="middle")
        for at_s in (0.0, ramp_s):
            yield _line(self._x(at_s), self._x(at_s), base - HIGH, base, "#98a2b3")
        yield self._path([now.carries for now in course.moments], 'stroke="#101828" stroke-dasharray="5 4"')
        ink = "#d92d20" if course.over_s else "#1570ef"
        yield self._path([now.fullest for now in course.moments], f'stroke="{ink}" stroke-width="2"')
        yield _text(LEFT - 8, base + 36, "runners", anchor="end")
        before = 0
        for now in course.moments:
            if now.runners != before:
                yield _text(self._x(now.at_s), base + 36, str(now.runners), anchor="middle", weight=600)
            before = now.runners

    def _path(self, users: Sequence[int], how: str) -> str:
        instants = (now.at_s for now in self.course.moments)
        corners = (f"{self._x(at_s)} {self._y(count)}" for at_s, count in zip(instants, users, strict=True))
        return f'<path d="M{" L".join(corners)}" fill="none" {how}/>'


def _line(x1: float, x2: float, y1: float, y2: float, ink: str) -> str:
    return f'<line x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}" stroke="{ink}"/>'


def _text(
    x: float, y: float, text: str, *, size: int = 12, ink: str = "#344054", weight: int = 400, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{ink}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{text}</text>"
    )
