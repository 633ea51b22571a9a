"""The statistics format: nothing is lost on the wire, and merging is addition."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trafficsim_api import layout as layouts
from trafficsim_api import statistics
from trafficsim_api.layout import ACTION_COUNTERS, BUCKETS, EXTREMES, WORKER_COUNTERS, Layout
from trafficsim_api.statistics import Answer, Window, merge_extremes, sparse, zeros

LAYOUT = Layout(actions=(("login", "auth"), ("GET /", "user")))


def a_vector(seed, layout=LAYOUT, filled=200):
    draw = np.random.default_rng(seed)
    vector = zeros(layout)
    vector[draw.integers(0, layout.size, filled)] = draw.integers(1, 2**40, filled).astype("<u8")
    return vector


def a_window(seed, sequence=1, **given):
    indices, counts = sparse(a_vector(seed, filled=30))
    fixed = {
        "sequence": sequence, "start_ms": 1000, "end_ms": 2000, "wall_ms": 1_700_000_000_000, "epoch": 3, "active": 5,
        "wanted": 6, "busiest_permille": 420, "core_permille": 310, "waited_percent": 13, "pod_permille": 210,
        "warm": True, "indices": indices, "counts": counts,
    }  # fmt: skip
    return Window(**{**fixed, **given})


def an_answer(**given):
    fixed = {
        "runner": "uid-1", "boot": "b1", "run": 2, "layout": LAYOUT, "sequence": 9, "first": 7, "total": a_vector(1),
        "warmup": a_vector(2, filled=10), "extremes": tuple(range(LAYOUT.extremes)),
        "windows": (a_window(3, 8), a_window(4, 9, warm=False)), "gauges": {"memory": 12, "workers": 2},
    }  # fmt: skip
    return Answer(**{**fixed, **given})


def fields_of(answer):
    """Return everything in *answer* as plain values."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name in Answer.__slots__
        if name != "windows"
        for value in [getattr(answer, name)]
    } | {
        "windows": [
            {n: v.tolist() if isinstance(v, np.ndarray) else v for n in Window.__slots__ for v in [getattr(w, n)]}
            for w in answer.windows
        ]
    }


@given(
    seeds=st.lists(st.integers(0, 10**6), max_size=4),
    gauges=st.dictionaries(st.text(max_size=5), st.integers(0, 2**50)),
)
def test_what_is_encoded_is_decoded(seeds, gauges):
    """A round trip changes nothing."""
    answer = an_answer(windows=tuple(a_window(seed, n) for n, seed in enumerate(seeds)), gauges=gauges)
    assert fields_of(answer) == fields_of(Answer.decode(answer.encode()))


def test_counters_up_to_64_bits_survive():
    vector = zeros(LAYOUT)
    vector[0] = 2**64 - 1
    assert 2**64 - 1 == int(Answer.decode(an_answer(total=vector).encode()).total[0])


def test_a_cut_answer_is_refused():
    """An answer that ends early is no answer, wherever it was cut."""
    data = an_answer().encode()
    for length in [*range(200), *range(200, len(data), 97)]:
        with pytest.raises(ValueError):  # noqa: PT011 - the words depend on where the cut falls
            Answer.decode(data[:length])


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 - the words depend on the bytes
        Answer.decode(data)


@given(at=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_flipped_byte_is_refused_or_read(at, byte):
    """Damage gives an answer or a ValueError, nothing else."""
    data = bytearray(an_answer().encode())
    data[at % len(data)] = byte
    try:
        Answer.decode(bytes(data))
    except ValueError:
        return


def with_head(**changes):
    data = an_answer().encode()
    (length,) = struct.unpack_from("<I", data)
    head = json.dumps({**json.loads(data[4 : 4 + length]), **changes}).encode()
    return struct.pack("<I", len(head)) + head + data[4 + length :]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "statistics format 2 is not 1"),
        ({"layout": "0123456789abcdef"}, "layout 0123456789abcdef of the runner is not ours"),
        ({"actions": [["login", "auth"]]}, "is not ours"),
        ({"actions": 5}, "not a statistics answer"),
        ({"windows": 5}, "not a statistics answer"),
        ({"windows": float("inf")}, "not a statistics answer"),
    ],
)
def test_another_format_or_layout_is_refused(changes, reason):
    """Vectors are added only when every index means the same."""
    with pytest.raises(ValueError, match=reason):
        Answer.decode(with_head(**changes))


