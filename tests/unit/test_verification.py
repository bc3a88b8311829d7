"""Whether an upload is the recording."""

from __future__ import annotations

import hashlib

import pytest

from livekit_backup.core.etags import multipart_etag
from livekit_backup.core.storage import ObjectHead, UploadedPart
from livekit_backup.core.verification import Checks, check_landed, check_parts, check_source, contradicts_source
from livekit_backup.errors import CorruptError, RetryableError, StorageUnavailableError, UploadLostError
from livekit_backup.models.references import Upload
from unit.fakes import abilities

MD5S = [hashlib.md5(body).digest() for body in (b"one", b"two")]
ETAG = multipart_etag(MD5S)
OTHER = multipart_etag(MD5S[::-1])


def _upload(**changes):
    values = {
        "size": 6,
        "part_size": 3,
        "announced_size": 6,
        "etag": ETAG,
        "source_etag": ETAG,
        "source_etag_by_warehouse": ETAG,
        "source_etag_is_certain": True,
    }
    return Upload(egress_id="EG_1", run=5, filename="a", landing_uri="s3://b/k", upload_id="u", **{**values, **changes})


def _parts(*sizes, md5s=MD5S, first=1):
    return [
        UploadedPart(first + index, size, md5.hex()) for index, (size, md5) in enumerate(zip(sizes, md5s, strict=False))
    ]


@pytest.mark.parametrize(
    "etags",
    [{}, {"computed_etags": (ETAG,), "source_etag_by_warehouse": ""}, {"computed_etags": (OTHER,)}],
    ids=["by the warehouse", "computed", "one of two readings"],
)
def test_everything_checked(etags):
    checks = check_source(_upload(**etags), 6)
    assert (checks.passed, checks.unverified) == (["length", "event_size", "source_etag"], [])


def test_what_cannot_be_checked_is_said():
    unproven = {"source_etag_by_warehouse": ""}
    checks = check_source(_upload(source_etag="weird", **unproven), None)
    assert checks.passed == ["length"]
    assert checks.unverified[0].startswith("event_size: ")
    assert "weird follows no rule" in checks.unverified[1]
    assert "none sent" in check_source(_upload(source_etag="", **unproven), 6).unverified[0]


def test_a_mismatch_under_a_guessed_part_size_is_unknown():
    upload = _upload(source_etag=OTHER, source_etag_is_certain=False)
    assert contradicts_source(upload)
    checks = check_source(upload, 6)
    assert checks.passed == ["length", "event_size"]
    assert "fits no usual part size" in checks.unverified[0]


@pytest.mark.parametrize(
    ("changes", "event_size", "text"),
    [
        ({"announced_size": 7}, 6, "6 bytes were read of 7 announced"),
        ({}, 7, "has 6 bytes, LiveKit's event says 7"),
        ({}, 0, "has 6 bytes, LiveKit's event says 0"),
        ({"source_etag": OTHER}, 6, f"have ETag {ETAG}, LiveKit's storage says {OTHER}"),
        ({"source_etag": OTHER, "computed_etags": ("y",)}, 6, "have ETag y"),
    ],
)
def test_what_differs(changes, event_size, text):
    with pytest.raises(CorruptError, match=text):
        check_source(_upload(**changes), event_size)


def test_parts_that_were_sent():
    check_parts(_upload(), _parts(3, 3))


def test_parts_without_md5s_are_only_counted():
    check_parts(_upload(etag=""), [UploadedPart(1, 3, "not-an-md5"), UploadedPart(2, 3, MD5S[1].hex())])


@pytest.mark.parametrize(
    "parts",
    [
        [],
        _parts(3),
        _parts(3, 4),
        _parts(3, 3, first=2),
        _parts(3, 3)[::-1],
        [*_parts(3), UploadedPart(3, 3, "x")],
        _parts(3, 3, md5s=MD5S[::-1]),
    ],
    ids=["none", "one of two", "too long", "first missing", "wrong order", "gap", "other bytes"],
)
def test_missing_parts(parts):
    with pytest.raises((StorageUnavailableError, UploadLostError), match="the warehouse holds") as caught:
        check_parts(_upload(), parts)
    # A listing may lag, and the next try sees all of it.
    assert isinstance(caught.value, RetryableError) == (len(parts) < 2)


def _landed(upload, head, **found):
    checks = Checks()
    return check_landed(upload, head, abilities(**found), checks), checks.passed


@pytest.mark.parametrize(
    ("upload", "head", "found", "expected"),
    [
        ({}, ObjectHead(6, ETAG), {}, (("", True), ["destination_etag"])),
        ({"crc64nvme": "c"}, ObjectHead(6, "kms", crc64nvme="c"), {}, (("", True), ["destination_crc64nvme"])),
        (
            {"crc64nvme": "c"},
            ObjectHead(6, ETAG, crc64nvme="c"),
            {},
            (("", True), ["destination_crc64nvme", "destination_etag"]),
        ),
        ({}, ObjectHead(6, OTHER), {}, (("", False), [])),
        ({"crc64nvme": "c"}, ObjectHead(6, OTHER), {}, (("", False), [])),
        # An echo of what was sent proves nothing.
        ({"crc64nvme": "c"}, ObjectHead(6, "x", crc64nvme="c"), {"refuses_wrong_crc64nvme": False}, (("", False), [])),
        ({"crc64nvme": "c"}, ObjectHead(6, "x", crc64nvme="c"), {"gives_crc64nvme": False}, (("", False), [])),
        (
            {"source_etag": "x", "source_etag_by_warehouse": "", "own_etag": ETAG},
            ObjectHead(6, ETAG),
            {},
            (("", True), ["destination_etag"]),
        ),
        # The warehouse's own word for its own bytes proves nothing either.
        ({"source_etag": "x", "source_etag_by_warehouse": ""}, ObjectHead(6, ETAG), {}, (("", False), [])),
        (
            {"source_etag": "x", "source_etag_by_warehouse": "", "computed_etags": (ETAG,)},
            ObjectHead(6, ETAG),
            {},
            (("", True), ["destination_etag"]),
        ),
    ],
)
def test_what_proves_the_landed_object(upload, head, found, expected):
    assert _landed(_upload(**upload), head, **found) == expected


@pytest.mark.parametrize(
    ("head", "text"),
    [(ObjectHead(5, ETAG), "has 5 bytes instead of 6"), (ObjectHead(6, ETAG, crc64nvme="d"), "has CRC64NVME d")],
)
def test_what_is_wrong_with_the_landed_object(head, text):
    (wrong, proven), _ = _landed(_upload(crc64nvme="c"), head)
    assert text in wrong
    assert not proven
