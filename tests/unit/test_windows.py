"""Which window a run takes in, and which prefixes hold it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.windows import inbox_prefixes, is_closed, resolve_window
from livekit_backup.errors import ConfigurationError
from livekit_backup.models.window import Window

HOUR, GRACE = timedelta(hours=1), timedelta(minutes=5)
NOW = datetime(2026, 11, 20, 14, 20, tzinfo=UTC)
LAYOUT = "%Y/%m/%d/%H/"


def _at(hour, minute=0, day=20):
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def _resolve(**given):
    return resolve_window(
        **{
            "start": None,
            "end": None,
            "has_egress_ids": False,
            "interval": None,
            "partition_date": None,
            "run_after": NOW,
            "grace": GRACE,
            **given,
        }
    )


def _window(start, end):
    return Window(start=start, end=end)


EVERYTHING = {
    "start": _at(1),
    "end": _at(2),
    "has_egress_ids": True,
    "interval": (_at(3), _at(4)),
    "partition_date": _at(5),
}


@pytest.mark.parametrize(
    ("without", "window"),
    [
        ([], (_at(1), _at(2))),
        (["start"], (_at(2) - timedelta(days=7), _at(2))),
        (["start", "has_egress_ids"], (_at(1), _at(2))),
        (["end"], (_at(1), NOW - GRACE)),
        (["start", "end"], (NOW - GRACE - timedelta(days=7), NOW - GRACE)),
        (["start", "end", "has_egress_ids"], (_at(3), _at(4))),
        (["start", "end", "has_egress_ids", "interval"], (_at(5), _at(6))),
        (["start", "end", "has_egress_ids", "interval", "partition_date"], (NOW - GRACE - HOUR, NOW - GRACE)),
    ],
)
def test_what_counts_first(without, window):
    given = {key: value for key, value in EVERYTHING.items() if key not in without}
    assert _resolve(**given) == _window(*window)


def test_an_interval_of_no_length_is_none():
    assert _resolve(interval=(_at(3), _at(3))) == _resolve()
    assert _resolve(interval=(_at(3), _at(3)), partition_date=_at(5)) == _window(_at(5), _at(6))


def test_naive_params_are_utc_and_others_are_converted():
    assert _resolve(start=datetime(2026, 11, 20, 1), end=datetime(2026, 11, 20, 2)).start == _at(1)  # noqa: DTZ001
    east = timezone(timedelta(hours=5, minutes=30))
    window = _resolve(start=datetime(2026, 11, 20, 6, 30, tzinfo=east), end=_at(2))
    assert window.start == _at(1)
    assert window.start.utcoffset() == timedelta(0)


@pytest.mark.parametrize(("start", "end"), [(_at(2), _at(2)), (_at(3), _at(2)), (_at(23), None)])
def test_a_window_that_ends_before_it_starts(start, end):
    with pytest.raises(ConfigurationError, match="give a start before the end"):
        _resolve(start=start, end=end)


def test_closed_with_its_grace():
    window = _window(_at(13), _at(14))
    assert not is_closed(window, GRACE, _at(14, 4))
    assert is_closed(window, GRACE, _at(14, 5))
    assert is_closed(window, timedelta(0), _at(14))


def _prefixes(start, end, layout=LAYOUT, inbox="s3://b/in"):
    return list(inbox_prefixes(inbox, layout, _window(start, end)))


def test_whole_hours():
    assert _prefixes(_at(13), _at(15)) == ["s3://b/in/2026/11/20/13/", "s3://b/in/2026/11/20/14/"]


def test_half_hours_touch_both():
    assert _prefixes(_at(13, 30), _at(14, 30)) == ["s3://b/in/2026/11/20/13/", "s3://b/in/2026/11/20/14/"]
    assert _prefixes(_at(13, 59), _at(14)) == ["s3://b/in/2026/11/20/13/"]


def test_other_time_zones_are_utc_in_keys():
    india = timezone(timedelta(hours=5, minutes=30))
    start = datetime(2026, 11, 21, 1, 30, tzinfo=india)
    assert _prefixes(start, start + HOUR) == ["s3://b/in/2026/11/20/20/"]


def test_a_day_is_given_once():
    assert _prefixes(_at(0), _at(5, day=21), "dt=%Y-%m-%d/") == [
        "s3://b/in/dt=2026-11-20/",
        "s3://b/in/dt=2026-11-21/",
    ]


def test_the_second_is_not_the_twentieth():
    start = datetime(2026, 11, 2, 5, tzinfo=UTC)
    [prefix] = inbox_prefixes("s3://b/in", "%Y/%m/{}/".format("%-d"), _window(start, start + HOUR))
    assert prefix == "s3://b/in/2026/11/2/"
    assert not "s3://b/in/2026/11/20/14/x".startswith(prefix)


def test_a_layout_without_a_slash_is_a_beginning_of_names():
    assert _prefixes(_at(13), _at(14), "events-%Y-%m-%d-%H") == ["s3://b/in/events-2026-11-20-13"]


def test_a_bucket_without_a_prefix():
    assert _prefixes(_at(13), _at(14), inbox="s3://b") == ["s3://b/2026/11/20/13/"]
    assert _prefixes(_at(13), _at(14), "/%H/", inbox="s3://b") == ["s3://b/13/"]


@pytest.mark.parametrize("layout", ["", "/"])
def test_without_a_layout_the_whole_inbox_is_read(layout):
    assert _prefixes(_at(13), _at(15), layout) == ["s3://b/in/"]


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001
    st.integers(1, 100_000),
    st.integers(0, 10**9),
)
def test_every_moment_of_a_window_is_under_a_prefix(start, seconds, inside):
    start = start.replace(tzinfo=UTC)
    window = _window(start, start + timedelta(seconds=seconds))
    moment = start + timedelta(seconds=inside % seconds)
    prefixes = list(inbox_prefixes("s3://b/in", LAYOUT, window))
    assert f"s3://b/in/{moment.strftime(LAYOUT)}" in prefixes
    assert len(set(prefixes)) == len(prefixes) <= seconds // 3600 + 2


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, datetime(9999, 12, 31, tzinfo=UTC)),
        (_at(1), _at(1).replace(year=2126)),
        (_at(1).replace(year=2020), None),
    ],
)
def test_a_window_too_far_ahead_or_too_long_is_a_mistake(start, end):
    with pytest.raises(ConfigurationError, match="too far ahead or too long"):
        _resolve(start=start, end=end)