def test_layout_ids_tell_meanings_apart():
    """The id follows from the actions, their order and their groups."""
    others = [(("GET /", "user"), ("login", "auth")), (("login", "user"), ("GET /", "user")), (("login", "auth"),)]
    assert 4 == len({LAYOUT.id, *(Layout(actions=actions).id for actions in others)})
    assert LAYOUT.id == Layout(actions=LAYOUT.actions).id


def test_layout_is_final(golden):
    """The wire format: order and meaning of the counters. Append only; a new meaning is a new FORMAT."""
    lines = [
        f"format {layouts.FORMAT}", f"buckets {BUCKETS}", f"layout {LAYOUT.id} size {LAYOUT.size}",
        *(f"worker {index} {name}" for index, name in enumerate(WORKER_COUNTERS)),
        *(f"action {index} {name}" for index, name in enumerate(ACTION_COUNTERS)),
        *(f"extreme {index} {name}" for index, name in enumerate(EXTREMES)),
    ]  # fmt: skip
    golden("layout.txt", "\n".join(lines) + "\n")


def test_no_two_counters_share_an_index():
    """Worker counters, lag, and each action's counters and histograms fill the vector without gap or overlap."""
    taken = [LAYOUT.worker(name) for name in WORKER_COUNTERS] + [LAYOUT.lag() + b for b in range(BUCKETS)]
    for action in range(len(LAYOUT.actions)):
        taken += [LAYOUT.action(action, name) for name in ACTION_COUNTERS]
        taken += [start(action) + b for start in (LAYOUT.service, LAYOUT.response) for b in range(BUCKETS)]
    assert list(range(LAYOUT.size)) == sorted(taken)


@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=6), cut=st.integers(0, 6))
def test_merging_is_addition_whatever_the_partition(seeds, cut):
    """The sum over runners is the same however the parts are grouped, for counters and for histograms."""
    vectors = [a_vector(seed) for seed in seeds]
    whole = np.sum(vectors, axis=0, dtype="<u8")
    grouped = sum(vectors[cut:], zeros(LAYOUT)) + sum(vectors[:cut], zeros(LAYOUT))
    assert (whole == grouped).all()
    assert sum(statistics.total(LAYOUT, v, "done") for v in vectors) == statistics.total(LAYOUT, whole, "done")
    assert (sum(statistics.histogram(LAYOUT, v) for v in vectors) == statistics.histogram(LAYOUT, whole)).all()
    assert (sum(statistics.lag_histogram(LAYOUT, v) for v in vectors) == statistics.lag_histogram(LAYOUT, whole)).all()


@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=6))
def test_windows_add_up_to_the_total(seeds):
    """Cumulative snapshots, their sparse differences added again: the last snapshot."""
    snapshots = np.cumsum([a_vector(seed, filled=50) for seed in seeds], axis=0, dtype="<u8")
    rebuilt, last = zeros(LAYOUT), zeros(LAYOUT)
    for snapshot in snapshots:
        indices, counts = sparse(snapshot - last)
        a_window(0, indices=indices, counts=counts).add_to(rebuilt)
        last = snapshot
    assert (rebuilt == snapshots[-1]).all()


def test_counters_by_action():
    vector = zeros(LAYOUT)
    vector[LAYOUT.action(0, "done")], vector[LAYOUT.action(1, "done")] = 3, 4
    vector[LAYOUT.response(1) + 7] = 2
    vector[LAYOUT.service(1) + 8] = 5
    assert (3, 4, 7) == (
        statistics.action_counter(LAYOUT, vector, 0, "done"),
        statistics.action_counter(LAYOUT, vector, 1, "done"),
        statistics.total(LAYOUT, vector, "done"),
    )
    assert 2 == statistics.histogram(LAYOUT, vector)[7] == statistics.histogram(LAYOUT, vector, action=1)[7]
    assert 5 == statistics.histogram(LAYOUT, vector, "service")[8]
    assert 0 == statistics.histogram(LAYOUT, vector, action=0).sum()


@pytest.mark.parametrize(
    ("left", "right", "merged"),
    [
        ((3, 9, 1, 2), (5, 11, 4, 1), (3, 11, 1, 2)),
        ((0, 0, 1, 2), (5, 11, 0, 0), (5, 11, 1, 2)),
        ((0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)),
    ],
    ids=["both measured", "one measured", "none measured"],
)
def test_extremes_merge_by_min_and_max(left, right, merged):
    """A minimum of 0 means that nothing was measured."""
    assert merged == merge_extremes(left, right) == merge_extremes(right, left)


def test_a_layout_without_actions():
    """A load whose flows have no request yet has only worker counters."""
    layout = Layout(actions=())
    assert (0, 0) == (statistics.total(layout, zeros(layout), "done"), layout.extremes)
