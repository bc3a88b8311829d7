"""Recovery of recordings from a stored event to a verified object, without Airflow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3

from livekit_backup.core import http_source
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.statements import is_safe, render
from livekit_backup.core.storage import split_uri
from livekit_backup.core.upload_notes import UploadNotes
from livekit_backup.errors import SourceUnavailableError, TransferInterruptedError
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import OpenUpload
from livekit_backup.models.settings import OnConflict, Settings
from livekit_backup.models.statement import Statement
from livekit_backup.testing import FakeLiveKit, Fault

from .recovery_pipeline import ATTEMPT, MIB, Pipeline


@pytest.fixture
def pipeline(store: S3ObjectStore, ledger: Ledger, settings: Settings, livekit: FakeLiveKit) -> Pipeline:
    return Pipeline(store, ledger, settings, livekit)


@pytest.fixture
def sha256_of(s3_client: Any) -> Callable[[str], str]:
    def read(uri: str) -> str:
        bucket, key = split_uri(uri)
        return hashlib.sha256(s3_client.get_object(Bucket=bucket, Key=key)["Body"].read()).hexdigest()

    return read


def outcomes(statement: Statement) -> dict[str, str]:
    return {line.filename: line.outcome.value for line in statement.lines}


def open_uploads(s3_client: Any, bucket: str) -> list[str]:
    return [upload["Key"] for upload in s3_client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


def test_every_kind_of_recording_lands_byte_for_byte(
    pipeline: Pipeline, livekit: FakeLiveKit, sha256_of: Callable[[str], str], s3_client: Any, bucket: str
) -> None:
    recordings = [
        livekit.record_file("egress/standup.mp4", size=12 * MIB + 17, room_name="Standup"),
        livekit.record_track("recordings/alice/TR_x.ogg", size=700_000),
        livekit.record_hls("hls/room-a", segments=4, segment_size=100_000, in_primary=1),
        livekit.record_images("thumbs/room-a", count=3),
    ]
    for recording in recordings:
        pipeline.store_event(recording.event())

    statement = pipeline.run()

    assert is_safe(statement)
    by_name = {line.filename: line for line in statement.lines}
    for recording in recordings:
        for name, stored in recording.files.items():
            line = by_name.pop(name)
            if stored.in_primary:
                assert line.outcome is Outcome.IN_PRIMARY
            else:
                assert line.outcome is Outcome.LANDED
                assert line.sha256 == recording.sha256(name) == sha256_of(line.landed_uri)
    assert not by_name
    assert not open_uploads(s3_client, bucket)


def test_a_second_run_fetches_nothing_and_says_already_landed(pipeline: Pipeline, livekit: FakeLiveKit) -> None:
    recording = livekit.record_file("a.mp4", size=6 * MIB)
    pipeline.store_event(recording.event())
    assert outcomes(pipeline.run()) == {"a.mp4": "landed"}
    before = [request for request in livekit.requests if request.path.endswith("a.mp4")]

    pipeline.attempt = Attempt(dag_id="d", run_id="r2")
    assert outcomes(pipeline.run()) == {"a.mp4": "already_landed"}

    assert [request for request in livekit.requests if request.path.endswith("a.mp4")] == before


def test_nothing_is_visible_before_it_is_verified(
    pipeline: Pipeline, livekit: FakeLiveKit, store: S3ObjectStore
) -> None:
    recording = livekit.record_file("a.mp4", size=6 * MIB)
    pipeline.store_event(recording.event())
    (file,) = pipeline.plan(pipeline.ingest()).to_recover
    upload = pipeline.download(file)
    assert store.head(file.landing_uri) is None
    pipeline.land(file, upload)
    head = store.head(file.landing_uri)
    assert head is not None and head.metadata["livekit-egress-id"] == recording.egress_id


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 10 * MIB])
def test_sizes_around_the_part_size_land(
    pipeline: Pipeline, livekit: FakeLiveKit, sha256_of: Callable[[str], str], size: int
) -> None:
    recording = livekit.record_file("a.mp4", size=size)
    pipeline.store_event(recording.event())
    (line,) = pipeline.run().lines
    assert (line.outcome, line.size) == (Outcome.LANDED, size), line.reason
    assert sha256_of(line.landed_uri) == recording.sha256("a.mp4")


@pytest.mark.parametrize(
    ("fault", "details", "outcome"),
    [
        (Fault.WRONG_BYTES, {}, "corrupt"),
        (Fault.TRUNCATED, {}, "corrupt"),
        (Fault.NOT_FOUND, {}, "missing"),
        (Fault.EXPIRED, {}, "expired"),
        (Fault.REDIRECT, {"location": "http://169.254.169.254/"}, "refused"),
        (Fault.SERVER_ERROR, {}, "failed"),
        (Fault.NO_LENGTH, {}, "failed"),
        (Fault.GZIP, {}, "failed"),
        (Fault.HTML_ERROR, {}, "failed"),
    ],
)
def test_a_broken_source_lands_nothing_and_is_named(
    pipeline: Pipeline,
    livekit: FakeLiveKit,
    s3_client: Any,
    bucket: str,
    fault: Fault,
    details: dict[str, Any],
    outcome: str,
) -> None:
    bad = livekit.record_file("bad.mp4", size=6 * MIB)
    good = livekit.record_file("good.mp4", size=6 * MIB)
    for recording in (bad, good):
        pipeline.store_event(recording.event())
    livekit.break_(bad, fault, **details)

    statement = pipeline.run()

    assert outcomes(statement) == {"bad.mp4": outcome, "good.mp4": "landed"}
    assert not is_safe(statement)
    (line,) = statement.unsafe
    assert line.reason and "Signature" not in render(statement)
    assert not open_uploads(s3_client, bucket)
    listed = s3_client.list_objects_v2(Bucket=bucket, Prefix="warehouse/dt=")["Contents"]
    assert [item["Key"].rpartition("/")[2] for item in listed] == ["good.mp4"]


@pytest.mark.parametrize("fault", [Fault.CUT_SHORT, Fault.RESET])
def test_a_broken_body_is_resumed_behind_the_last_good_byte(
    pipeline: Pipeline, livekit: FakeLiveKit, fault: Fault
) -> None:
    recording = livekit.record_file("a.mp4", size=11 * MIB)
    pipeline.store_event(recording.event())
    livekit.break_(recording, fault, times=2)
    (line,) = pipeline.run().lines
    assert line.outcome is Outcome.LANDED, line.reason
    assert line.sha256 == recording.sha256("a.mp4")
    requests = [request for request in livekit.requests if request.path.endswith("a.mp4")]
    assert [bool(request.range) for request in requests] == [False, True, True]


@pytest.mark.parametrize(
    ("fault", "reason"), [(Fault.SLOW, "too slow"), (Fault.STALL, "broke off")], ids=["drip", "stall"]
)
def test_a_body_that_never_ends_is_given_up(
    pipeline: Pipeline,
    livekit: FakeLiveKit,
    monkeypatch: pytest.MonkeyPatch,
    s3_client: Any,
    bucket: str,
    fault: Fault,
    reason: str,
) -> None:
    monkeypatch.setattr(http_source, "RATE_WINDOW_SECONDS", 0.3)
    monkeypatch.setattr(http_source, "_TIMEOUT", urllib3.Timeout(connect=1.0, read=0.3))
    recording = livekit.record_file("a.mp4", size=6 * MIB)
    pipeline.store_event(recording.event())
    livekit.break_(recording, fault)
    (file,) = pipeline.plan(pipeline.ingest()).to_recover
    with pytest.raises(TransferInterruptedError, match=reason):
        pipeline.download(file)
    assert outcomes(pipeline.statement()) == {"a.mp4": "failed"}
    assert not open_uploads(s3_client, bucket)


def test_a_wrong_byte_on_the_way_is_fetched_again(pipeline: Pipeline, livekit: FakeLiveKit) -> None:
    recording = livekit.record_file("a.mp4", size=6 * MIB)
    pipeline.store_event(recording.event())
    livekit.break_(recording, Fault.WRONG_BYTES, times=1)
    assert outcomes(pipeline.run()) == {"a.mp4": "landed"}


def test_a_source_that_changes_in_the_middle_is_not_mixed(
    pipeline: Pipeline, livekit: FakeLiveKit, s3_client: Any, bucket: str
) -> None:
    recording = livekit.record_file("a.mp4", size=12 * MIB)
    pipeline.store_event(recording.event())
    livekit.break_(recording, Fault.CUT_SHORT, times=1)
    livekit.break_(recording, Fault.CHANGED_ETAG)
    (file,) = pipeline.plan(pipeline.ingest()).to_recover
    pipeline.recover(file)
    starts = [request.range for request in livekit.requests if request.path.endswith("a.mp4")]
    assert starts == [None, f"bytes={6 * MIB}-", None, None]
    assert outcomes(pipeline.statement()) == {"a.mp4": "corrupt"}, "the bytes do not have the ETag that came with them"
    assert not open_uploads(s3_client, bucket)


def test_a_link_that_died_before_the_run_is_lost_by_name_and_not_asked_for(
    pipeline: Pipeline, livekit: FakeLiveKit
) -> None:
    recording = livekit.record_file("old.mp4", size=1000, uploaded_at=datetime.now(UTC) - timedelta(days=8))
    pipeline.store_event(recording.event())
    statement = pipeline.run()
    assert outcomes(statement) == {"old.mp4": "expired"}
    assert is_safe(statement), "nothing of it could be recovered any more"
    assert "LOST" in render(statement)
    assert not livekit.requests


def test_a_failed_egress_without_manifest_is_recovered_from_its_results(
    pipeline: Pipeline, livekit: FakeLiveKit
) -> None:
    recording = livekit.record_file("a.mp4", size=1000)
    pipeline.store_event(recording.event(status="EGRESS_FAILED", with_manifest=False))
    assert outcomes(pipeline.run()) == {"a.mp4": "landed"}


@pytest.mark.parametrize("fault", [Fault.NOT_JSON, Fault.NOT_FOUND, Fault.SERVER_ERROR, Fault.HTML_ERROR])
def test_without_its_manifest_what_the_event_knows_is_recovered_and_the_rest_named(
    pipeline: Pipeline, livekit: FakeLiveKit, fault: Fault
) -> None:
    hls = livekit.record_hls("hls/room", segments=3, segment_size=1000)
    other = livekit.record_file("other.mp4", size=1000)
    for recording in (hls, other):
        pipeline.store_event(recording.event())
    livekit.break_(hls.manifest_object, fault)
    statement = pipeline.run()
    found = outcomes(statement)
    assert found.pop("other.mp4") == "landed"
    (stand_in,) = [name for name in found if name.startswith("(3 segments of ")]
    # A manifest that did not answer may answer a later run.
    # A page is a gateway that is not well.
    is_passing = fault in (Fault.SERVER_ERROR, Fault.HTML_ERROR)
    assert found.pop(stand_in) == ("failed" if is_passing else "unresolved")
    assert set(found.values()) == {"landed"}
    assert not is_safe(statement)


def test_a_manifest_that_lists_too_little_is_noticed(pipeline: Pipeline, livekit: FakeLiveKit) -> None:
    hls = livekit.record_hls("hls/room", segments=3, segment_size=1000)
    event = hls.event()
    for results in event["egressInfo"]["segmentResults"]:
        results["segmentCount"] = "5"
    pipeline.store_event(event)
    statement = pipeline.run()
    assert outcomes(statement)["(2 of 5 segments)"] == "unresolved"


def test_a_month_later_the_statement_is_the_same(pipeline: Pipeline, livekit: FakeLiveKit) -> None:
    images = livekit.record_images("thumbs/room", count=2)
    pipeline.store_event(images.event())
    first = pipeline.run()
    assert set(outcomes(first).values()) == {"landed"}
    livekit.break_(images.manifest_object, Fault.EXPIRED)
    pipeline.attempt = Attempt(dag_id="d", run_id="r2")
    second = pipeline.run()
    assert set(outcomes(second)) == set(outcomes(first))
    assert set(outcomes(second).values()) == {"already_landed"}


def test_other_content_at_the_landing_key_is_never_replaced(
    pipeline: Pipeline, livekit: FakeLiveKit, store: S3ObjectStore, s3_client: Any, bucket: str
) -> None:
    recording = livekit.record_file("a.mp4", size=1000)
    pipeline.store_event(recording.event())
    (file,) = pipeline.plan(pipeline.ingest()).to_recover
    store.put(file.landing_uri, b"someone else's")
    pipeline.recover(file, on_conflict=OnConflict.FAIL, small=0)
    statement = pipeline.statement()
    assert outcomes(statement) == {"a.mp4": "failed"}
    assert "other content" in statement.lines[0].reason
    assert store.get(file.landing_uri) == b"someone else's"
    assert len(open_uploads(s3_client, bucket)) == 1, "all its bytes are up, and its link may die before there is room"


def test_killed_between_landing_and_ledger_the_next_try_writes_it_down(
    pipeline: Pipeline, livekit: FakeLiveKit, store: S3ObjectStore, ledger: Ledger
) -> None:
    recording = livekit.record_file("a.mp4", size=6 * MIB)
    pipeline.store_event(recording.event())
    (file,) = pipeline.plan(pipeline.ingest()).to_recover
    upload = pipeline.download(file)
    pipeline.land(file, upload)
    store.delete(ledger.entry_uri(file.egress_id, file.run, file.filename))
    assert pipeline.land(file, upload).outcome is Outcome.LANDED
    assert outcomes(pipeline.statement()) == {"a.mp4": "landed"}


def test_a_lost_ledger_does_not_land_twice(
    pipeline: Pipeline,
    livekit: FakeLiveKit,
    store: S3ObjectStore,
    ledger: Ledger,
    s3_client: Any,
    bucket: str,
) -> None:
    recording = livekit.record_file("a.mp4", size=6 * MIB)
    pipeline.store_event(recording.event())
    pipeline.run()
    (file,) = pipeline.plan(pipeline.ingest()).to_recover
    store.delete(ledger.entry_uri(file.egress_id, file.run, file.filename))
    pipeline.recover(file)
    assert outcomes(pipeline.statement()) == {"a.mp4": "landed"}
    assert len(s3_client.list_objects_v2(Bucket=bucket, Prefix="warehouse/dt=")["Contents"]) == 1
    assert not open_uploads(s3_client, bucket)


def test_an_upload_left_open_by_a_killed_try_is_dropped_by_the_next(
    pipeline: Pipeline, livekit: FakeLiveKit, store: S3ObjectStore, s3_client: Any, bucket: str
) -> None:
    recording = livekit.record_file("a.mp4", size=6 * MIB)
    pipeline.store_event(recording.event())
    (file,) = pipeline.plan(pipeline.ingest()).to_recover
    killed = store.create_upload(file.landing_uri, content_type="video/mp4", metadata={}).upload_id
    noted = OpenUpload(landing_uri=file.landing_uri, upload_id=killed)
    UploadNotes(pipeline.ledger, ATTEMPT).put(file, noted)
    upload = pipeline.download(file)
    assert upload.upload_id != killed
    assert len(open_uploads(s3_client, bucket)) == 1


@pytest.mark.parametrize("is_whole", [True, False])
def test_files_whose_tasks_died_without_a_word_are_failed_and_uploads_of_parts_dropped(
    pipeline: Pipeline, livekit: FakeLiveKit, s3_client: Any, bucket: str, is_whole: bool
) -> None:
    recording = livekit.record_file("a.mp4", size=6 * MIB)
    pipeline.store_event(recording.event())
    (file,) = pipeline.plan(pipeline.ingest()).to_recover
    if not is_whole:
        livekit.break_(recording, Fault.CUT_SHORT, at=5 * MIB + 1000, times=1)
        livekit.break_(recording, Fault.SERVER_ERROR)
        with pytest.raises(SourceUnavailableError):
            pipeline.download(file)
    else:
        pipeline.download(file)
    assert open_uploads(s3_client, bucket)
    statement = pipeline.statement()
    assert outcomes(statement) == {"a.mp4": "failed"}
    assert not is_safe(statement)
    assert bool(open_uploads(s3_client, bucket)) == is_whole


def test_two_events_of_one_run_are_one_backup_and_two_runs_are_two(pipeline: Pipeline, livekit: FakeLiveKit) -> None:
    now = datetime.now(UTC)
    first = livekit.record_file("a.mp4", size=1000, egress_id="EG_same", started_at=now - timedelta(hours=30))
    pipeline.store_event(first.event())
    pipeline.store_event(first.event(event_id="EV_again"))
    second = livekit.record_file("b.mp4", size=1000, egress_id="EG_same", started_at=now - timedelta(hours=2))
    pipeline.store_event(second.event())
    intake = pipeline.ingest()
    assert [backup.egress_id for backup in intake.backups] == ["EG_same", "EG_same"]
    assert sorted(len(backup.events) for backup in intake.backups) == [1, 2]


def test_a_landed_object_that_was_removed_is_not_called_safe_for_ever(
    pipeline: Pipeline, livekit: FakeLiveKit, store: S3ObjectStore
) -> None:
    recording = livekit.record_file("a.mp4", size=1000)
    pipeline.store_event(recording.event())
    (line,) = pipeline.run().lines
    store.delete(line.landed_uri)
    assert outcomes(pipeline.run()) == {"a.mp4": "landed"}, "while the link lives it is recovered again"
    store.delete(line.landed_uri)
    livekit.break_(recording, Fault.EXPIRED)
    assert outcomes(pipeline.run()) == {"a.mp4": "expired"}


def test_a_manifest_that_does_not_answer_is_no_verdict(pipeline: Pipeline, livekit: FakeLiveKit) -> None:
    hls = livekit.record_hls("hls/room", segments=2, segment_size=1000)
    movie = livekit.record_file("movie.mp4", size=1000)
    pipeline.store_event(hls.event())
    segment = next(file for file in pipeline.plan(pipeline.ingest()).to_recover if file.kind == "segment")
    for recording in (hls, movie):
        livekit.break_(recording.manifest_object, Fault.SERVER_ERROR)
    with pytest.raises(SourceUnavailableError):
        pipeline.download(segment)
    with pytest.raises(SourceUnavailableError, match="1 manifests did not answer"):
        pipeline.plan(pipeline.ingest(), patient=True)
    pipeline.store_event(movie.event())
    with pytest.raises(SourceUnavailableError, match="1 manifests did not answer"):
        pipeline.plan(pipeline.ingest(), patient=True)


def test_more_files_than_one_run_may_map_go_on_in_the_next(pipeline: Pipeline, livekit: FakeLiveKit) -> None:
    images = livekit.record_images("thumbs/room", count=5)
    pipeline.store_event(images.event())
    plan = pipeline.plan(pipeline.ingest(), most=3)
    assert len(plan.to_recover) == 3
    for file in plan.to_recover:
        pipeline.recover(file)
    statement = pipeline.statement()
    assert sorted(outcomes(statement).values()) == ["failed", "failed", "landed", "landed", "landed"]
    assert not is_safe(statement)
    for file in pipeline.plan(pipeline.ingest(), most=3).to_recover:
        pipeline.recover(file)
    assert is_safe(pipeline.statement())


@pytest.mark.parametrize("form", ["json", "pretty", "jsonl", "array", "gzip", "zstd"])
def test_every_form_of_inbox_object_is_read(pipeline: Pipeline, livekit: FakeLiveKit, form: str) -> None:
    recording = livekit.record_file("a.mp4", size=10)
    pipeline.store_event(recording.event(), format=form)
    assert [backup.egress_id for backup in pipeline.ingest().backups] == [recording.egress_id]
