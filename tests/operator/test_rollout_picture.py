"""The picture of users per version over time: what was seen, nothing made up; at a terminal, piped, and as a file."""

from __future__ import annotations

from xml.etree import ElementTree

from rich.console import Console

from trafficsim_api.rollout import RolloutPhase
from trafficsim_api.status import ColourStatus, Revision, RolloutStatus, Status, Users
from trafficsim_operator.cli.rollout_history import History, Sample, Tone, active_by_version
from trafficsim_operator.cli.rollout_picture import drawing, picture

SVG = "{http://www.w3.org/2000/svg}"


def a_history(*looks: tuple[int, dict[str, int]], total: int = 100) -> History:
    """Return a history of *looks* at an instant in seconds, with the active users by version."""
    history = History(labels={"one": "1", "two": "2"}, total=total)
    history.samples = [Sample(at_ms=seconds * 1000, active=active) for seconds, active in looks]
    return history


def a_revision(image: str, revision: str = "0a1b2c3d") -> Revision:
    return Revision(revision=revision, image=image, runner={})


def moved() -> History:
    """Return how all users moved from one version to another, by way of 10 %."""
    return a_history((0, {"one": 100}), (10, {"one": 90, "two": 10}), (20, {"one": 0, "two": 100}), (40, {"two": 100}))


def test_before_the_first_rollout_all_users_are_of_the_stable_version():
    """There is no rollout in the status yet."""
    status = Status(stable=a_revision("shop:1", "one"), users=Users(active=7))
    assert {"one": 7} == active_by_version(status)


def test_in_a_rollout_each_version_has_its_acknowledged_users():
    """Active users are taken, not those that are wanted."""
    rollout = RolloutStatus(
        phase=RolloutPhase.SHIFTING, wanted=25,
        blue=ColourStatus(users=80, active=78), green=ColourStatus(users=20, active=19),
    )  # fmt: skip
    status = Status(
        stable=a_revision("shop:1", "one"), candidate=a_revision("shop:2", "two"), rollout=rollout
    )  # fmt: skip
    assert {"one": 78, "two": 19} == active_by_version(status)


def test_after_the_promotion_the_colours_stay_those_of_the_rollout():
    """The new version is the stable one then, and the one before it has nobody."""
    rollout = RolloutStatus(phase=RolloutPhase.RETIRING, green=ColourStatus(active=100))
    status = Status(stable=a_revision("shop:2", "two"), previous=a_revision("shop:1", "one"), rollout=rollout)
    assert {"two": 100} == active_by_version(status)


def test_once_the_old_version_is_gone_all_users_are_of_the_stable_one():
    """The rollout is over and stays in the status."""
    rollout = RolloutStatus(phase=RolloutPhase.STABLE, blue=ColourStatus(active=100))
    assert {"two": 100} == active_by_version(Status(stable=a_revision("shop:2", "two"), rollout=rollout))


def test_a_span_shows_the_last_look_in_it():
    """Between two looks nothing is made up: a value stays until the next one."""
    assert [(90, 10), (0, 100), (0, 100), (0, 100)] == list(moved().steps(4))
    assert [(0, 0)] == list(History(labels={"one": "1", "two": "2"}).steps(1))


def test_bounds_are_of_the_looks_between():
    """Those outside do not count."""
    history = a_history((0, {"one": 3}), (10, {"one": 100}), (20, {"one": 98, "two": 10}), (30, {"two": 4}))
    assert (100, 108) == history.bounds(10_000, 20_000)
    assert (0, 0) == history.bounds(31_000, 40_000)


def test_without_colours_the_area_is_filled_with_names():
    """What is piped can be read: a column for each span, users stacked, the oldest version below."""
    lines = picture(moved(), width=46, height=10, coloured=False).plain.splitlines()
    area = [line.partition("┤")[2] for line in lines[:10]]
    columns = ["".join(row[column] for row in reversed(area)) for column in range(40)]
    assert "1111111111" == columns[5]
    assert "1111111112" == columns[15]
    assert "2222222222" == columns[25]
    assert lines[0].startswith("  100┤")


def test_with_colours_every_version_has_its_own():
    """A boundary within a cell has both versions' colours."""
    console = Console(force_terminal=True, color_system="truecolor", width=60, legacy_windows=False)
    history = a_history((0, {"one": 50, "two": 50}), (10, {"one": 50, "two": 50}))
    with console.capture() as captured:
        console.print(picture(history, width=46, height=3))
    blue, green = "38;2;59;125;216", "38;2;47;166;111"
    rows = captured.get().splitlines()[:3]
    assert (green in rows[0], blue in rows[0]) == (True, False)
    assert (f"{blue};48;2;47;166;111m▄" in rows[1]) is True
    assert (green in rows[2], blue in rows[2]) == (False, True)


def test_what_happened_stands_under_it_in_order():
    """Steps in one line, verdicts in another; what would overlap is moved on."""
    history = a_history((0, {"one": 100}), (40, {"two": 100}))
    history.mark(10_000, "10 %", Tone.STEP)
    history.mark(10_500, "25 %", Tone.STEP)
    history.mark(39_000, "promoted", Tone.GOOD)
    lines = picture(history, width=46, height=4, coloured=False).plain.splitlines()
    assert " " * 16 + "10 % 25 %" == lines[6]
    assert lines[7].endswith("promoted")
    assert all(len(line) <= 46 for line in lines[:-1])


def test_more_users_than_asked_for_fit_in():
    """While users move some are on twice: the scale ends with the most there were."""
    history = a_history((0, {"one": 100}), (10, {"one": 100, "two": 10}), (20, {"two": 100}))
    lines = picture(history, width=46, height=11, coloured=False).plain.splitlines()
    assert ["     ┤", "  100┤"] == [line[:6] for line in lines[:2]]
    assert (20, 1) == (lines[0].count("2"), lines[1].count("2"))


def test_the_drawing_is_a_document_of_its_own():
    """An area for each version, every mark and line as text, nothing unescaped."""
    history = moved()
    history.mark(10_000, "10 %", Tone.STEP)
    history.mark(20_000, "promoted", Tone.GOOD)
    root = ElementTree.fromstring(drawing(history, title="1 < 2", lines=["a & b"]))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"1 < 2", "a & b", "10 %", "promoted", "version 1", "version 2"} <= set(texts)
    paths = [element.attrib["d"] for element in root.iter(f"{SVG}path")]
    assert 2 == len(paths)
    # 90 of 100 users at 10 s of 40 s: a quarter of the width, nine tenths of the height.
    assert "261.0 90.0" in paths[0]


def test_nothing_seen_is_drawn_as_nothing():
    """A run that never began has an empty picture, and no error."""
    empty = History()
    assert "100" not in picture(empty, width=46, coloured=False).plain
    assert [] == list(ElementTree.fromstring(drawing(empty, title="none")).iter(f"{SVG}path"))
