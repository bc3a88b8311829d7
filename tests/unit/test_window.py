"""The window of a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.models.window import Window

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_closes_after_its_grace():
    assert Window(start=NOON, end=NOON + timedelta(hours=1)).closes_at(timedelta(minutes=5)) == datetime(
        2026, 11, 20, 13, 5, tzinfo=UTC
    )


@pytest.mark.parametrize("end", [NOON, NOON - timedelta(seconds=1)])
def test_ends_after_it_starts(end):
    with pytest.raises(ValueError, match="not before its end"):
        Window(start=NOON, end=end)


def test_is_aware():
    with pytest.raises(ValueError, match="timezone"):
        Window(start=NOON.replace(tzinfo=None), end=NOON)
