"""
Which row of test data an iteration takes: from its numbers alone, so that no runner knows of another.

    turn t = p + k·T                 user p in its k-th iteration, T users; open model: the number of the arrival
    unique     row p                 the place of the user who is at work, in the open model as well
    circular   row t mod n
    shuffled   row π(t mod n)        π a permutation drawn from (seed, name, pass ⌊t ÷ n⌋)

π is a Feistel network of four rounds over the smallest even number of bits that holds n, walked along its cycle until
it lands below n (Black and Rogaway, Ciphers with arbitrary finite domains): no runner needs a shuffled list.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trafficsim_api.protocol import Load
from trafficsim_api.tables import Table
from trafficsim_runner.draws import draw, key_of, number_of

if TYPE_CHECKING:
    from trafficsim_runner.users import User

__all__ = ["Rows", "modes_of", "permuted", "read_rows"]

_ROUNDS: Final = 4


def permuted(number: int, size: int, key: int) -> int:
    """Return where the permutation of 0 … *size* - 1 that *key* stands for takes *number*."""
    half = (max(1, (size - 1).bit_length()) + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = number >> half, number & mask
        for turn in range(_ROUNDS):
            left, right = right, left ^ (draw(key ^ right, turn) & mask)
        number = left << half | right
        if number < size:
            return number


def read_rows(load: Load, files: Mapping[str, str], before: Mapping[str, Rows]) -> Mapping[str, Rows]:
    """Return the rows of each feeder of *load*, which stand in *files*; those read *before* are not read again."""
    known = {rows.file: rows.table for rows in before.values()}
    found: dict[str, Rows] = {}
    for feed in load.data or ():
        file = files[feed.name]
        table = known[file] = known.get(file) or Table.read(Path(file).read_bytes())
        found[feed.name] = Rows(
            table, name=feed.name, mode=feed.mode, seed=load.seed, is_open=load.arrivals is not None, file=file
        )  # fmt: skip
    return found


def modes_of(load: Load) -> dict[str, str]:
    """Return how the rows of each feeder of *load* are taken."""
    return {feed.name: feed.mode for feed in load.data or ()}


class Rows:
    """
    The rows of one feeder in one worker, and which of them a user has now.

    *users* is T and changes with an edit; the program's lookups hold on to this object. *file* is where *table* stands.
    """

    __slots__ = (
        "_index", "_is_open", "_key", "_mode", "_pass", "_pass_key", "_seed", "_turn", "file", "table", "users",
    )  # fmt: skip

    def __init__(
        self, table: Table, *, name: str, mode: str, seed: int, is_open: bool, users: int = 1, file: str = ""
    ) -> None:
        self.file = file
        self.table = table
        self.users = users
        self._mode = mode
        self._is_open = is_open
        self._seed = seed
        self._key = key_of(seed, int.from_bytes(sha256(name.encode()).digest()[:8], "big"))
        self._pass = self._turn = -1
        self._pass_key = self._index = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return self.table.columns

    def of(self, user: User) -> tuple[str, ...] | None:
        """Return the row of *user* in its present iteration; None when there is none for it."""
        rows = self.table.rows
        if self._mode == "unique":
            return rows[user.place] if user.place < len(rows) else None
        turn = number_of(self._seed, user.key) if self._is_open else user.place + user.iteration * self.users
        if self._mode == "circular":
            return rows[turn % len(rows)]
        if turn != self._turn:  # the columns of one row are looked up one after the other
            self._turn = turn
            self._index = self._shuffled(turn)
        return rows[self._index]

    def _shuffled(self, turn: int) -> int:
        size = len(self.table.rows)
        number, at = divmod(turn, size)
        if number != self._pass:
            self._pass, self._pass_key = number, key_of(self._key, number)
        return permuted(at, size, self._pass_key)
