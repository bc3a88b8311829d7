"""What tasks hand to each other survives JSON, and never holds a link."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import (
    AccountedFile,
    BackupRef,
    EventRef,
    FileKind,
    Intake,
    Plan,
    RecordingFile,
    UnreadableDocument,
    Upload,
)

EVENT = EventRef(uri="s3://b/k", position=3)
FILE = RecordingFile(
    egress_id="EG_1",
    run=5,
    filename="ü/a.mp4",
    kind=FileKind.FILE,
    started=datetime(2026, 1, 1, tzinfo=UTC),
    deadline=datetime(2026, 1, 8, tzinfo=UTC),
    events=(EVENT,),
)


@pytest.mark.parametrize(
    "value",
    [
        FILE,
        BackupRef(egress_id="EG_1", run=5, events=(EVENT,)),
        Upload(egress_id="EG_1", run=5, filename="a", landing_uri="s3://b/k", upload_id=None),
        Plan(to_recover=(FILE,), accounted=(AccountedFile(file=FILE, outcome=Outcome.EXPIRED, reason="r"),)),
        Intake(unreadable=(UnreadableDocument(uri="u", position=0, reason="r", may_be_backup=True),)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_round_trip(value):
    assert type(value).model_validate_json(value.model_dump_json()) == value
    assert type(value).model_validate(value.model_dump(mode="json")) == value


def test_times_are_aware():
    with pytest.raises(ValueError, match="timezone"):
        RecordingFile.model_validate({**FILE.model_dump(), "started": datetime(2026, 1, 1)})  # noqa: DTZ001


def test_nothing_is_named_like_a_link():
    for model in (RecordingFile, BackupRef, EventRef, Upload):
        assert not {"url", "location", "link"} & set(model.model_fields)
