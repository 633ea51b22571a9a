"""
Units as a user writes them and as we compute with them.

| written | type | computed in |
|---|---|---|
| `500ms`, `30s`, `2m`, `1h30m` | duration | timedelta (whole milliseconds) |
| `100%`, `0.5%` | percentage | hundredths of a percent (100 % = 10 000), an integer |
| `2`, `"200m"` | CPU quantity | millicores, an integer |
| `1Gi`, `256Mi`, `500M` | memory quantity | bytes, an integer |
| `300/s`, `0.5/s`, `90/m`, `10/h` | rate | thousandths an hour, an integer |

No floats: what is written is what is stored, and 1-in-10 000 is the finest share.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

__all__ = [
    "CPU",
    "FULL",
    "Duration",
    "Memory",
    "Percentage",
    "Rate",
    "format_duration",
    "format_instant",
    "format_percentage",
    "format_rate",
    "milliseconds",
    "parse_cpu",
    "parse_duration",
    "parse_instant",
    "parse_memory",
    "parse_percentage",
    "parse_rate",
]

FULL: Final = 10_000

_DURATION: Final = r"^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$"
_PERCENTAGE: Final = r"^[0-9]{1,5}(\.[0-9]{1,2})?%$"
_CPU: Final = r"^([0-9]{1,6}m|[0-9]{1,4}(\.[0-9]{1,3})?)$"
_MEMORY: Final = r"^[0-9]{1,15}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$"

_RATE: Final = r"^[0-9]{1,7}(\.[0-9]{1,3})?/(s|m|h)$"
_PER_HOUR: Final = {"s": 3600, "m": 60, "h": 1}
_MOST_RATE: Final = 1_000_000 * 3600 * 1000

_MEMORY_UNITS: Final = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


def parse_duration(text: object) -> timedelta:
    """Return the duration written as *text*: `30s`, `1h30m`, `250ms`; raise ValueError for anything else."""
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(_DURATION, text) if isinstance(text, str) and text else None
    if match is None:
        raise ValueError(
            "a duration such as 500ms, 30s, 2m or 1h30m is needed: whole numbers of h, m, s, ms, in this order"
        )
    hours, minutes, seconds, millis = (int(part.rstrip("hms")) if part else 0 for part in match.groups())
    total = ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis
    if total > 366 * 24 * 3_600_000:
        raise ValueError("a duration of at most 366 days is needed")
    return timedelta(milliseconds=total)


def milliseconds(duration: timedelta) -> int:
    """Return *duration* in whole milliseconds, exactly."""
    return (duration.days * 86_400 + duration.seconds) * 1000 + duration.microseconds // 1000


def format_duration(duration: timedelta) -> str:
    """Return *duration* as a user writes it: 90 s → `1m30s`."""
    rest = milliseconds(duration)
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_instant(ms: int) -> str:
    """Return *ms* since the Unix epoch as RFC 3339 in UTC with milliseconds."""
    return (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def parse_instant(text: str) -> int:
    """Return an RFC 3339 instant as ms since the Unix epoch; raise ValueError for anything else."""
    return milliseconds(datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC))


def parse_percentage(text: object) -> int:
    """Return the percentage written as *text* in hundredths of a percent: `2.5%` → 250."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if not isinstance(text, str) or not re.fullmatch(_PERCENTAGE, text):
        raise ValueError("a percentage such as 5% or 0.5% is needed")
    whole, _, part = text.rstrip("%").partition(".")
    return int(whole) * 100 + int((part + "00")[:2])


def format_percentage(hundredths: int) -> str:
    """Return *hundredths* of a percent as a user writes it: 250 → `2.5%`."""
    whole, part = divmod(hundredths, 100)
    return f"{whole}.{part:02d}".rstrip("0").rstrip(".") + "%" if part else f"{whole}%"


