"""A source over real HTTP that asks to be left alone, and a task that may not take all of the network."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from livekit_backup.core import resuming_reader
from livekit_backup.core.downloading import Download
from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.locations import Location
from livekit_backup.core.pacing import BURST_SECONDS, Pace
from livekit_backup.core.resuming_reader import ResumingReader
from livekit_backup.errors import SourceUnavailableError
from livekit_backup.testing import FakeLiveKit, Fault, Recording

from .recovery_pipeline import MIB, Pipeline, Place, ranges_of, requests_for

PART = 5 * MIB
SIZE = 12 * MIB + 17
on_one_server = pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
"""Its part is played by the source alone."""


class Stopping(threading.Event):
    """Takes no time to wait, and notes how long it should have taken."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


def _recording(livekit: FakeLiveKit, *faults: tuple[Fault, dict[str, Any]]) -> Recording:
    recording = livekit.record_file("egress/a.mp4", size=SIZE)
    for fault, details in faults:
        livekit.break_(recording, fault, times=1, **details)
    return recording


def _read(livekit: FakeLiveKit, recording: Recording) -> tuple[bytes, list[float]]:
    [stored] = recording.files.values()
    source = HttpSource(Location(stored.url()), (livekit.base_url.partition("://")[2],))
    body = source.open()
    data, stopping = bytearray(body.size), Stopping()
    reader = ResumingReader(source, body.size, body.version, body=body)
    reader.fill(memoryview(data), stopping)
    reader.close()
    return bytes(data), stopping.waits


HALF = (Fault.CUT_SHORT, {"at": 0.5})


def test_what_a_429_asks_for_is_waited_for_and_a_503_is_asked_later_each_time(
    livekit: FakeLiveKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming_reader, "FIRST_WAIT_SECONDS", 1.0)
    busy = (Fault.SERVER_ERROR, {"status": 503})
    recording = _recording(livekit, HALF, (Fault.TOO_MANY_REQUESTS, {"retry_after": 7}), busy)
    data, waits = _read(livekit, recording)
    assert data == b"".join(next(iter(recording.files.values())).content.pieces())
    asked, later = waits
    assert 7 + 1 <= asked <= 7 + 2, "behind the cut, which was no refusal and waited for nothing"
    assert 2 <= later <= 4
    assert len(requests_for(livekit, recording)) == 4


def test_a_real_wait_takes_its_time(livekit: FakeLiveKit) -> None:
    recording = _recording(livekit, HALF, (Fault.TOO_MANY_REQUESTS, {"retry_after": 1}))
    [stored] = recording.files.values()
    source = HttpSource(Location(stored.url()), (livekit.base_url.partition("://")[2],))
    began = time.monotonic()
    reader = ResumingReader(source, SIZE, source.open().version)
    reader.fill(memoryview(bytearray(SIZE)), threading.Event())
    reader.close()
    assert time.monotonic() - began >= 1


@on_one_server
def test_a_long_retry_after_ends_the_try_and_the_next_reads_the_rest(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit
) -> None:
    recording = _recording(livekit, HALF, (Fault.TOO_MANY_REQUESTS, {"retry_after": 3600}))
    file = any_pipeline.planned(recording)
    with pytest.raises(SourceUnavailableError, match="429") as raised:
        any_pipeline.download(file)
    assert raised.value.retry_after == 3600, "for the retry policy"
    assert len(requests_for(livekit, recording)) == 2
    assert place.landed() == []
    upload = any_pipeline.download(file)
    assert ranges_of(requests_for(livekit, recording))[-1] == f"{PART}-", "the parts that were up are not read again"
    entry = any_pipeline.land(file, upload)
    assert entry.sha256 == place.sha256(entry.landed_uri)


class Clock:
    """Runs only while somebody waits."""

    def __init__(self) -> None:
        self.now, self._lock = 0.0, threading.Lock()

    def __call__(self) -> float:
        return self.now

    def wait(self, stopping: threading.Event, seconds: float) -> None:
        with self._lock:
            self.now += seconds


@pytest.mark.parametrize("streams", [1, 3])
@on_one_server
def test_a_download_keeps_to_its_bytes_a_second(
    any_pipeline: Pipeline, place: Place, livekit: FakeLiveKit, streams: int
) -> None:
    recording = _recording(livekit)
    file = any_pipeline.planned(recording)
    clock = Clock()
    pace = Pace(MIB, clock=clock, wait=clock.wait)
    download = Download(
        file,
        any_pipeline.store,
        any_pipeline.ledger,
        any_pipeline.attempt,
        any_pipeline.abilities(),
        streams=streams,
        pace=pace,
    )
    upload = download.run(lambda: any_pipeline.source(file))
    assert clock.now >= SIZE / MIB - BURST_SECONDS
    entry = any_pipeline.land(file, upload)  # type: ignore[arg-type]
    assert entry.sha256 == place.sha256(entry.landed_uri)
