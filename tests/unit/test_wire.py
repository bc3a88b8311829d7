"""How LiveKit's values are read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.models.wire import FrozenModel, Int64, WireModel, enum_name, parse_int64

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(INT64)
def test_an_int64_as_number_string_or_exponent(value):
    digits = str(value)
    assert parse_int64(value) == parse_int64(digits) == parse_int64(f" {digits} ") == value
    assert parse_int64(f"{digits}e0") == parse_int64(f"{digits}.0") == value


@given(st.floats(-9e18, 9e18))
def test_a_whole_float_is_an_int64_within_its_precision(value):
    whole = float(int(value))
    assert math.isclose(parse_int64(whole), whole, rel_tol=1e-15)


@pytest.mark.parametrize(("value", "number"), [(None, 0), ("", 0), ("1.5e3", 1500), (1e3, 1000), ("-0", 0)])
def test_other_forms(value, number):
    assert parse_int64(value) == number


@pytest.mark.parametrize(
    "value",
    [
        True, [], {}, b"1", "one", "1.5", 0.5, "9223372036854775808", "-9223372036854775809", 1e19, 1e300,
        "1e999999999", "1e-999999999", "1" * 41, math.inf, -math.inf, math.nan, "nan", "Infinity", "0x10",
    ],
)  # fmt: skip
def test_what_is_no_int64(value):
    with pytest.raises(ValueError, match="int64"):
        parse_int64(value)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text):
    try:
        number = parse_int64(text)
    except ValueError:
        return
    assert -(2**63) <= number < 2**63


@pytest.mark.parametrize(
    ("value", "name"),
    [(0, "A"), ("1", "B"), ("B", "B"), (2, "2"), (-1, "-1"), ("NEW", "NEW"), ("9999999999", "9999999999")],
)
def test_enums(value, name):
    assert enum_name(("A", "B"))(value) == name


@pytest.mark.parametrize("value", [True, None, 1.0, []])
def test_what_is_no_enum(value):
    with pytest.raises(ValueError, match="enum"):
        enum_name(("A", "B"))(value)


class Wire(WireModel):
    room_name: str = "none"
    started_at: Int64 = 0


def test_both_spellings_null_as_absent_and_unknown_fields():
    assert Wire.model_validate({"roomName": "a", "started_at": "5", "more": 1}) == Wire(room_name="a", started_at=5)
    assert Wire.model_validate({"roomName": None, "startedAt": None}) == Wire()
    assert Wire.model_validate({"room_name": None, "roomName": "a"}).room_name == "a"


def test_errors_keep_their_input_to_themselves():
    with pytest.raises(ValueError, match="room") as caught:
        Wire.model_validate({"roomName": ["https://x/?X-Amz-Signature=secret"]})
    assert "secret" not in str(caught.value)


def test_our_own_models_ignore_a_newer_versions_fields_and_refuse_changes():
    class Own(FrozenModel):
        size: int = 0

    assert Own.model_validate({"size": 1, "more": 2}) == Own(size=1)
    with pytest.raises(ValueError, match="frozen"):
        Own().size = 1
