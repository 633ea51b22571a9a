"""Units: what is written is what is meant, exactly, and written back the same."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from trafficsim_api.units import (
    CPU,
    Duration,
    Memory,
    Percentage,
    format_duration,
    format_instant,
    format_percentage,
    milliseconds,
    parse_cpu,
    parse_duration,
    parse_instant,
    parse_memory,
    parse_percentage,
)


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("0s", 0),
        ("500ms", 500),
        ("30s", 30_000),
        ("90s", 90_000),
        ("2m", 120_000),
        ("1h30m", 5_400_000),
        ("1h1m1s1ms", 3_661_001),
        ("8784h", 366 * 86_400_000),
    ],
)
def test_durations(written, ms):
    """Hours, minutes, seconds and milliseconds, in that order, each at most once."""
    assert ms == milliseconds(parse_duration(written))


@pytest.mark.parametrize(
    "written",
    [
        "",
        "5",
        5,
        5.0,
        None,
        True,
        "-5s",
        "5 s",
        "1.5s",
        "s",
        "1s1m",
        "5d",
        "5s\n",
        "५s",
        "8785h",
        "9" * 10 + "s",
        [],
        {},
    ],
    ids=repr,
)
def test_what_is_no_duration(written):
    with pytest.raises(ValueError, match="a duration"):
        parse_duration(written)


@pytest.mark.parametrize("written", ["1d", "1.5s", "500us", "30m1h", "30"])
def test_a_wrong_duration_is_told_the_units(written: str) -> None:
    """Which units there are, that numbers are whole, and which comes first."""
    with pytest.raises(ValueError, match="is needed: whole numbers of h, m, s, ms, in this order"):
        parse_duration(written)


@given(ms=st.integers(0, 366 * 86_400_000))
def test_durations_are_written_back(ms):
    """Formatting and parsing lose nothing, and 90 s is 1m30s."""
    assert timedelta(milliseconds=ms) == parse_duration(format_duration(timedelta(milliseconds=ms)))


@pytest.mark.parametrize(("ms", "written"), [(0, "0s"), (90_000, "1m30s"), (3_600_000, "1h"), (1500, "1s500ms")])
def test_durations_as_a_user_writes_them(ms, written):
    assert written == format_duration(timedelta(milliseconds=ms))


@pytest.mark.parametrize(
    ("written", "hundredths"),
    [("0%", 0), ("0.5%", 50), ("2.5%", 250), ("0.01%", 1), ("100%", 10_000), ("99999%", 9_999_900)],
)
def test_percentages(written, hundredths):
    """Hundredths of a percent, an integer."""
    assert hundredths == parse_percentage(written)


@pytest.mark.parametrize(
    "written", ["", "50", "%", "-5%", "5 %", "1.234%", ".5%", "5%\n", 0.5, None, True, []], ids=repr
)
def test_what_is_no_percentage(written):
    with pytest.raises(ValueError, match="a percentage"):
        parse_percentage(written)


@given(hundredths=st.integers(0, 9_999_999))
def test_percentages_are_written_back(hundredths):
    assert hundredths == parse_percentage(format_percentage(hundredths))


def test_a_bare_number_in_a_document_is_no_percentage():
    """Who writes 50 means 50 %, not half a percent."""
    adapter = TypeAdapter(Percentage)
    assert 5000 == adapter.validate_json('"50%"', strict=True)
    with pytest.raises(ValidationError, match="a percentage such as"):
        adapter.validate_json("50", strict=True)


@pytest.mark.parametrize(
    ("written", "millicores"),
    [(2, 2000), ("2", 2000), ("200m", 200), ("0.5", 500), ("1.25", 1250), ("0.001", 1), (0, 0)],
)
def test_cpu(written, millicores):
    """Cores or millicores, as Kubernetes writes them."""
    assert millicores == parse_cpu(written)


@pytest.mark.parametrize("written", ["", "2 cores", "-1", -1, 0.5, "0.0001", True, None, "1e3", "2\n", []], ids=repr)
def test_what_is_no_cpu(written):
    with pytest.raises(ValueError, match="a CPU quantity"):
        parse_cpu(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (1024, 1024),
        ("1Ki", 1024),
        ("256Mi", 268_435_456),
        ("1Gi", 1_073_741_824),
        ("1.5Gi", 1_610_612_736),
        ("1Ti", 2**40),
        ("500k", 500_000),
        ("500M", 500_000_000),
        ("2G", 2_000_000_000),
        ("1T", 10**12),
    ],
)
def test_memory(written, size):
    """Bytes, binary or decimal, as Kubernetes writes them."""
    assert size == parse_memory(written)


@pytest.mark.parametrize("written", ["", "1GB", "1gi", "-1", "1 Gi", 1.5, None, False, "Gi", "1Gi\n"], ids=repr)
def test_what_is_no_memory(written):
    with pytest.raises(ValueError, match="a memory quantity"):
        parse_memory(written)


@given(millicores=st.integers(0, 9_999_999), size=st.integers(0, 10**14))
def test_quantities_are_written_back(millicores, size):
    """A quantity that is serialised and read again is the same."""
    cpu, memory = TypeAdapter(CPU), TypeAdapter(Memory)
    if millicores < 1_000_000:
        assert millicores == parse_cpu(cpu.dump_python(millicores, mode="json"))
    assert size == parse_memory(memory.dump_python(size, mode="json"))


@given(ms=st.integers(0, 366 * 86_400_000))
def test_models_write_durations_as_text(ms):
    assert f'"{format_duration(timedelta(milliseconds=ms))}"'.encode() == TypeAdapter(Duration).dump_json(
        timedelta(milliseconds=ms)
    )


@given(ms=st.integers(0, 4_102_444_800_000))
def test_instants_are_written_back(ms):
    """RFC 3339 in UTC with milliseconds."""
    written = format_instant(ms)
    assert (24, "Z") == (len(written), written[-1])
    assert ms == parse_instant(written)
    assert datetime.fromisoformat(written).tzinfo == UTC


@given(text=st.text(max_size=12))
def test_any_text_is_a_unit_or_a_value_error(text):
    for parse in (parse_duration, parse_percentage, parse_cpu, parse_memory):
        try:
            parse(text)
        except ValueError:
            continue
