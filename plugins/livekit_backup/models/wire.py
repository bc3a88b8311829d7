"""How LiveKit writes values in JSON, and the base of every model that reads it.

Source: protojson (camelCase, int64 as strings, enums as names, defaults omitted),
Twirp JSON (snake_case, zero values printed) and Go's encoder in egress manifests.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, AliasGenerator, BaseModel, BeforeValidator, ConfigDict, FailFast, model_validator
from pydantic.alias_generators import to_camel

_Item = TypeVar("_Item")
_INT64 = range(-(2**63), 2**63)


def parse_int64(value: object) -> int:
    """Read an int64 written as a number or a string, in exponent form too; null and "" are 0.

    :raises ValueError: it is no number, not whole, or does not fit in 64 bits.
    """
    if value is None or value == "":
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not an int64")
    if isinstance(value, str) and len(value) > 40:
        raise ValueError("not an int64")
    try:
        number = Decimal(str(value).strip())
        # A huge exponent would make int() build a number of that many digits.
        if not number.is_finite() or number.adjusted() > 19:
            raise ValueError("does not fit in an int64")
        whole = int(number)
    except InvalidOperation:
        raise ValueError("not an int64") from None
    if whole != number or whole not in _INT64:
        raise ValueError("does not fit in an int64")
    return whole


def enum_name(names: tuple[str, ...]) -> Any:
    """Return a validator that turns an enum's number into its name and keeps unknown names as text."""

    def read(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError("not an enum value")
        text = str(value)
        if text.isdecimal() and len(text) < 4 and int(text) < len(names):
            return names[int(text)]
        return text

    return read


Int64 = Annotated[int, BeforeValidator(parse_int64)]
Listed = Annotated[tuple[_Item, ...], FailFast()]
"""A list, of which the first item that cannot be read ends the reading: there can be a million of them."""


def _hint(value: object) -> int:
    try:
        return parse_int64(value)
    except ValueError:
        return 0


HintInt64 = Annotated[int, BeforeValidator(_hint)]
"""An int64 that nothing depends on: what cannot be read as one is 0, and the document is none the worse for it."""


class FrozenModel(BaseModel):
    """A frozen value of our own making; fields of a newer version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class WireModel(BaseModel):
    """A frozen value as LiveKit sends it: either spelling of a name, null as absent, unknown fields ignored.

    Errors never show their input: it can hold signed URLs.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        populate_by_name=True,
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, to_camel(name))),
    )

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: _storable(value) for key, value in data.items() if value is not None}
        return data


def _storable(value: Any) -> Any:
    r"""JSON can hold half a surrogate pair, which no file can: it becomes its escape, as in ``\\ud800``."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
