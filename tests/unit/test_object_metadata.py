"""What a landed object says of itself."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from livekit_backup.core.object_metadata import content_type, provenance
from livekit_backup.models.references import FileKind, RecordingFile


@pytest.mark.parametrize(
    ("filename", "kind"),
    [
        ("a.mp4", "video/mp4"),
        ("a.MP4", "video/mp4"),
        ("a.ogg", "audio/ogg"),
        ("a.mp3", "audio/mpeg"),
        ("a.webm", "video/webm"),
        ("a.ts", "video/mp2t"),
        ("a.m3u8", "application/x-mpegurl"),
        ("a.jpeg", "image/jpeg"),
        ("a.json", "application/json"),
        ("recording", "application/octet-stream"),
        ("a.", "application/octet-stream"),
        ("dir.mp4/recording", "application/octet-stream"),
        ("a.no-such-ending", "application/octet-stream"),
    ],
)
def test_content_types(filename, kind):
    assert content_type(filename) == kind


@pytest.mark.parametrize("filename", ["a", "mp4"])
def test_a_name_without_an_ending(filename):
    assert content_type(filename) == "application/octet-stream"


def test_provenance_is_short_ascii():
    file = RecordingFile(
        egress_id="EG_1",
        run=5,
        filename="ü" * 900,
        kind=FileKind.FILE,
        room_name="ö\n" * 900,
        started=datetime(2026, 1, 1, tzinfo=UTC),
    )
    metadata = provenance(file, datetime(2026, 11, 20, 1, 2, 3, tzinfo=UTC), "00ff")
    assert metadata["livekit-recovered-at"] == "2026-11-20T01:02:03Z"
    assert metadata["livekit-sha256"] == "00ff"
    assert "livekit-sha256" not in provenance(file, datetime(2026, 11, 20, tzinfo=UTC))
    assert all(value.isascii() and value.isprintable() for value in metadata.values())
    assert sum(len(key) + len(value) for key, value in metadata.items()) < 1400
