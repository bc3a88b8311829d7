"""``verify = strict`` and ``probe`` into real S3 servers: lying ones, real media, and media that lost bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core.ledger import Ledger
from livekit_backup.core.media_probe import MediaProbe
from livekit_backup.core.recovering import FileRecovery
from livekit_backup.core.statements import is_safe, render
from livekit_backup.errors import ChecksumMismatchError, UnprovenError, UploadLostError
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import FileKind, RecordingFile
from livekit_backup.models.settings import Verify
from livekit_backup.models.store_abilities import StoreAbilities
from livekit_backup.testing import FakeLiveKit, Recording
from livekit_backup.testing.synthetic_bytes import LiteralBytes

from ..media_samples import FORMATS, SECONDS, damaged, media
from .altering_s3_proxy import AlteringS3Proxy
from .recovery_pipeline import MIB, Pipeline, Place, pipeline_at, requests_for

STARTED = datetime.now(UTC) - timedelta(minutes=10)
SIZES = pytest.mark.parametrize("size", [3 * MIB, 12 * MIB + 5], ids=["small", "in parts"])
WHOLE_TABLE = bool(os.environ.get("LIVEKIT_BACKUP_ALL_DAMAGE"))
"""Every kind damaged in every way on every server, as the unit tests do it: a minute and a half."""
HOW = {8 * MIB: {"good", "cut in half"}, -1: {"good", "one byte short"}}
UNSEEN = {("mp3", "one byte short"), ("mp3", "cut at 99 percent")}


def _both_tasks(recovery: FileRecovery, file: RecordingFile) -> list[LedgerEntry]:
    recovery.download([file])
    return recovery.land([file])


@SIZES
def test_strict_lands_what_it_has_read_back(
    any_pipeline: Pipeline, livekit: FakeLiveKit, place: Place, size: int
) -> None:
    recording = livekit.record_file("a.mp4", size=size)
    file = any_pipeline.planned(recording)
    [entry] = _both_tasks(any_pipeline.recovery(verify=Verify.STRICT), file)
    known = any_pipeline.ledger.read(file)
    assert known is not None
    assert known.verified_by[:3] == ("length", "event_size", "source_etag")
    assert known.verified_by[-1] == "read_back"
    assert known.sha256 == recording.sha256("a.mp4") == place.sha256(entry.landed_uri)


@SIZES
def test_strict_shows_nothing_of_what_nothing_proves_and_keeps_it(
    place: Place, any_store: S3ObjectStore, any_abilities: StoreAbilities, size: int
) -> None:
    with FakeLiveKit(encryption="aws:kms") as livekit:
        recording = livekit.record_file("a.mp4", size=size)
        pipeline = pipeline_at(place, any_store, any_abilities, livekit)
        file = pipeline.planned(recording)
        recovery = pipeline.recovery(verify=Verify.STRICT)
        with pytest.raises(UnprovenError, match="verify is strict"):
            _both_tasks(recovery, file)
        assert place.landed() == []
        is_kept = size > recovery.small
        assert len(place.open_uploads()) == is_kept
        statement = pipeline.statement()
        assert "nothing proves the bytes of 'a.mp4'" in render(statement)
        assert not is_safe(statement)
        assert len(place.open_uploads()) == is_kept, "the report keeps it too"
        asked = len(requests_for(livekit, recording))
        if is_kept:
            # Its failed task alone, as a person clears it.
            pipeline.recovery().land([file])
        else:
            pipeline.recover(file)
        known = pipeline.ledger.read(file)
        assert known is not None
        assert known.outcome is Outcome.LANDED
        assert place.sha256(known.landed_uri) == recording.sha256("a.mp4")
        assert (len(requests_for(livekit, recording)) > asked) is not is_kept
        assert place.open_uploads() == []


@pytest.fixture
def lying(
    place: Place, any_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Pipeline, AlteringS3Proxy]]:
    """A pipeline whose store is reached by a way that alters."""
    with AlteringS3Proxy(place.server.endpoint_url) as proxy:
        monkeypatch.setenv(
            "AIRFLOW_CONN_LYING",
            place.server.airflow_connection().replace(place.server.endpoint_url, proxy.endpoint_url),
        )
        store = S3ObjectStore("lying")
        any_pipeline.store, any_pipeline.ledger = store, Ledger(store, any_pipeline.settings.ledger)
        yield any_pipeline, proxy


@SIZES
@pytest.mark.parametrize("lies", [1, 99], ids=["once", "always"])
def test_an_object_that_reads_back_wrong_is_removed_unless_it_was_the_reading(
    lying: tuple[Pipeline, AlteringS3Proxy], livekit: FakeLiveKit, place: Place, size: int, lies: int
) -> None:
    pipeline, proxy = lying
    recording = livekit.record_file("a.mp4", size=size)
    file = pipeline.planned(recording)
    told = []

    def alter(method: str, path: str, body: bytes) -> bytes:
        if (
            method == "GET"
            and path.partition("?")[0].endswith("/a.mp4")
            and "uploadId" not in path
            and len(told) < lies
        ):
            told.append(path)
            return bytes([body[0] ^ 1]) + body[1:]
        return body

    proxy.alteration = alter
    recovery = pipeline.recovery(verify=Verify.STRICT)
    if lies == 1:
        [entry] = _both_tasks(recovery, file)
        assert place.sha256(entry.landed_uri) == recording.sha256("a.mp4")
    else:
        is_small = size <= recovery.small
        with pytest.raises(ChecksumMismatchError if is_small else UploadLostError, match="nothing was left there"):
            _both_tasks(recovery, file)
        assert place.landed() == []
        assert place.open_uploads() == []
        [line] = pipeline.statement().lines
        assert (line.outcome, "reads back with another SHA-256" in line.reason) == (Outcome.FAILED, True)
        assert len(told) == (2 if is_small else 4), "one in parts is fetched once more"
    assert told


def _record(livekit: FakeLiveKit, name: str, data: bytes) -> Recording:
    # The output begins two seconds behind the egress.
    ended = STARTED + timedelta(seconds=SECONDS + 2)
    recording = livekit.record_file(name, size=len(data), started_at=STARTED, ended_at=ended)
    recording.files[name].content = LiteralBytes(data)
    return recording


@pytest.mark.parametrize("small", [8 * MIB, -1], ids=["small", "in parts"])
def test_real_media_is_not_suspect_and_what_lost_bytes_is(
    any_pipeline: Pipeline, livekit: FakeLiveKit, place: Place, small: int
) -> None:
    variants = {
        f"{ending}/{how}.{ending}": data
        for ending in (FORMATS if small > 0 or WHOLE_TABLE else ("mp4", "faststart.mp4", "ogg"))
        for how, data in {"good": media(ending), **damaged(media(ending))}.items()
        if how in HOW[small] or WHOLE_TABLE
    }
    recordings = {name: _record(livekit, name, data) for name, data in variants.items()}
    for recording in recordings.values():
        any_pipeline.store_event(recording.event())
    files = any_pipeline.plan(any_pipeline.ingest()).to_recover
    assert len(files) == len(variants)

    with MediaProbe(any_pipeline.store, any_pipeline.ledger) as probe:
        any_pipeline.recovery(probe=probe, small=small).download(files)

    statement = any_pipeline.statement()
    assert is_safe(statement), "a suspect file is landed, and makes no run red"
    lines = {line.filename: line for line in statement.lines}
    for name, data in variants.items():
        ending, _, how = name.removesuffix(f".{name.partition('/')[0]}").partition("/")
        expected = how != "good" and (ending, how) not in UNSEEN
        assert bool(lines[name].suspect) is expected, (name, lines[name].suspect)
        assert lines[name].size == len(data)
    for file in files:
        entry = any_pipeline.ledger.read(file)
        assert entry is not None
        assert entry.verified_by[-1] == "probe", (entry.filename, entry.unverified)
    text = render(statement)
    assert f"SUSPECT ({sum(bool(line.suspect) for line in statement.lines)};" in text
    assert all(f"'{line.filename}': {line.suspect[0]}" in text for line in statement.suspects)


def test_an_hls_recording_is_looked_into_as_one(any_pipeline: Pipeline, livekit: FakeLiveKit) -> None:
    def run(egress_id: str, prefix: str, change: dict[str, bytes]) -> dict[str, tuple[str, ...]]:
        recording = livekit.record_hls(
            prefix, segments=3, egress_id=egress_id, started_at=STARTED, ended_at=STARTED + timedelta(seconds=20)
        )
        for name, stored in recording.files.items():
            if name.endswith(".ts"):
                stored.content = LiteralBytes(media("ts"))
            if name.removeprefix(f"{prefix}/") in change:
                stored.content = LiteralBytes(change[name.removeprefix(f"{prefix}/")])
        any_pipeline.attempt = any_pipeline.attempt.model_copy(update={"run_id": egress_id})
        any_pipeline.store_event(recording.event())
        intake = any_pipeline.ingest()
        mine = tuple(backup for backup in intake.backups if backup.egress_id == egress_id)
        files = any_pipeline.plan(intake.model_copy(update={"backups": mine})).to_recover
        with MediaProbe(any_pipeline.store, any_pipeline.ledger) as probe:
            any_pipeline.recovery(probe=probe).download(files)
        entries = [any_pipeline.ledger.read(file) for file in files]
        assert {file.kind for file in files} == {FileKind.PLAYLIST, FileKind.SEGMENT}
        return {
            entry.filename.removeprefix(f"{prefix}/"): entry.suspect for entry in entries if entry and entry.suspect
        }

    assert run("EG_good", "hls/good", {}) == {}
    order = b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:6,\nseg_00001.ts\n#EXTINF:6,\nseg_00000.ts\n"
    found = run("EG_bad", "hls/bad", {"seg_00002.ts": media("ts")[:-1], "index.m3u8": order})
    assert sorted(found) == ["index.m3u8", "seg_00002.ts"]
    assert "it was not ended: it has no EXT-X-ENDLIST" in found["index.m3u8"]
    assert any("out of order" in wrong for wrong in found["index.m3u8"])
    assert any("it plays 12.0 s, LiveKit's event says 18.0 s" in wrong for wrong in found["index.m3u8"])
    assert "no whole number of packets" in found["seg_00002.ts"][0]
