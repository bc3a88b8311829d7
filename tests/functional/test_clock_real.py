"""A worker whose clock is off, against a real S3 server whose clock is right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from livekit_backup.core.statements import is_safe
from livekit_backup.errors import StorageUnavailableError
from livekit_backup.testing import FakeLiveKit

from .recovery_pipeline import MIB, Pipeline, Place


def _off_by(minutes: int) -> time_machine.travel:
    return time_machine.travel(datetime.now(UTC) + timedelta(minutes=minutes), tick=True)


@pytest.mark.parametrize("minutes", [10, -10])
def test_ten_minutes_change_nothing(any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, minutes: int) -> None:
    recordings = [livekit.record_file(f"{size}.mp4", size=size) for size in (MIB, 12 * MIB)]
    for recording in recordings:
        any_pipeline.store_event(recording.event())
    with _off_by(minutes):
        statement = any_pipeline.run()
    assert is_safe(statement)
    assert [line.outcome.value for line in statement.lines] == ["landed"] * 2
    for line in statement.lines:
        assert place.sha256(line.landed_uri) == next(
            recording.sha256(line.filename) for recording in recordings if line.filename in recording.files
        )
    assert not place.open_uploads()


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
def test_what_is_too_far_off_says_so_and_is_tried_again(any_pipeline: Pipeline) -> None:
    with _off_by(40), pytest.raises(StorageUnavailableError, match="this machine's clock and the store's differ"):
        any_pipeline.store.put(f"s3://{any_pipeline.settings.warehouse[5:]}/x", b"x")