def parse_cpu(text: object) -> int:
    """Return a CPU quantity in millicores: `2` → 2000, `200m` → 200, `0.5` → 500."""
    if isinstance(text, float):
        raise ValueError(f'a CPU quantity with a fraction must be put in quotes: "{text}"')
    written = str(text) if isinstance(text, (int, str)) and not isinstance(text, bool) else ""
    if not re.fullmatch(_CPU, written):
        raise ValueError("a CPU quantity such as 2, 0.5 or 200m is needed")
    if written.endswith("m"):
        return int(written[:-1])
    whole, _, part = written.partition(".")
    return int(whole) * 1000 + int((part + "000")[:3])


def parse_memory(text: object) -> int:
    """Return a memory quantity in bytes: `1Gi` → 1 073 741 824."""
    written = str(text) if isinstance(text, (int, str)) and not isinstance(text, bool) else ""
    if not re.fullmatch(_MEMORY, written):
        raise ValueError("a memory quantity such as 256Mi or 1Gi is needed")
    number = written.rstrip("KMGTikm")
    unit = _MEMORY_UNITS[written[len(number) :]]
    whole, _, part = number.partition(".")
    return int(whole) * unit + (int((part + "000")[:3]) * unit) // 1000


def parse_rate(text: object) -> int:
    """Return a rate in thousandths an hour: `300/s` → 1 080 000 000; at most 10⁶/s."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if not isinstance(text, str) or not re.fullmatch(_RATE, text):
        raise ValueError("a rate such as 300/s, 0.5/s or 90/m is needed")
    number, _, unit = text.partition("/")
    whole, _, part = number.partition(".")
    rate = (int(whole) * 1000 + int((part + "000")[:3])) * _PER_HOUR[unit]
    if not 0 < rate <= _MOST_RATE:
        raise ValueError("a rate above 0 and of at most 1000000/s is needed")
    return rate


def format_rate(rate: int) -> str:
    """Return *rate*, in thousandths an hour, as a user writes it, in the largest unit that shows it exactly."""
    unit = next(name for name, size in _PER_HOUR.items() if rate % size == 0)
    whole, part = divmod(rate // _PER_HOUR[unit], 1000)
    return (f"{whole}.{part:03d}".rstrip("0") if part else str(whole)) + f"/{unit}"


def _format_cpu(millicores: int) -> str:
    return f"{millicores}m" if millicores % 1000 else str(millicores // 1000)


def _format_memory(size: int) -> str:
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        if size and size % _MEMORY_UNITS[unit] == 0:
            return f"{size // _MEMORY_UNITS[unit]}{unit}"
    return str(size)


def _int_or_string(pattern: str, example: str) -> dict[str, Any]:
    return {"x-kubernetes-int-or-string": True, "pattern": pattern, "maxLength": 32, "example": example}


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION, "minLength": 2, "maxLength": 32, "example": "30s"}),
]


def _percentage(written: object, info: ValidationInfo) -> int:
    # Subtle: in a document 50 is what someone wrote who meant 50 %; only our own code speaks in hundredths.
    return parse_percentage(str(written) if info.mode == "json" else written)


Percentage = Annotated[
    int,
    BeforeValidator(_percentage),
    PlainSerializer(format_percentage, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _PERCENTAGE, "maxLength": 16, "example": "100%"}),
]


def _rate(written: object, info: ValidationInfo) -> int:
    # Subtle: as with percentages, a number without its unit says nothing in a document.
    return parse_rate(str(written) if info.mode == "json" else written)


Rate = Annotated[
    int,
    BeforeValidator(_rate),
    PlainSerializer(format_rate, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _RATE, "maxLength": 16, "example": "300/s"}),
]
CPU = Annotated[
    int,
    BeforeValidator(parse_cpu),
    PlainSerializer(_format_cpu, return_type=str),
    WithJsonSchema(_int_or_string(_CPU, "2")),
]
Memory = Annotated[
    int,
    BeforeValidator(parse_memory),
    PlainSerializer(_format_memory, return_type=str),
    WithJsonSchema(_int_or_string(_MEMORY, "1Gi")),
]
