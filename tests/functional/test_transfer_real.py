"""Recordings from real HTTP into real S3 servers: what is checked, what breaks, and what a next try reads again."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import urllib3
from awscrt.checksums import crc64nvme

from livekit_backup.core import http_source
from livekit_backup.core.checksums import _to_base64
from livekit_backup.core.downloading import MOST_PASSES
from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.locations import Location
from livekit_backup.core.resuming_reader import FRUITLESS_RESUMES
from livekit_backup.core.statements import is_safe
from livekit_backup.core.storage import split_uri
from livekit_backup.core.store_check import check_store
from livekit_backup.errors import (
    CorruptError,
    LandingConflictError,
    LinkExpiredError,
    LivekitBackupError,
    MissingError,
    RefusedError,
    RetryableError,
    SourceChangedError,
    SourceUnavailableError,
    TransferInterruptedError,
    UploadGoneError,
    UploadLostError,
)
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import OpenUpload, RecordingFile, Upload
from livekit_backup.models.store_abilities import StoreAbilities
from livekit_backup.testing import FakeLiveKit, Fault, Recording, SyntheticBytes
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.synthetic_bytes import LiteralBytes

from ..conftest import ROOT
from .recovery_pipeline import ATTEMPT, MIB, SOCKETS, Pipeline, Place, pipeline_at, ranges_of, requests_for

PART = 5 * MIB
"""LiveKit's."""
LONG = 12 * MIB + 17
"""Three parts of LiveKit's."""
NO_SIZE = "event_size: the event names no size for this file"

QUICKER = "localstack" if (ROOT / ".embedded-s3" / "localstack-venv").is_dir() else "swift"
"""The server that answers in a third of the time, where it is installed."""
on_one_server = pytest.mark.parametrize("any_s3", [QUICKER], indirect=True)
"""For what the source does: the server it lands on makes no difference."""


def _record(livekit: FakeLiveKit, size: int, written: int | None = None) -> Recording:
    return livekit.record_file("egress/Café 1.mp4", size=size, upload_part_size=written, room_name="Räum")


def _stored(recording: Recording) -> Any:
    (stored,) = recording.files.values()
    return stored


def _lands_right(place: Place, recording: Recording, entry: LedgerEntry) -> None:
    """One object, the right bytes, and nothing left behind."""
    stored = _stored(recording)
    assert entry.outcome is Outcome.LANDED
    assert entry.size == stored.size
    assert entry.sha256 == stored.sha256 == place.sha256(entry.landed_uri)
    assert place.landed() == [stored.filename.rpartition("/")[2]]
    assert place.open_uploads() == []


def _land_nothing(place: Place) -> None:
    assert place.landed() == []
    assert place.open_uploads() == []


# --- what is checked (docs/transfers.md) ---------------------------------------------------


@dataclass(frozen=True)
class Writer:
    """How a recording was stored, and what follows from it."""

    size: int
    written: int | None
    """Bytes a part; None: LiveKit's way; 0: one PUT."""
    part_size: int
    """In which it is uploaded."""
    is_free: bool = True
    """The warehouse's own ETags prove the source's."""
    destination_etag: bool = True
    unverified: str = ""
    passes: int = 1

    def verified_by(self, *, strict: bool) -> tuple[str, ...]:
        landed = ["destination_crc64nvme"] * strict + ["destination_etag"] * self.destination_etag
        proven = [] if self.unverified else ["source_etag"]
        return ("length", "event_size", *proven, *(landed or ["read_back"]))


UNUSUAL = "fits no usual part size, so it proves nothing"
NO_RULE = "follows no rule that these bytes can be held against"

