"""What every piece of the contract has in common: the frozen model, the small types, and how a rule names its field."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

__all__ = ["PRESERVE", "Json", "Model", "Name", "Scalar", "StringMap", "Text", "as_text", "exactly_one", "fault"]

PRESERVE: Final = {"x-kubernetes-preserve-unknown-fields": True}
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_./:-]*$"


class Model(BaseModel):
    """A frozen piece of the contract: camelCase outside, unknown fields refused, no silent conversions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        strict=True,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )


def fault(field: str, reason: str) -> PydanticCustomError:
    """Return the error of a rule that is broken in *field*, a path relative to the model that says so ("": itself)."""
    return PydanticCustomError("fault", "{reason}", {"field": field, "reason": reason})


def exactly_one(model: BaseModel, names: tuple[str, ...], what: str) -> None:
    """Raise a fault unless exactly one of the fields *names* is given."""
    given = [to_camel(name.rstrip("_")) for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        raise fault("", f"{what} is needed" + (f", not {' and '.join(given)} together" if given else ""))


def as_text(value: object) -> object:
    """Take a whole number where a string is meant: `page: 2` is what people write."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, StringConstraints(max_length=2048)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=NAME)]
Scalar = Annotated[
    str,
    BeforeValidator(as_text),
    StringConstraints(max_length=2048),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 2048}),
]
StringMap = Annotated[dict[str, Scalar], Field(max_length=64)]
# A JSON value of the user's; the CRD keeps it as it stands, depth and size are bounded by the document.
Json = Annotated[Any, WithJsonSchema(PRESERVE)]
