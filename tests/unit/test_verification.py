"""Whether an upload is the recording."""

from __future__ import annotations

import hashlib

import pytest

from livekit_backup.core.etags import multipart_etag
from livekit_backup.core.storage import UploadedPart
from livekit_backup.core.verification import check_parts, check_source
from livekit_backup.errors import CorruptError
from livekit_backup.models.references import Upload

MD5S = [hashlib.md5(body).digest() for body in (b"one", b"two")]


def _upload(**changes):
    values = {
        "size": 6,
        "announced_size": 6,
        "etag": multipart_etag(MD5S),
        "source_etag": "x",
        "source_etag_computed": "x",
    }
    return Upload(egress_id="EG_1", run=5, filename="a", landing_uri="s3://b/k", upload_id="u", **{**values, **changes})


def _parts(*sizes, md5s=MD5S, first=1):
    return [
        UploadedPart(first + index, size, md5.hex()) for index, (size, md5) in enumerate(zip(sizes, md5s, strict=False))
    ]


def test_everything_checked():
    checks = check_source(_upload(), 6)
    assert (checks.passed, checks.unverified) == (["length", "event_size", "source_etag"], [])


def test_what_cannot_be_checked_is_said():
    checks = check_source(_upload(source_etag_computed="", source_etag="weird"), None)
    assert checks.passed == ["length"]
    assert checks.unverified[0].startswith("event_size: ")
    assert "weird" in checks.unverified[1]
    assert "none sent" in check_source(_upload(source_etag_computed="", source_etag=""), 6).unverified[0]


@pytest.mark.parametrize(
    ("changes", "event_size", "text"),
    [
        ({"announced_size": 7}, 6, "6 bytes were read of 7 announced"),
        ({}, 7, "has 6 bytes, LiveKit's event says 7"),
        ({}, 0, "has 6 bytes, LiveKit's event says 0"),
        ({"source_etag_computed": "y"}, 6, "have ETag y, LiveKit's storage says x"),
        ({"source_etag_computed": "y", "source_etag": ""}, 6, "have ETag y"),
    ],
)
def test_what_differs(changes, event_size, text):
    with pytest.raises(CorruptError, match=text):
        check_source(_upload(**changes), event_size)


def test_parts_prove_the_bytes():
    assert check_parts(_upload(), _parts(3, 3)) is True


def test_etags_that_are_no_digests_prove_nothing():
    parts = [UploadedPart(1, 3, "not-an-md5"), UploadedPart(2, 3, MD5S[1].hex())]
    assert check_parts(_upload(), parts) is False


def test_other_md5s_prove_nothing():
    assert check_parts(_upload(), _parts(3, 3, md5s=MD5S[::-1])) is False


@pytest.mark.parametrize(
    "parts",
    [
        [],
        _parts(3),
        _parts(3, 4),
        _parts(3, 3, first=2),
        _parts(3, 3)[::-1],
        [*_parts(3), UploadedPart(3, 3, "x")],
    ],
    ids=["none", "one of two", "too long", "first missing", "wrong order", "gap"],
)
def test_missing_parts(parts):
    with pytest.raises(CorruptError, match="the warehouse holds"):
        check_parts(_upload(), parts)