WRITERS = {
    "LiveKit, one byte": Writer(1, None, 1),
    "LiveKit, one PUT": Writer(PART, None, PART),
    "LiveKit, a byte more": Writer(PART + 1, None, PART),
    "LiveKit, three parts": Writer(LONG, None, PART),
    "parts of 8 MiB": Writer(20 * MIB, 8 * MIB, 8 * MIB),
    "parts of 8 MiB that could be LiveKit's": Writer(9 * MIB, 8 * MIB, PART, is_free=False, passes=2),
    "parts of 16 MiB": Writer(40 * MIB, 16 * MIB, 16 * MIB),
    "one PUT of 20 MiB": Writer(20 * MIB, 0, 16 * MIB, is_free=False, destination_etag=False),
    "one part": Writer(3 * MIB, 8 * MIB, 3 * MIB),
    "odd parts, a usual size fits": Writer(20_000_000, 7_000_000, 8 * MIB, is_free=False, unverified=UNUSUAL, passes=2),
    "odd parts, no usual size fits": Writer(
        49_000_000, 7_000_000, 16 * MIB, is_free=False, destination_etag=False, unverified=NO_RULE
    ),
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_every_writers_recording_lands_with_the_checks_that_it_allows(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, writer: Writer
) -> None:
    recording = _record(livekit, writer.size, writer.written)
    file = any_pipeline.planned(recording)
    upload = any_pipeline.download(file)
    assert (upload.part_size, upload.sha256) == (writer.part_size, _stored(recording).sha256)
    full, last = divmod(writer.size, writer.part_size)
    assert list(place.parts(upload).values()) == [writer.part_size] * full + [last] * bool(last)
    if writer.is_free:
        assert upload.source_etag_by_warehouse == upload.source_etag == _stored(recording).etag
        assert upload.computed_etags == ()
        assert upload.etag == upload.source_etag or "-" not in upload.source_etag
    assert place.landed() == []

    entry = any_pipeline.land(file, upload)

    _lands_right(place, recording, entry)
    assert entry == any_pipeline.ledger.read(file)
    assert entry.verified_by == writer.verified_by(strict=place.is_strict)
    assert len(entry.unverified) == bool(writer.unverified)
    assert all(writer.unverified in gap for gap in entry.unverified)
    assert bool(entry.crc64nvme) and entry.flags == ()
    assert ranges_of(requests_for(livekit, recording)) == [None] * writer.passes
    assert livekit.bytes_sent(recording) == writer.size * writer.passes
    _says_where_it_is_from(place, recording, file, entry, one_part=writer.size <= writer.part_size)


def _says_where_it_is_from(
    place: Place, recording: Recording, file: RecordingFile, entry: LedgerEntry, *, one_part: bool
) -> None:
    head = place.head(entry.landed_uri)
    assert head["ContentType"] == "video/mp4"
    assert head["ETag"].strip('"') == entry.etag
    metadata = head["Metadata"]
    assert metadata.pop("livekit-recovered-at").endswith("Z")
    assert metadata.pop("livekit-upload")
    assert metadata.pop("livekit-sha256", None) == (entry.sha256 if one_part else None)
    assert metadata == {
        "livekit-egress-id": recording.egress_id,
        "livekit-run": str(file.run),
        "livekit-room": "R%C3%A4um",
        "livekit-filename": "egress/Caf%C3%A9%201.mp4",
    }
    if place.is_strict:
        assert place.tags(entry.landed_uri) == ({} if one_part else {"livekit-sha256": entry.sha256})


def test_an_empty_recording_lands(any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit) -> None:
    recording = _record(livekit, 0)
    file = any_pipeline.planned(recording)
    upload = any_pipeline.download(file)
    assert upload.content == b""
    assert place.open_uploads() == []
    entry = any_pipeline.land(file, upload)
    _lands_right(place, recording, entry)
    assert entry.flags == ("empty",)
    assert entry.unverified == (NO_SIZE,)
    assert set(entry.verified_by) - {"destination_crc64nvme"} == {"length", "source_etag", "destination_etag"}
    _says_where_it_is_from(place, recording, file, entry, one_part=True)


@pytest.mark.parametrize("size", [PART, LONG])
def test_a_source_under_kms_proves_nothing_and_says_so(
    place: Place, any_store: S3ObjectStore, any_abilities: StoreAbilities, size: int
) -> None:
    with FakeLiveKit(encryption="aws:kms") as livekit:
        recording = _record(livekit, size)
        pipeline = pipeline_at(place, any_store, any_abilities, livekit)
        file = pipeline.planned(recording)
        upload = pipeline.download(file)
        assert (upload.part_size, upload.source_etag_by_warehouse, upload.computed_etags) == (16 * MIB, "", ())
        entry = pipeline.land(file, upload)
        _lands_right(place, recording, entry)
    destination = "destination_crc64nvme" if place.is_strict else "read_back"
    assert entry.verified_by == ("length", "event_size", destination)
    (gap,) = entry.unverified
    assert gap.startswith("source_etag: ") and gap.endswith(NO_RULE)


@pytest.mark.parametrize(
    ("lacks", "part_size", "strict", "else_"),
    [
        (("etags_are_md5",), 16 * MIB, ["destination_crc64nvme"], ["read_back"]),
        (("accepts_crc64nvme", "refuses_wrong_crc64nvme"), PART, ["destination_etag"], ["destination_etag"]),
        (("refuses_wrong_crc64nvme",), PART, ["destination_etag"], ["destination_etag"]),
        (
            ("etags_are_md5", "accepts_crc64nvme", "refuses_wrong_crc64nvme", "tags"),
            16 * MIB,
            ["destination_etag"],
            ["destination_etag"],
        ),
    ],
    ids=["no MD5s", "no CRC64NVME", "an unchecked CRC64NVME", "nothing"],
)
def test_a_warehouse_that_was_found_to_lack_something_is_not_counted_on_for_it(
    any_pipeline: Pipeline,
    place: Place,
    livekit: FakeLiveKit,
    lacks: tuple[str, ...],
    part_size: int,
    strict: list[str],
    else_: list[str],
) -> None:
    any_pipeline.known_abilities = any_pipeline.abilities().model_copy(update=dict.fromkeys(lacks, False))
    recording = _record(livekit, 20 * MIB)
    file = any_pipeline.planned(recording)
    upload = any_pipeline.download(file)
    assert upload.part_size == part_size
    assert bool(upload.crc64nvme) is ("accepts_crc64nvme" not in lacks)
    entry = any_pipeline.land(file, upload)
    _lands_right(place, recording, entry)
    landed = strict if place.is_strict else else_
    assert entry.verified_by == ("length", "event_size", "source_etag", *landed)
    if place.is_strict:
        assert bool(place.tags(entry.landed_uri)) is ("tags" not in lacks)


def test_trying_the_store_out_warns_of_no_part_that_is_wrong_on_purpose(
    place: Place, any_store: S3ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    check_store(any_store, f"s3://{place.bucket}/probes", datetime.now(UTC))
    assert "is sent again" not in caplog.text


# --- a wrong byte never lands --------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 0.5, 1.0], ids=["first", "middle", "last"])
@pytest.mark.parametrize("size", [3 * MIB, LONG], ids=["one PUT", "parts"])
def test_a_wrong_byte_of_livekits_never_lands(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, size: int, at: float
) -> None:
    recording = _record(livekit, size)
    livekit.break_(recording, Fault.WRONG_BYTES, at=at)
    file = any_pipeline.planned(recording)
    any_pipeline.recover(file)
    _land_nothing(place)
    assert livekit.bytes_sent(recording) == 2 * size, "it was fetched once more"
    entry = any_pipeline.ledger.read(file)
    assert entry and entry.outcome is Outcome.CORRUPT
    assert "LiveKit's storage says" in entry.reason


@pytest.mark.parametrize(
    ("size", "written"),
    [(3 * MIB, None), (LONG, None), (20 * MIB, 8 * MIB), (20 * MIB, 0)],
    ids=["one PUT", "parts", "parts of 8 MiB", "a large PUT"],
)
@on_one_server
def test_a_wrong_byte_on_the_way_is_fetched_again(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, size: int, written: int | None
) -> None:
    recording = _record(livekit, size, written)
    livekit.break_(recording, Fault.WRONG_BYTES, at=1.0, times=1)
    file = any_pipeline.planned(recording)
    entry = any_pipeline.land(file, any_pipeline.download(file))
    _lands_right(place, recording, entry)
    assert "source_etag" in entry.verified_by
    assert livekit.bytes_sent(recording) == 2 * size


@pytest.mark.parametrize(
    ("size", "written"), [(9 * MIB, 8 * MIB), (20 * MIB, 0), (3 * MIB, 8 * MIB)], ids=["8 MiB", "a large PUT", "a part"]
)
@on_one_server
def test_nor_another_writers_where_its_part_size_is_certain_or_could_be_livekits(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, size: int, written: int
) -> None:
    recording = _record(livekit, size, written)
    livekit.break_(recording, Fault.WRONG_BYTES)
    file = any_pipeline.planned(recording)
    with pytest.raises(CorruptError, match="LiveKit's storage says"):
        any_pipeline.land(file, any_pipeline.download(file))
    _land_nothing(place)


def test_under_a_guessed_part_size_it_is_unknown_and_named_as_unverified(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    recording = _record(livekit, 20 * MIB, 8 * MIB)
    livekit.break_(recording, Fault.WRONG_BYTES)
    file = any_pipeline.planned(recording)
    entry = any_pipeline.land(file, any_pipeline.download(file))
    assert entry.sha256 == place.sha256(entry.landed_uri) != _stored(recording).sha256
    assert "source_etag" not in entry.verified_by
    (gap,) = entry.unverified
    assert gap.startswith(f"source_etag: {_stored(recording).etag} ") and gap.endswith(UNUSUAL)


def test_a_recording_shorter_than_the_event_says_never_lands(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    recording = _record(livekit, LONG)
    livekit.break_(recording, Fault.TRUNCATED, at=11 * MIB)
    file = any_pipeline.planned(recording)
    with pytest.raises(CorruptError, match=f"has {11 * MIB} bytes, LiveKit's event says {LONG}"):
        any_pipeline.land(file, any_pipeline.download(file))
    _land_nothing(place)


def _put_foreign_part(place: Place, upload: Upload | OpenUpload, number: int, body: bytes) -> None:
    """As a stranger with the same keys would."""
    bucket, key = split_uri(upload.landing_uri)
    checksum = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumCRC64NVME": _to_base64(crc64nvme(body))}
    place.client.upload_part(
        Bucket=bucket, Key=key, UploadId=upload.upload_id, PartNumber=number, Body=body, **checksum
    )


@pytest.mark.parametrize(("number", "size"), [(1, PART), (3, 9), (4, 9)], ids=["other bytes", "shorter", "more"])
def test_a_part_that_was_altered_before_it_landed_never_lands(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, number: int, size: int
) -> None:
    recording = _record(livekit, LONG)
    file = any_pipeline.planned(recording)
    upload = any_pipeline.download(file)
    _put_foreign_part(place, upload, number, os.urandom(size))
    with pytest.raises(UploadLostError, match="the warehouse holds"):
        any_pipeline.land(file, upload)
    _land_nothing(place)
    entry = any_pipeline.land(file, any_pipeline.download(file))
    _lands_right(place, recording, entry)


# --- how a broken body shows, through download and landing (shared/facts/s3.md) ------------

HALF = LONG // 2
READ_AHEAD = 8192
"""Bytes."""
CUT: tuple[Fault, dict[str, Any]] = (Fault.CUT_SHORT, {})


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the faults that take minutes take a moment; not the others, since a busy machine may pause as long."""

    def shorten(*faults: Fault) -> None:
        if {Fault.STALL, Fault.SLOW} & set(faults):
            monkeypatch.setattr(http_source, "RATE_WINDOW_SECONDS", 0.4)
            monkeypatch.setattr(http_source, "_TIMEOUT", urllib3.Timeout(connect=10.0, read=0.6))

    return shorten


def _break(livekit: FakeLiveKit, recording: Recording, *faults: tuple[Fault, dict[str, Any]], times: int = 1) -> None:
    for fault, details in faults:
        livekit.break_(recording, fault, times=times, **details)


def _mend(recording: Recording) -> None:
    for stored in recording.files.values():
        stored.mend()


MIDDLE = [None, HALF, HALF]
"""Where three answers began: a cut, one that cannot be used, and the rest."""
RESUMED = {
    "cut with a length": ([CUT], [None, HALF], 0),
    "cut before the first byte": ([(Fault.CUT_SHORT, {"at": 0})], [None, None], 0),
    "cut before the last byte": ([(Fault.CUT_SHORT, {"at": LONG - 1})], [None, LONG - 1], 0),
    "cut again and again": (
        [(Fault.CUT_SHORT, {"at": 2 * MIB})] * 6,
        [None, *(2 * MIB * count for count in range(1, 7))],
        0,
    ),
    "stalled": ([(Fault.STALL, {})], [None, HALF], 0),
    "chunked and cut, in the middle": ([CUT, (Fault.NO_LENGTH, {"chunked": True, "at": 0.5})], MIDDLE, HALF // 2 + 1),
    "chunked and whole, in the middle": ([CUT, (Fault.NO_LENGTH, {"chunked": True})], MIDDLE, HALF + 1),
    "cut without a length, in the middle": ([CUT, (Fault.NO_LENGTH, {"at": 0.5})], MIDDLE, HALF // 2 + 1),
    "gzip, in the middle": ([CUT, (Fault.GZIP, {})], MIDDLE, HALF + MIB),
    "a web page, in the middle": ([CUT, (Fault.HTML_ERROR, {})], MIDDLE, 1000),
    "503, in the middle": ([CUT, (Fault.SERVER_ERROR, {"status": 503})], MIDDLE, 0),
    "429, in the middle": ([CUT, (Fault.TOO_MANY_REQUESTS, {})], MIDDLE, 0),
    "the link dead for a moment": ([CUT, (Fault.EXPIRED, {})], MIDDLE, 0),
    "longer than announced": ([(Fault.LONGER, {})], [None], 1024),
    "cut, then longer than announced": ([CUT, (Fault.LONGER, {})], [None, HALF], 1024),
    "another ETag for a moment": ([CUT, (Fault.CHANGED_ETAG, {})], [None, HALF, None], HALF),
    "200 to a range": ([CUT, (Fault.IGNORE_RANGE, {})], [None, HALF, None], HALF + LONG),
    "another range": ([CUT, (Fault.WRONG_RANGE, {})], [None, HALF, None], HALF + HALF),
}
"""The faults, where each answer was asked to begin, and how many bytes may be sent twice."""


@pytest.mark.parametrize(("faults", "starts", "twice"), RESUMED.values(), ids=RESUMED)
@on_one_server
def test_a_body_that_breaks_is_read_on_or_anew_and_lands(
    any_pipeline: Pipeline,
    place: Place,
    livekit: FakeLiveKit,
    hurry: Callable[..., None],
    faults: list[tuple[Fault, dict[str, Any]]],
    starts: list[int | None],
    twice: int,
) -> None:
    hurry(*(fault for fault, _ in faults))
    recording = _record(livekit, LONG)
    _break(livekit, recording, *faults)
    file = any_pipeline.planned(recording)
    upload = any_pipeline.download(file)
    asked = requests_for(livekit, recording)
    # A read that times out loses what Python's reader holds, and asks for it again.
    held = READ_AHEAD if (Fault.STALL, {}) in faults else 0
    begun = [request.range and int(request.range[len("bytes=") : -1]) for request in asked]
    assert [start is None for start in begun] == [start is None for start in starts]
    assert all(0 <= (due or 0) - (start or 0) <= held for start, due in zip(begun, starts, strict=True))
    assert all(request.headers["accept-encoding"] == "identity" for request in asked)
    etag = _stored(recording).etag
    assert {request.headers["if-match"] for request in asked if request.range} <= {f'"{etag}"'}
    _lands_right(place, recording, any_pipeline.land(file, upload))
    assert 0 <= livekit.bytes_sent(recording) - LONG <= twice + held


@on_one_server
def test_a_reset_loses_no_more_than_what_was_on_its_way(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    size = 64 * MIB
    recording = _record(livekit, size)
    livekit.break_(recording, Fault.RESET, times=1, at=size - PART)
    file = any_pipeline.planned(recording)
    upload = any_pipeline.download(file)
    first, second = requests_for(livekit, recording)
    start = int(str(second.range).strip("bytes=-"))
    assert first.bytes_sent == size - PART
    assert first.bytes_sent - SOCKETS <= start <= first.bytes_sent
    assert second.bytes_sent == size - start
    _lands_right(place, recording, any_pipeline.land(file, upload))


@pytest.mark.xfail(strict=True, reason="BufferedReader.readinto1 drops its read-ahead when the socket times out")
def test_what_came_before_a_stall_is_handed_over(livekit: FakeLiveKit, hurry: Callable[..., None]) -> None:
    hurry(Fault.STALL)
    recording = _record(livekit, 30_000)
    livekit.break_(recording, Fault.STALL, at=11_000)
    body = HttpSource(Location(_stored(recording).url()), (livekit.base_url.partition("://")[2],)).open()
    buffer = memoryview(bytearray(30_000))
    got = 0
    try:
        while got < 10_900:
            got += body.readinto(buffer[got : got + 100])
        with contextlib.suppress(TransferInterruptedError):
            got += body.readinto(buffer[got:])
    finally:
        body.close()
    assert got == 11_000


@on_one_server
def test_a_drip_is_noticed_and_read_on(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, hurry: Callable[..., None]
) -> None:
    hurry(Fault.SLOW)
    recording = _record(livekit, LONG)
    _break(livekit, recording, CUT, (Fault.SLOW, {"bytes_per_second": 8000}))
    file = any_pipeline.planned(recording)
    upload = any_pipeline.download(file)
    starts = [int(asked.split("-")[0]) for asked in ranges_of(requests_for(livekit, recording)) if asked]
    assert starts[0] == HALF < starts[1] < HALF + 64 * 1024
    assert livekit.bytes_sent(recording) - LONG < 64 * 1024
    _lands_right(place, recording, any_pipeline.land(file, upload))


@pytest.mark.parametrize(
    ("fault", "details"),
    [
        (Fault.NO_LENGTH, {"chunked": True, "at": 0.5}),
        (Fault.NO_LENGTH, {"chunked": True}),
        (Fault.NO_LENGTH, {"at": 0.5}),
        (Fault.GZIP, {}),
        (Fault.HTML_ERROR, {}),
        (Fault.SERVER_ERROR, {}),
    ],
    ids=["chunked and cut", "chunked", "cut without a length", "gzip", "a web page", "500"],
)
@on_one_server
def test_an_answer_that_cannot_be_used_is_left_to_the_next_try(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, fault: Fault, details: dict[str, Any]
) -> None:
    recording = _record(livekit, LONG)
    _break(livekit, recording, (fault, details))
    file = any_pipeline.planned(recording)
    with pytest.raises(RetryableError):
        any_pipeline.download(file)
    assert len(requests_for(livekit, recording)) == 1
    _land_nothing(place)
    _lands_right(place, recording, any_pipeline.land(file, any_pipeline.download(file)))


GIVEN_UP = {
    "cut without progress": (Fault.CUT_SHORT, {"at": MIB // 2}, TransferInterruptedError),
    "stalled": (Fault.STALL, {"at": 0}, TransferInterruptedError),
    "drip": (Fault.SLOW, {"bytes_per_second": 8000}, TransferInterruptedError),
    "chunked and cut": (Fault.NO_LENGTH, {"chunked": True, "at": 0.5}, TransferInterruptedError),
    "gzip": (Fault.GZIP, {}, TransferInterruptedError),
    "a web page": (Fault.HTML_ERROR, {}, SourceUnavailableError),
    "503": (Fault.SERVER_ERROR, {"status": 503}, SourceUnavailableError),
}


@pytest.mark.parametrize(("fault", "details", "error"), GIVEN_UP.values(), ids=GIVEN_UP)
@on_one_server
def test_what_stays_broken_in_the_middle_is_given_up_and_the_next_try_reads_the_rest(
    any_pipeline: Pipeline,
    place: Place,
    livekit: FakeLiveKit,
    hurry: Callable[..., None],
    fault: Fault,
    details: dict[str, Any],
    error: type[LivekitBackupError],
) -> None:
    hurry(fault)
    recording = _record(livekit, LONG)
    _break(livekit, recording, CUT)
    livekit.break_(recording, fault, **details)
    file = any_pipeline.planned(recording)
    with pytest.raises(error):
        any_pipeline.download(file)
    assert len(requests_for(livekit, recording)) == 1 + FRUITLESS_RESUMES
    assert place.landed() == []
    opened = any_pipeline.opened(file)
    assert opened and [opened.upload_id] == place.open_uploads()
    assert place.parts(opened) == {1: PART}
    _mend(recording)
    upload = any_pipeline.download(file)
    assert upload.upload_id == opened.upload_id
    last = requests_for(livekit, recording)[-1]
    assert (ranges_of([last]), last.bytes_sent) == ([f"{PART}-"], LONG - PART)
    _lands_right(place, recording, any_pipeline.land(file, upload))


ENDED = {
    "a redirect": (Fault.REDIRECT, RefusedError, Outcome.REFUSED, 1),
    "nothing behind it": (Fault.NOT_FOUND, MissingError, Outcome.MISSING, 1),
    "a link without a fresh one": (Fault.EXPIRED, LinkExpiredError, Outcome.EXPIRED, 2),
}


@pytest.mark.parametrize("in_the_middle", [False, True], ids=["at once", "in the middle"])
@pytest.mark.parametrize(("fault", "error", "outcome", "asked"), ENDED.values(), ids=ENDED)
@on_one_server
def test_what_no_try_can_mend_leaves_nothing(
    any_pipeline: Pipeline,
    place: Place,
    livekit: FakeLiveKit,
    fault: Fault,
    error: type[LivekitBackupError],
    outcome: Outcome,
    asked: int,
    in_the_middle: bool,
) -> None:
    recording = _record(livekit, LONG)
    if in_the_middle:
        _break(livekit, recording, CUT)
    livekit.break_(recording, fault)
    file = any_pipeline.planned(recording)
    with pytest.raises(error) as raised:
        any_pipeline.download(file)
    assert raised.value.outcome is outcome
    assert "Signature" not in str(raised.value)
    assert len(requests_for(livekit, recording)) == (1 + asked if in_the_middle else 1)
    _land_nothing(place)


@on_one_server
def test_a_source_that_changes_again_and_again_is_given_up_and_never_mixed(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    recording = _record(livekit, LONG)
    for _ in range(9):
        _break(livekit, recording, CUT, (Fault.CHANGED_ETAG, {}))
    file = any_pipeline.planned(recording)
    with pytest.raises(SourceChangedError):
        any_pipeline.download(file)
    assert ranges_of(requests_for(livekit, recording)) == [None, f"{HALF}-"] * MOST_PASSES
    _land_nothing(place)


@pytest.mark.parametrize("size", [LONG, LONG - 1, LONG + 1, 3 * MIB], ids=["same", "shorter", "longer", "one PUT"])
@on_one_server
def test_a_recording_that_is_replaced_while_it_is_read_is_read_anew(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, size: int
) -> None:
    recording = _record(livekit, LONG)
    _break(livekit, recording, CUT)
    file = any_pipeline.planned(recording)
    _on_request(livekit, recording, 2, lambda: _replace(recording, size))
    if size != LONG:
        with pytest.raises(CorruptError, match="LiveKit's event says"):
            any_pipeline.download(file)
        _land_nothing(place)
        return
    upload = any_pipeline.download(file)
    assert (upload.size, upload.sha256, upload.source_etag) == (
        size,
        _stored(recording).sha256,
        _stored(recording).etag,
    )
    _lands_right(place, recording, any_pipeline.land(file, upload))


def _replace(recording: Recording, size: int = LONG) -> None:
    """Store another recording at the same place."""
    stored = _stored(recording)
    stored.content = SyntheticBytes("another one", size)
    for known in ("etag", "sha256"):
        vars(stored).pop(known, None)


def _on_request(livekit: FakeLiveKit, recording: Recording, nth: int, act: Callable[[], object]) -> None:
    """Do something just before the nth answer for a recording's file."""
    stored = _stored(recording)
    next_breakage, count = stored.next_breakage, iter(range(1, 1000))

    def watched() -> Any:
        if next(count) == nth:
            act()
        return next_breakage()

    stored.next_breakage = watched


@pytest.mark.parametrize(
    "fault", [None, Fault.EXPIRED, Fault.NOT_FOUND], ids=["a fresh one", "a dead one", "one to nothing"]
)
@on_one_server
def test_a_link_that_dies_in_the_middle_is_read_again_from_the_manifest(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, fault: Fault | None
) -> None:
    recording = _record(livekit, LONG)
    _break(livekit, recording, CUT)
    livekit.break_(recording, Fault.EXPIRED)
    file = any_pipeline.planned(recording)
    fresh = livekit.record_file(file.filename, size=LONG, key="signed/anew.mp4", egress_id=recording.egress_id)
    _on_request(livekit, recording, 2, lambda: _list_in_manifest(recording, fresh))
    if fault:
        livekit.break_(fresh, fault)
        with pytest.raises(LinkExpiredError if fault is Fault.EXPIRED else MissingError):
            any_pipeline.download(file)
        assert len(requests_for(livekit, fresh)) == 1
        _land_nothing(place)
        return
    upload = any_pipeline.download(file)
    assert ranges_of(requests_for(livekit, recording)) == [None, f"{HALF}-"]
    assert ranges_of(requests_for(livekit, fresh)) == [f"{HALF}-"]
    assert livekit.bytes_sent(recording) + livekit.bytes_sent(fresh) == LONG
    _lands_right(place, recording, any_pipeline.land(file, upload))


def _list_in_manifest(recording: Recording, fresh: Recording) -> None:
    manifest = {**recording.manifest(), "files": fresh.manifest()["files"]}
    recording.manifest_object.content = LiteralBytes(json.dumps(manifest).encode())
    vars(recording.manifest_object).pop("etag", None)


@on_one_server
def test_a_fresh_link_to_another_recording_is_never_mixed_in(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    recording = _record(livekit, LONG)
    _break(livekit, recording, CUT)
    livekit.break_(recording, Fault.EXPIRED)
    file = any_pipeline.planned(recording)
    other = livekit.record_file(file.filename, size=LONG, key="signed/other.mp4")
    _on_request(livekit, recording, 2, lambda: _list_in_manifest(recording, other))
    upload = any_pipeline.download(file)
    assert ranges_of(requests_for(livekit, other)) == [f"{HALF}-", None]
    assert upload.sha256 == _stored(other).sha256
    any_pipeline.land(file, upload)
    assert place.sha256(file.landing_uri) == _stored(other).sha256


# --- what a next try reads again ------------------------------------------------------------

FOUR = 20 * MIB
"""Four parts of LiveKit's."""
NEXT_TRY = Attempt(dag_id=ATTEMPT.dag_id, run_id=ATTEMPT.run_id, task_id="download", map_index=7, try_number=2)
OTHER_RUN = Attempt(dag_id=ATTEMPT.dag_id, run_id="r2")


@dataclass
class GivenUp:
    """A download that gave up half-way, its source mended since."""

    pipeline: Pipeline
    place: Place
    recording: Recording
    file: RecordingFile
    opened: OpenUpload

    def try_again(self) -> Upload:
        self.pipeline.livekit.requests.clear()
        return self.pipeline.download(self.file)

    def asked(self) -> list[str | None]:
        """What was asked for since."""
        return ranges_of(requests_for(self.pipeline.livekit, self.recording))

    def lands_right(self, upload: Upload) -> LedgerEntry:
        entry = self.pipeline.land(self.file, upload)
        _lands_right(self.place, self.recording, entry)
        return entry


@pytest.fixture
def given_up(any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit) -> GivenUp:
    recording = _record(livekit, FOUR)
    livekit.break_(recording, Fault.CUT_SHORT, times=1, at=FOUR // 2 + 100_000)
    livekit.break_(recording, Fault.SERVER_ERROR)
    file = any_pipeline.planned(recording)
    with pytest.raises(SourceUnavailableError):
        any_pipeline.download(file)
    opened = any_pipeline.opened(file)
    assert opened
    assert place.parts(opened) == {1: PART, 2: PART}
    _mend(recording)
    return GivenUp(any_pipeline, place, recording, file, opened)


@pytest.mark.parametrize("attempt", [ATTEMPT, NEXT_TRY], ids=["the same", "another number and map index"])
def test_the_next_try_reads_only_the_rest(given_up: GivenUp, livekit: FakeLiveKit, attempt: Attempt) -> None:
    given_up.pipeline.attempt = attempt
    upload = given_up.try_again()
    assert upload.upload_id == given_up.opened.upload_id
    assert given_up.asked() == [f"{FOUR // 2}-"]
    assert livekit.bytes_sent(given_up.recording) == FOUR // 2
    (request,) = requests_for(livekit, given_up.recording)
    assert request.headers["if-match"] == f'"{_stored(given_up.recording).etag}"'
    assert (upload.sha256, upload.source_etag_by_warehouse) == ("", _stored(given_up.recording).etag)

    entry = given_up.lands_right(upload)

    strict = ["destination_crc64nvme"] * given_up.place.is_strict
    assert entry.verified_by == (
        "length",
        "event_size",
        "source_etag",
        *strict,
        "destination_etag",
        "read_back",
    )
    assert entry.unverified == ()
    if given_up.place.is_strict:
        assert given_up.place.tags(entry.landed_uri) == {"livekit-sha256": entry.sha256}


def test_a_try_after_all_parts_are_up_reads_nothing(given_up: GivenUp) -> None:
    given_up.try_again()
    upload = given_up.try_again()
    assert upload.upload_id == given_up.opened.upload_id
    assert given_up.asked() == []
    given_up.lands_right(upload)


def test_another_run_begins_its_own_and_the_first_finds_it_landed(given_up: GivenUp) -> None:
    given_up.pipeline.attempt = OTHER_RUN
    upload = given_up.try_again()
    assert given_up.asked() == [None]
    assert set(given_up.place.open_uploads()) == {given_up.opened.upload_id, upload.upload_id}
    assert given_up.place.parts(given_up.opened) == {1: PART, 2: PART}
    given_up.lands_right(upload)
    given_up.pipeline.attempt = ATTEMPT
    given_up.pipeline.livekit.requests.clear()
    [late] = given_up.pipeline.recovery().download([given_up.file])
    assert (late.outcome, given_up.asked()) == (Outcome.ALREADY_LANDED, [])
    assert given_up.place.open_uploads() == []


def test_the_report_drops_what_is_left_open_and_a_later_try_begins_anew(given_up: GivenUp) -> None:
    (line,) = given_up.pipeline.statement().lines
    assert line.outcome is Outcome.FAILED
    _land_nothing(given_up.place)
    upload = given_up.try_again()
    assert given_up.asked() == [None]
    given_up.lands_right(upload)


def test_the_report_keeps_a_whole_recording_that_failed_to_land_and_it_lands_though_its_link_is_dead(
    given_up: GivenUp, livekit: FakeLiveKit
) -> None:
    upload = given_up.try_again()
    (line,) = given_up.pipeline.statement().lines
    assert line.outcome is Outcome.FAILED
    assert given_up.place.open_uploads() == [upload.upload_id]
    livekit.break_(given_up.recording, Fault.EXPIRED)
    given_up.lands_right(upload)


def test_other_content_at_the_landing_key_leaves_the_recording_up(given_up: GivenUp, livekit: FakeLiveKit) -> None:
    upload = given_up.try_again()
    bucket, key = split_uri(given_up.file.landing_uri)
    given_up.place.client.put_object(Bucket=bucket, Key=key, Body=b"someone else's")
    with pytest.raises(LandingConflictError):
        given_up.pipeline.land(given_up.file, upload)
    assert given_up.place.client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"someone else's"
    assert given_up.place.open_uploads() == [upload.upload_id]
    given_up.place.client.delete_object(Bucket=bucket, Key=key)
    livekit.break_(given_up.recording, Fault.EXPIRED)
    given_up.lands_right(upload)


@pytest.mark.parametrize("size", [FOUR, FOUR + 1, FOUR // 2], ids=["same", "longer", "as far as it came"])
@on_one_server
def test_a_recording_that_was_replaced_meanwhile_is_read_anew(given_up: GivenUp, size: int) -> None:
    _replace(given_up.recording, size)
    if size != FOUR:
        with pytest.raises(CorruptError, match="LiveKit's event says"):
            given_up.try_again()
        assert given_up.asked() == [f"{FOUR // 2}-", None]
        return
    upload = given_up.try_again()
    assert given_up.asked() == [f"{FOUR // 2}-", None]
    assert given_up.place.open_uploads() == [upload.upload_id]
    assert (upload.size, upload.sha256) == (size, _stored(given_up.recording).sha256)
    given_up.lands_right(upload)


@pytest.mark.parametrize(
    ("number", "size", "asked"),
    [
        (1, PART, [f"{FOUR // 2}-", None]),
        (2, PART - 1, [f"{PART}-"]),
        (1, PART + 1, [None]),
    ],
    ids=["other bytes", "shorter", "longer"],
)
def test_a_wrong_part_of_a_stranger_is_never_trusted(
    given_up: GivenUp, number: int, size: int, asked: list[str | None]
) -> None:
    _put_foreign_part(given_up.place, given_up.opened, number, os.urandom(size))
    upload = given_up.try_again()
    assert given_up.asked() == asked
    given_up.lands_right(upload)


@on_one_server
def test_a_wrong_byte_in_the_rest_is_fetched_again_with_all_before_it(given_up: GivenUp, livekit: FakeLiveKit) -> None:
    livekit.break_(given_up.recording, Fault.WRONG_BYTES, at=FOUR - 1, times=1)
    upload = given_up.try_again()
    assert given_up.asked() == [f"{FOUR // 2}-", None]
    given_up.lands_right(upload)


@on_one_server
def test_a_wrong_byte_that_stays_in_the_rest_never_lands(given_up: GivenUp, livekit: FakeLiveKit) -> None:
    livekit.break_(given_up.recording, Fault.WRONG_BYTES, at=FOUR - 1)
    with pytest.raises(CorruptError, match="LiveKit's storage says"):
        given_up.pipeline.land(given_up.file, given_up.try_again())
    assert given_up.asked() == [f"{FOUR // 2}-", None, None]
    _land_nothing(given_up.place)


@on_one_server
def test_a_wrong_part_behind_a_gap_is_replaced(given_up: GivenUp) -> None:
    _put_foreign_part(given_up.place, given_up.opened, 4, os.urandom(PART))
    upload = given_up.try_again()
    assert given_up.asked() == [f"{FOUR // 2}-"]
    given_up.lands_right(upload)


@on_one_server
def test_a_part_too_many_does_not_land_and_the_next_try_begins_anew(given_up: GivenUp) -> None:
    _put_foreign_part(given_up.place, given_up.opened, 5, b"too many")
    with pytest.raises(UploadLostError, match="in 5 parts"):
        given_up.pipeline.land(given_up.file, given_up.try_again())
    _land_nothing(given_up.place)
    given_up.lands_right(given_up.try_again())


def _abort(place: Place, upload: Upload | OpenUpload) -> None:
    """As a lifecycle rule would."""
    bucket, key = split_uri(upload.landing_uri)
    place.client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload.upload_id)


def test_an_upload_that_was_aborted_between_two_tries_is_begun_anew(given_up: GivenUp) -> None:
    _abort(given_up.place, given_up.opened)
    upload = given_up.try_again()
    assert given_up.asked() == [None]
    given_up.lands_right(upload)


def test_an_upload_that_is_aborted_while_it_is_filled_is_left_to_the_next_try(
    given_up: GivenUp, livekit: FakeLiveKit
) -> None:
    _on_request(livekit, given_up.recording, 1, lambda: _abort(given_up.place, given_up.opened))
    with pytest.raises(UploadGoneError):
        given_up.try_again()
    _land_nothing(given_up.place)
    upload = given_up.try_again()
    assert given_up.asked() == [None]
    given_up.lands_right(upload)


def test_an_upload_that_was_aborted_before_it_landed_asks_for_another_download(given_up: GivenUp) -> None:
    upload = given_up.try_again()
    _abort(given_up.place, upload)
    with pytest.raises(UploadLostError, match="clear the download task"):
        given_up.pipeline.land(given_up.file, upload)
    _land_nothing(given_up.place)
    given_up.lands_right(given_up.try_again())


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
def test_a_try_that_outlives_its_landing_changes_nothing(
    request: pytest.FixtureRequest, any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, wrong: bool
) -> None:
    """Airflow took it for dead, and started the next one."""
    if wrong and not place.is_strict:
        reason = "Swift takes parts of an upload that is completed, and puts them into the landed object"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    recording = _record(livekit, FOUR)
    file = any_pipeline.planned(recording)
    go_on, half_way = threading.Event(), threading.Event()
    livekit.break_(recording, Fault.CUT_SHORT, times=1, at=FOUR // 2)
    if wrong:
        livekit.break_(recording, Fault.WRONG_BYTES, times=1, at=FOUR - 1)

    def hold() -> None:
        half_way.set()
        assert go_on.wait(60)

    _on_request(livekit, recording, 2, hold)
    with ThreadPoolExecutor(1) as pool:
        zombie = pool.submit(any_pipeline.download, file)
        try:
            assert half_way.wait(60)
            while not (opened := any_pipeline.opened(file)) or len(place.parts(opened)) < 2:
                assert not zombie.done()
            # It meets the fault itself.
            breakages, stored = _stored(recording)._breakages.copy(), _stored(recording)
            stored.mend()
            upload = any_pipeline.download(file)
            assert upload.upload_id == opened.upload_id
            entry = any_pipeline.land(file, upload)
            _lands_right(place, recording, entry)
            stored._breakages.extend(breakages)
        finally:
            go_on.set()
        try:
            late = zombie.result()
        except UploadGoneError:
            assert place.is_strict
        else:
            assert any_pipeline.land(file, late).outcome is Outcome.ALREADY_LANDED
    _lands_right(place, recording, entry)


def test_an_upload_that_nobody_noted_is_dropped_when_its_file_lands(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    """A task was killed just between opening it and writing it down."""
    recording = _record(livekit, PART)
    file = any_pipeline.planned(recording)
    any_pipeline.store.create_upload(file.landing_uri, content_type="video/mp4", metadata={})
    assert len(place.open_uploads()) == 1
    _lands_right(place, recording, any_pipeline.land(file, any_pipeline.download(file)))


def test_two_runs_that_download_at_once_land_one_object(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    recording = _record(livekit, LONG)
    file = any_pipeline.planned(recording)
    other = pipeline_at(place, any_pipeline.store, any_pipeline.abilities(), livekit)
    other.attempt = OTHER_RUN
    with ThreadPoolExecutor(2) as pool:
        uploads = list(pool.map(lambda pipeline: pipeline.download(file), (any_pipeline, other)))
    assert sorted(place.open_uploads()) == sorted(str(upload.upload_id) for upload in uploads)
    _lands_right(place, recording, other.land(file, uploads[1]))
    assert any_pipeline.land(file, uploads[0]).outcome is Outcome.ALREADY_LANDED
    _lands_right(place, recording, other.land(file, uploads[1]).model_copy(update={"outcome": Outcome.LANDED}))


def test_two_runs_that_land_at_the_same_instant_leave_one_whole_object(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    """Of two completions at the same instant both servers mostly let both win, and one shows 0 bytes meanwhile."""
    recording = _record(livekit, LONG)
    file = any_pipeline.planned(recording)
    other = pipeline_at(place, any_pipeline.store, any_pipeline.abilities(), livekit)
    other.attempt = OTHER_RUN
    together = threading.Barrier(2, timeout=60)

    def recover(pipeline: Pipeline) -> LedgerEntry:
        upload = pipeline.download(file)
        together.wait()
        for _ in range(4):
            # As Airflow tries again.
            with contextlib.suppress(RetryableError):
                return pipeline.land(file, upload)
        return pipeline.land(file, upload)

    with ThreadPoolExecutor(2) as pool:
        entries = list(pool.map(recover, (any_pipeline, other)))
    assert {entry.outcome for entry in entries} <= {Outcome.LANDED, Outcome.ALREADY_LANDED}
    assert {entry.sha256 for entry in entries} == {_stored(recording).sha256}
    entry = any_pipeline.ledger.find_landed(file)
    assert entry
    _lands_right(place, recording, entry)


@pytest.mark.parametrize("is_empty", [False, True], ids=["another object", "one that is only coming"])
def test_what_another_put_there_behind_the_completion_is_never_removed(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, monkeypatch: pytest.MonkeyPatch, is_empty: bool
) -> None:
    """Of two completions at the same instant, stores were seen to let both win, and to show 0 bytes meanwhile."""
    recording = _record(livekit, LONG)
    file = any_pipeline.planned(recording)
    upload = any_pipeline.download(file)
    bucket, key = split_uri(file.landing_uri)
    anothers = b"" if is_empty else b"another's"
    complete = any_pipeline.store.complete_upload

    def complete_and_lose(*arguments: Any, **options: Any) -> bool:
        completed = complete(*arguments, **options)
        place.client.put_object(Bucket=bucket, Key=key, Body=anothers)
        return completed

    monkeypatch.setattr(any_pipeline.store, "complete_upload", complete_and_lose)
    with pytest.raises(LivekitBackupError):
        any_pipeline.land(file, upload)
    assert place.landed() == ["Café 1.mp4"]
    assert place.client.get_object(Bucket=bucket, Key=key)["Body"].read() == anothers


@on_one_server
def test_a_report_drops_what_its_run_left_open_for_a_file_that_another_run_landed(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    recording = _record(livekit, PART)
    file = any_pipeline.planned(recording)
    other = pipeline_at(place, any_pipeline.store, any_pipeline.abilities(), livekit)
    other.attempt = OTHER_RUN
    # The other run has found nothing landed, and opens its upload when the first has landed.
    _on_request(livekit, recording, 1, lambda: any_pipeline.recover(file))
    other.download(other.planned(recording))
    assert len(place.open_uploads()) == 1
    # Here it is killed.
    assert [line.outcome for line in other.statement().lines] == [Outcome.ALREADY_LANDED]
    assert place.open_uploads() == []


# --- ranges side by side ---------------------------------------------------------------------

SIX = 28 * MIB + 5
"""Six parts of LiveKit's."""
SIDE_BY_SIDE = {
    "no fault": [],
    "cuts": [CUT] * 5,
    "resets": [(Fault.RESET, {})] * 5,
    "stalls": [(Fault.STALL, {})] * 3,
    "cuts before the first byte": [(Fault.CUT_SHORT, {"at": 0})] * 3,
    "answers without a length": [CUT, (Fault.NO_LENGTH, {"chunked": True}), (Fault.NO_LENGTH, {"at": 0.5})],
    "longer than announced": [(Fault.LONGER, {})] * 20,
    "refusals": [CUT, (Fault.SERVER_ERROR, {}), (Fault.TOO_MANY_REQUESTS, {}), (Fault.HTML_ERROR, {})],
    "another ETag for a moment": [CUT, (Fault.CHANGED_ETAG, {})],
    "200 to a range": [CUT, (Fault.IGNORE_RANGE, {})],
    "another range": [CUT, (Fault.WRONG_RANGE, {})],
    "a wrong byte": [(Fault.WRONG_BYTES, {"at": SIX // 2})] * 6,
}


@pytest.mark.parametrize("faults", SIDE_BY_SIDE.values(), ids=SIDE_BY_SIDE)
@on_one_server
def test_ranges_side_by_side_land_right_under_faults(
    any_pipeline: Pipeline,
    place: Place,
    livekit: FakeLiveKit,
    hurry: Callable[..., None],
    faults: list[tuple[Fault, dict[str, Any]]],
) -> None:
    hurry(*(fault for fault, _ in faults))
    recording = _record(livekit, SIX)
    _break(livekit, recording, *faults)
    any_pipeline.streams = 4
    file = any_pipeline.planned(recording)
    upload = any_pipeline.download(file)
    assert upload.sha256 == _stored(recording).sha256
    asked = requests_for(livekit, recording)
    if not faults:
        assert ranges_of(asked)[0] is None
        assert set(ranges_of(asked)[1:]) == {
            f"{start}-{min(start + PART, SIX) - 1}" for start in range(PART, SIX, PART)
        }
    _lands_right(place, recording, any_pipeline.land(file, upload))


@pytest.mark.parametrize("size", [1, PART + 1])
@on_one_server
def test_side_by_side_fewer_parts_than_ranges(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, size: int
) -> None:
    recording = _record(livekit, size)
    any_pipeline.streams = 9
    file = any_pipeline.planned(recording)
    _lands_right(place, recording, any_pipeline.land(file, any_pipeline.download(file)))


@on_one_server
def test_side_by_side_a_try_that_gives_up_leaves_what_the_next_goes_on_with(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    recording = _record(livekit, SIX)
    any_pipeline.streams = 4
    livekit.break_(recording, Fault.SERVER_ERROR, after=3)
    file = any_pipeline.planned(recording)
    with pytest.raises(SourceUnavailableError):
        any_pipeline.download(file)
    opened = any_pipeline.opened(file)
    up = place.parts(opened) if opened else {}
    _mend(recording)
    livekit.requests.clear()
    _lands_right(place, recording, any_pipeline.land(file, any_pipeline.download(file)))
    first = ranges_of(requests_for(livekit, recording))[0]
    assert first == (f"{len(up) * PART}-" if up else None)
    assert list(up) == list(range(1, len(up) + 1))


def test_side_by_side_a_next_try_reads_only_the_rest(given_up: GivenUp, livekit: FakeLiveKit) -> None:
    given_up.pipeline.streams = 4
    upload = given_up.try_again()
    assert livekit.bytes_sent(given_up.recording) < FOUR // 2 + SOCKETS
    starts = [int(str(asked).partition("-")[0]) for asked in given_up.asked()]
    assert min(starts) == FOUR // 2
    given_up.lands_right(upload)


@on_one_server
def test_side_by_side_a_link_that_dies_is_read_again_once(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    recording = _record(livekit, SIX)
    any_pipeline.streams = 4
    file = any_pipeline.planned(recording)
    fresh = livekit.record_file(file.filename, size=SIX, key="signed/anew.mp4", egress_id=recording.egress_id)
    livekit.break_(recording, Fault.EXPIRED, after=1)
    manifest = recording.manifest_object
    next_breakage = manifest.next_breakage

    def only_when_all_are_dead() -> Any:
        until = time.monotonic() + 2
        while sum(asked.status == 403 for asked in requests_for(livekit, recording)) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        _list_in_manifest(recording, fresh)
        return next_breakage()

    _on_request(livekit, recording, 1, lambda: setattr(manifest, "next_breakage", only_when_all_are_dead))
    upload = any_pipeline.download(file)
    _lands_right(place, recording, any_pipeline.land(file, upload))


# --- what lies in the customer's own bucket --------------------------------------------------


def _put(client: Any, bucket: str, key: str, content: Any, part_size: int) -> None:
    """As LiveKit's uploader, or another writer, stored it."""
    body = b"".join(content.pieces())
    if not part_size:
        client.put_object(Bucket=bucket, Key=key, Body=body)
        return
    at = {"Bucket": bucket, "Key": key, "UploadId": client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]}
    parts = []
    for number, start in enumerate(range(0, len(body), part_size), 1):
        answer = client.upload_part(**at, PartNumber=number, Body=body[start : start + part_size])
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})


def _bucket(client: Any) -> str:
    name = f"acme-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return name


def _in_primary(pipeline: Pipeline, recording: Recording, uri: str) -> RecordingFile:
    """The file of a recording, as if its location had been a plain one in the customer's bucket."""
    file = pipeline.planned(recording)
    return file.model_copy(update={"primary_uri": uri, "deadline": None})


@pytest.mark.parametrize(
    ("size", "written"),
    [(3 * MIB, 0), (PART + 1, PART), (LONG, PART), (20 * MIB, 8 * MIB), (3 * MIB, PART)],
    ids=["one PUT", "two parts", "three parts", "parts of 8 MiB", "one part"],
)
def test_one_server_copies_by_itself(
    any_pipeline: Pipeline, place: Place, any_store: S3ObjectStore, livekit: FakeLiveKit, size: int, written: int
) -> None:
    recording = _record(livekit, size, written)
    acme = _bucket(place.client)
    _put(place.client, acme, "rec/ä 1.mp4", _stored(recording).content, written)
    any_pipeline.primary = any_store
    file = _in_primary(any_pipeline, recording, f"s3://{acme}/rec/ä 1.mp4")
    upload = any_pipeline.download(file)
    assert any_pipeline.streamed_from_primary == 0
    assert requests_for(livekit, recording) == []
    assert (upload.sha256, upload.source_etag_by_warehouse) == ("", _stored(recording).etag)
    assert place.landed() == []
    entry = any_pipeline.land(file, upload)
    _lands_right(place, recording, entry)
    assert entry.verified_by == ("length", "event_size", "source_etag", "destination_etag", "read_back")
    assert entry.unverified == ()
    assert any_pipeline.streamed_from_primary == 0


@pytest.mark.parametrize(
    ("size", "written", "passes"), [(9 * MIB, 8 * MIB, 2), (20 * MIB, 0, 1), (0, 0, 1)], ids=["8 MiB", "PUT", "empty"]
)
def test_what_a_copy_would_not_prove_passes_through(
    any_pipeline: Pipeline,
    place: Place,
    any_store: S3ObjectStore,
    livekit: FakeLiveKit,
    size: int,
    written: int,
    passes: int,
) -> None:
    recording = _record(livekit, size, written)
    acme = _bucket(place.client)
    _put(place.client, acme, "1.mp4", _stored(recording).content, written)
    any_pipeline.primary = any_store
    file = _in_primary(any_pipeline, recording, f"s3://{acme}/1.mp4")
    entry = any_pipeline.land(file, any_pipeline.download(file))
    assert any_pipeline.streamed_from_primary == 1
    _lands_right(place, recording, entry)
    assert "source_etag" in entry.verified_by


@pytest.mark.parametrize("any_s3", ["localstack"], indirect=True)
@pytest.mark.parametrize("streams", [1, 4])
def test_between_two_servers_the_bytes_pass_through(
    any_pipeline: Pipeline,
    place: Place,
    s3_server: EmbeddedS3,
    s3_client: Any,
    livekit: FakeLiveKit,
    monkeypatch: pytest.MonkeyPatch,
    streams: int,
) -> None:
    recording = _record(livekit, LONG)
    acme = _bucket(s3_client)
    _put(s3_client, acme, "1.mp4", _stored(recording).content, PART)
    monkeypatch.setenv("AIRFLOW_CONN_ACME", s3_server.airflow_connection())
    any_pipeline.primary = S3ObjectStore("acme")
    any_pipeline.streams = streams
    file = _in_primary(any_pipeline, recording, f"s3://{acme}/1.mp4")
    upload = any_pipeline.download(file)
    assert any_pipeline.streamed_from_primary == 1
    assert upload.sha256 == _stored(recording).sha256
    entry = any_pipeline.land(file, upload)
    _lands_right(place, recording, entry)
    assert entry.verified_by == ("length", "event_size", "source_etag", "destination_crc64nvme", "destination_etag")


def test_a_file_that_left_the_customers_bucket_is_missing(
    any_pipeline: Pipeline, place: Place, any_store: S3ObjectStore, livekit: FakeLiveKit
) -> None:
    recording = _record(livekit, LONG)
    any_pipeline.primary = any_store
    file = _in_primary(any_pipeline, recording, f"s3://{_bucket(place.client)}/1.mp4")
    with pytest.raises(MissingError):
        any_pipeline.download(file)
    _land_nothing(place)


def test_an_hls_recording_that_lies_in_two_buckets_is_whole_in_the_warehouse(
    any_pipeline: Pipeline, place: Place, any_store: S3ObjectStore, livekit: FakeLiveKit
) -> None:
    recording = livekit.record_hls("hls/room", segments=3, segment_size=300_000, in_primary=1)
    acme = _bucket(place.client)
    in_primary = [stored for stored in recording.files.values() if stored.in_primary]
    assert len(in_primary) == 1
    for stored in in_primary:
        _put(place.client, acme, stored.filename, stored.content, 0)
    any_pipeline.primary = any_store
    any_pipeline.find_primary = lambda location: f"s3://{acme}/{location.key_path}"
    any_pipeline.store_event(recording.event())

    statement = any_pipeline.run()

    assert {line.filename: line.outcome for line in statement.lines} == dict.fromkeys(recording.files, Outcome.LANDED)
    for line in statement.lines:
        assert line.sha256 == recording.sha256(line.filename) == place.sha256(line.landed_uri)
    assert any_pipeline.streamed_from_primary == 0
    assert place.open_uploads() == []
    assert is_safe(statement)
    assert len({line.landed_uri.rpartition("/")[0] for line in statement.lines}) == 1
    for stored in in_primary:
        assert all(request.path != stored.path for request in livekit.requests)
