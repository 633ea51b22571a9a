"""Which row an iteration takes: from its numbers alone, whatever the partition of the places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api.tables import Table
from trafficsim_runner.draws import key_of, number_of
from trafficsim_runner.feeding import Rows, permuted
from trafficsim_runner.template import Words, in_header, in_path, render
from trafficsim_runner.users import User


def a_table(count: int) -> Table:
    """Build *count* rows whose only cell is their number."""
    return Table(("n",), tuple((str(n),) for n in range(count)))


def rows(count: int, mode: str, *, users: int, seed: int = 7, is_open: bool = False, name: str = "d") -> Rows:
    """Build the rows of a feeder in a worker."""
    made = Rows(a_table(count), name=name, mode=mode, seed=seed, is_open=is_open)
    made.users = users
    return made


def a_user(place: int, iteration: int = 0, *, key: int = 0) -> User:
    """Build a user in an iteration."""
    user = User()
    user.place, user.iteration, user.key = place, iteration, key
    return user


def taken(feeder: Rows, place: int, iteration: int) -> int:
    """Return the number of the row that a user takes."""
    row = feeder.of(a_user(place, iteration))
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("mode", "place", "iteration", "row"),
    [
        pytest.param("unique", 2, 0, 2, id="unique"),
        pytest.param("unique", 2, 9, 2, id="unique-always"),
        pytest.param("circular", 2, 0, 2, id="circular-first"),
        pytest.param("circular", 2, 1, 5, id="circular-second"),
        pytest.param("circular", 2, 3, 1, id="circular-around"),
    ],
)
def test_row_of_an_iteration(mode: str, place: int, iteration: int, row: int) -> None:
    """3 users, 10 rows: user 2 takes rows 2, 5, 8, 1, … in turn; with unique always row 2."""
    assert row == taken(rows(10, mode, users=3), place, iteration)


@given(count=st.integers(1, 300), key=st.integers(0, 2**64 - 1))
def test_a_permutation_takes_everything_once(count: int, key: int) -> None:
    """π is one to one, for every number of rows."""
    assert set(range(count)) == {permuted(number, count, key) for number in range(count)}


@given(
    count=st.integers(1, 60),
    users=st.integers(1, 40),
    seed=st.integers(0, 2**53),
    mode=st.sampled_from(["circular", "shuffled"]),
)
def test_each_pass_takes_each_row_once(count: int, users: int, seed: int, mode: str) -> None:
    """Turns t = p + k·T are all different; so each pass of n turns takes each of n rows once."""
    feeder = rows(count, mode, users=users, seed=seed)
    turns = [(place, iteration) for iteration in range(3 * count // users + 1) for place in range(users)]
    found = [taken(feeder, *turn) for turn in turns]
    for first in range(0, len(found) - count + 1, count):
        assert set(range(count)) == set(found[first : first + count])


@given(st.data())
def test_partitions_do_not_matter(data: st.DataObject) -> None:
    """On 1 and on 4 runners the same user takes the same row, and with unique none is taken twice."""
    users, mode = data.draw(st.integers(1, 40)), data.draw(st.sampled_from(["unique", "circular", "shuffled"]))
    count = data.draw(st.integers(users if mode == "unique" else 1, 80))
    together = rows(count, mode, users=users)
    apart = [rows(count, mode, users=users) for _ in range(4)]
    for iteration in range(3):
        found = []
        for place in range(users):
            found.append(taken(data.draw(st.sampled_from(apart)), place, iteration))
            assert taken(together, place, iteration) == found[-1]
        if mode == "unique" or (users <= count and iteration == 0):
            assert len(set(found)) == users


def test_passes_and_feeders_and_seeds_are_shuffled_anew() -> None:
    """Each pass has an order of its own, and so has each feeder and each seed."""
    orders = [
        tuple(taken(rows(50, "shuffled", users=50, seed=seed, name=name), place, turn) for place in range(50))
        for seed, name, turn in [(1, "a", 0), (1, "a", 1), (1, "b", 0), (2, "a", 0)]
    ]
    assert len(set(orders)) == 4
    assert tuple(range(50)) not in orders


@given(seed=st.integers(0, 2**53), number=st.integers(0, 2**62))
def test_a_key_tells_its_number(seed: int, number: int) -> None:
    """number_of is the inverse of key_of."""
    assert number == number_of(seed, key_of(seed, number))


@pytest.mark.parametrize(("mode", "row"), [("circular", "3"), ("unique", "4")])
def test_open_model(mode: str, row: str) -> None:
    """Arrival 13 takes row 13 mod 10, whoever it is that works; with unique the user's own, which nobody else has."""
    user = a_user(4, 1, key=key_of(7, 13))
    assert (row,) == rows(10, mode, users=9, is_open=True).of(user)


def test_a_row_that_is_not_there() -> None:
    """A place beyond the rows has none: the action is dropped, never somebody else's row sent."""
    assert rows(3, "unique", users=5).of(a_user(3)) is None


def test_a_cell_is_encoded_for_where_it_stands() -> None:
    """As every value: escaped in JSON, percent-encoded in a path; what cannot stand in a header drops the action."""
    table = Table(("word", "break"), (('a "b" ü', "x\r\ny"),))
    found = {"d": Rows(table, name="d", mode="circular", seed=0, is_open=False)}
    words = Words("reader", {}, found)
    user = a_user(0)
    assert b"/a%20%22b%22%20%C3%BC" == render(words.split("/{{data.d.word}}", in_path), user)
    assert b'["a \\"b\\" \xc3\xbc"]' == render(words.json(["{{ data.d.word }}"]), user)
    assert render(words.split("{{data.d.break}}", in_header), user) is None
    with pytest.raises(ValueError, match="there is no column nix, only word, break"):
        words.split("{{data.d.nix}}", in_path)
