"""Downloads that are killed with SIGKILL: what is up stays up, and what lands is right."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from livekit_backup.core.etags import etag_rule
from livekit_backup.core.part_plan import plan_parts
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import IN_WAREHOUSE, Outcome
from livekit_backup.models.references import RecordingFile, Upload
from livekit_backup.testing import FakeLiveKit, Fault, Recording, backup_server
from livekit_backup.testing.s3_endpoint import S3Endpoint

from .killed_download_process import Job, Nursery, nursery
from .recovery_pipeline import MIB, SOCKETS, Pipeline, Place, ranges_of, requests_for

PART = 5 * MIB
PACE = 96 * MIB
"""Bytes/s that the source gives: not so few that it takes long, nor so many that only the machine counts."""

on_swift = pytest.mark.parametrize("any_s3", ["swift"], indirect=True)


@pytest.fixture(scope="module")
def children(any_s3: S3Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with nursery(any_s3.airflow_connection(), tmp_path_factory.mktemp("children")) as ready:
        yield ready


def _wait(until: Callable[[], object], job: Job) -> None:
    """Wait for something that no event tells of; not longer than for the job's end."""
    while not until() and not job.has_ended:
        time.sleep(0.002)


def _end_of_parts(pipeline: Pipeline, place: Place, file: RecordingFile) -> int:
    """The offset behind the parts that are up without a gap."""
    opened = pipeline.opened(file)
    sizes = place.parts(opened) if opened else {}
    return sum(sizes[number] for number in itertools.takewhile(sizes.__contains__, itertools.count(1)))


def _lands_right(pipeline: Pipeline, place: Place, recording: Recording, file: RecordingFile, upload: Upload) -> None:
    entry = pipeline.land(file, upload)
    (stored,) = recording.files.values()
    assert entry.outcome is Outcome.LANDED
    assert (entry.size, entry.sha256) == (stored.size, stored.sha256)
    assert place.sha256(entry.landed_uri) == stored.sha256
    assert len(place.landed()) == 1
    assert place.open_uploads() == []


@pytest.mark.parametrize(
    ("size", "kills", "streams"), [(512 * MIB, 20, 1), (96 * MIB, 5, 4)], ids=["twenty times", "side by side"]
)
@on_swift
def test_killed_again_and_again_it_goes_on_each_time_and_lands(
    any_pipeline: Pipeline,
    place: Place,
    livekit: FakeLiveKit,
    children: Nursery,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    kills: int,
    streams: int,
) -> None:
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"KILL_SEED={seed}")
    chance = random.Random(seed)
    recording = livekit.record_file("long.mp4", size=size)
    (stored,) = recording.files.values()
    plan = plan_parts(size, etag_rule(stored.etag, size), any_pipeline.abilities())
    in_flight = (plan.buffers + streams - 1) * plan.part_size + streams * SOCKETS
    # The fake waits once a MiB at least.
    monkeypatch.setattr(backup_server, "_DRIP", MIB * streams / PACE)
    livekit.break_(recording, Fault.SLOW, bytes_per_second=PACE // streams)
    file = any_pipeline.planned(recording)
    any_pipeline.streams = streams

    up = sent = 0
    for left in range(kills, 0, -1):
        livekit.requests.clear()
        # So far on the average that the kills fall all over the file; the first before anything has begun.
        enough = int(chance.uniform(0, 2) * (size - up) / (left + 1)) if left < kills else 0
        job = children.start(any_pipeline, file)
        _wait(lambda enough=enough: livekit.bytes_sent(recording) >= enough, job)
        job.kill()
        while livekit._server.connections:
            # What it asked for last may not be noted yet.
            time.sleep(0.002)
        _nothing_that_is_up_is_asked_for(livekit, recording, up, streams)
        print(f"killed after {livekit.bytes_sent(recording) / MIB:.1f} MiB", end="; ")
        before, up = up, _end_of_parts(any_pipeline, place, file)
        print(f"{up / MIB:.0f} MiB are up")
        assert up >= before + max(0, livekit.bytes_sent(recording) - in_flight)
        sent += livekit.bytes_sent(recording)
    livekit.requests.clear()
    upload = Upload.model_validate(children.start(any_pipeline, file).wait()["upload"])
    _nothing_that_is_up_is_asked_for(livekit, recording, up, streams)
    sent += livekit.bytes_sent(recording)
    print(f"sent {sent / size:.2f} times its size")
    assert sent <= size + kills * in_flight
    _lands_right(any_pipeline, place, recording, file, upload)


def _nothing_that_is_up_is_asked_for(livekit: FakeLiveKit, recording: Recording, up: int, streams: int) -> None:
    starts = [int(str(asked or 0).partition("-")[0]) for asked in ranges_of(requests_for(livekit, recording))]
    assert all(start >= up for start in starts)
    assert len(set(starts)) == len(starts), "nothing is asked for twice in a try"
    assert streams > 1 or len(starts) <= 1


@on_swift
def test_killed_at_ninety_percent_it_fetches_little_again(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, children: Nursery
) -> None:
    size = 64 * MIB
    recording = livekit.record_file("a.mp4", size=size)
    file = any_pipeline.planned(recording)
    livekit.break_(recording, Fault.STALL, times=1, at=0.9)
    job = children.start(any_pipeline, file)
    whole_parts = size * 9 // 10 // PART * PART
    _wait(lambda: livekit.bytes_sent(recording) == size * 9 // 10, job)
    _wait(lambda: _end_of_parts(any_pipeline, place, file) == whole_parts, job)
    job.kill()
    assert _end_of_parts(any_pipeline, place, file) == whole_parts
    upload = Upload.model_validate(children.start(any_pipeline, file).wait()["upload"])
    assert ranges_of(requests_for(livekit, recording)) == [None, f"{whole_parts}-"]
    assert livekit.bytes_sent(recording) == size * 9 // 10 + size - whole_parts <= size * 1.15
    assert upload.sha256 == ""
    _lands_right(any_pipeline, place, recording, file, upload)


def test_two_processes_at_once_land_one_object(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, children: Nursery
) -> None:
    recording = livekit.record_file("a.mp4", size=32 * MIB + 5)
    file = any_pipeline.planned(recording)
    jobs = [children.start(any_pipeline, file) for _ in range(2)]
    uploads = [Upload.model_validate(job.wait()["upload"]) for job in jobs]
    assert [upload.size for upload in uploads] == [32 * MIB + 5] * 2
    # One after the other: of two completions at the same instant, both servers let both win.
    landed = (children.start(any_pipeline, file, upload=upload, land=True).wait() for upload in uploads)
    entries = [LedgerEntry.model_validate(outcome["entry"]) for outcome in landed]
    assert [entry.outcome for entry in entries] == [Outcome.LANDED, Outcome.ALREADY_LANDED]
    (stored,) = recording.files.values()
    assert {entry.sha256 for entry in entries} == {stored.sha256}
    assert place.sha256(file.landing_uri) == stored.sha256
    assert place.landed() == ["a.mp4"]
    assert place.open_uploads() == []
    assert any_pipeline.ledger.find_landed(file)


def test_killed_behind_each_call_of_the_store_the_next_try_lands(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, children: Nursery
) -> None:
    size = 3 * MIB if place.is_strict else PART + 1
    for calls in itertools.count(1):
        recording = livekit.record_file(f"{calls}.mp4", size=size)
        file = any_pipeline.planned(recording)
        was_killed = children.start(any_pipeline, file, land=True, die_after=calls).wait_until_killed()
        seen = place.landed().count(f"{calls}.mp4")
        assert not seen or place.sha256(file.landing_uri) == recording.sha256(f"{calls}.mp4")
        entry = LedgerEntry.model_validate(children.start(any_pipeline, file, land=True).wait()["entry"])
        assert entry.outcome in IN_WAREHOUSE, calls
        assert entry.sha256 == recording.sha256(f"{calls}.mp4") == place.sha256(file.landing_uri)
        assert place.open_uploads() == [], calls
        assert any_pipeline.ledger.find_landed(file), calls
        if not was_killed:
            break
    assert calls > 10, "it makes so many calls at least"
    print(f"killed behind each of {calls} calls")
    assert len(place.landed()) == calls
