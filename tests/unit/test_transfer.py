"""Moving bytes through faults, with parts of 64 bytes."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livekit_backup.core import resuming_reader, transfer
from livekit_backup.core.checksums import Checksums
from livekit_backup.core.etags import multipart_etag
from livekit_backup.core.part_plan import PartPlan
from livekit_backup.core.resuming_reader import FRUITLESS_RESUMES
from livekit_backup.core.transfer import Transfer
from livekit_backup.errors import (
    LinkExpiredError,
    SourceChangedError,
    SourceUnavailableError,
    StorageUnavailableError,
    TransferInterruptedError,
)
from unit.fakes import MemorySource, crc64nvme_of

PART = 64


class MemorySink:
    """Keeps the parts, and holds each against its checksums."""

    def __init__(self):
        self.stored = {}

    def put_part(self, number, body, checksums):
        assert crc64nvme_of(bytes(body)) == checksums.crc64nvme
        self.stored[number] = bytes(body)
        return hashlib.md5(body).hexdigest()

    @property
    def data(self):
        return b"".join(self.stored[number] for number in sorted(self.stored))


class Bench:
    def __init__(self, data, *, first=1, **options):
        self.source = MemorySource(data, **options)
        self.plan = PartPlan(len(data), PART, md5_part_sizes=(PART, 0))
        self.checksums = Checksums(self.plan)
        self.sink = MemorySink()
        self.body = self.source.open((first - 1) * PART)
        self.first = first

    def run(self, sink=None, **options):
        sink = sink or self.sink
        transfer = Transfer(self.source, self.body, self.plan, self.checksums, first=self.first, **options)
        return transfer.run(lambda hashed: sink)


def _parts_of(data):
    return [data[start : start + PART] for start in range(0, len(data), PART)]


def _etag(data):
    return multipart_etag(hashlib.md5(part).digest() for part in _parts_of(data))


@settings(max_examples=80, deadline=None)
@given(
    data=st.binary(min_size=1, max_size=700),
    faults=st.lists(st.integers(0, 700), max_size=8),
    chunk=st.integers(1, 100),
    streams=st.sampled_from([1, 1, 3]),
)
def test_hashes_are_right_or_it_is_an_error(data, faults, chunk, streams):
    bench = Bench(data, etag=_etag(data), faults=faults, chunk=chunk)
    hit = [fault for fault in sorted(faults) if fault < len(data)]
    if max(Counter(hit).values(), default=0) > FRUITLESS_RESUMES and streams == 1:
        with pytest.raises(TransferInterruptedError, match="broke off"):
            bench.run()
    else:
        try:
            etags = bench.run(streams=streams)
        except TransferInterruptedError:
            assert streams > 1
        else:
            assert bench.sink.data == data
            assert etags == [hashlib.md5(part).hexdigest() for part in _parts_of(data)]
            assert bench.checksums.size == len(data)
            assert bench.checksums.sha256 == hashlib.sha256(data).hexdigest()
            assert bench.checksums.crc64nvme == crc64nvme_of(data)
            assert bench.checksums.etags() == (_etag(data), hashlib.md5(data).hexdigest())
            if streams == 1:
                assert [start for start, _ in bench.source.opened[1:]] == hit
    assert all(given_etag == _etag(data) for _, given_etag in bench.source.opened[1:])
    assert all(body.closed for body in bench.source.bodies)


def test_no_more_resumes_than_allowed():
    bench = Bench(b"x" * 100, faults=[50] * 99)
    with pytest.raises(TransferInterruptedError):
        bench.run()
    assert len(bench.source.opened) == 1 + FRUITLESS_RESUMES


def test_progress_starts_the_count_again_and_a_drip_does_not(monkeypatch):
    places = [place for place in range(10, 100, 10) for _ in range(FRUITLESS_RESUMES)]
    monkeypatch.setattr(resuming_reader, "FRUITFUL_BYTES", 10)
    bench = Bench(b"x" * 100, faults=places)
    bench.run()
    assert len(bench.source.opened) == 1 + len(places)
    monkeypatch.setattr(resuming_reader, "FRUITFUL_BYTES", 11)
    with pytest.raises(TransferInterruptedError):
        Bench(b"x" * 100, faults=places).run()


def test_a_source_that_does_not_answer_is_asked_again():
    bench = Bench(b"x" * 100, faults=[50])
    bench.source.refusals = [SourceUnavailableError("busy"), SourceUnavailableError("busy")]
    bench.run()
    assert [start for start, _ in bench.source.opened] == [0, 50, 50, 50]


@pytest.mark.parametrize("error", [LinkExpiredError("dead"), SourceChangedError("other")])
def test_what_no_resume_can_help_ends_it(error):
    bench = Bench(b"x" * 100, faults=[50])
    bench.source.refusals = [error]
    with pytest.raises(type(error)):
        bench.run()
    assert bench.body.closed
    assert len(bench.source.opened) == 2


def test_a_recording_of_another_length_is_not_gone_on_with():
    bench = Bench(b"x" * 100, faults=[50])
    bench.source.data = b"x" * 101
    with pytest.raises(SourceChangedError, match="has 101 bytes now, and had 100"):
        bench.run()
    assert all(one.closed for one in bench.source.bodies)


def test_a_body_that_ends_early_is_a_fault():
    bench = Bench(b"x" * 100)
    bench.body.readinto = lambda view: 0
    bench.run()
    assert len(bench.source.opened) == 2
    assert bench.sink.data == b"x" * 100


class Failing(MemorySink):
    def put_part(self, number, body, checksums):
        raise StorageUnavailableError("no answer")


@pytest.mark.parametrize("streams", [1, 4])
def test_a_failed_part_fails_it_without_reading_everything(streams):
    bench = Bench(b"x" * PART * 1000)
    with pytest.raises(StorageUnavailableError):
        bench.run(Failing(), streams=streams)
    assert all(body.closed for body in bench.source.bodies)
    assert bench.checksums.size < PART * 100


def test_a_sink_that_cannot_be_opened_fails_it():
    bench = Bench(b"x" * PART * 100)

    def refuse(hashed):
        raise StorageUnavailableError("no answer")

    with pytest.raises(StorageUnavailableError):
        Transfer(bench.source, bench.body, bench.plan, bench.checksums).run(refuse)
    assert bench.body.closed


@pytest.mark.parametrize("streams", [1, 4])
def test_buffers_are_few_and_not_reused_before_their_part_is_stored(streams):
    class Slow(MemorySink):
        most, now, lock = 0, 0, threading.Lock()

        def put_part(self, number, body, checksums):
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            first = bytes(body)
            threading.Event().wait(0.002)
            assert bytes(body) == first
            with self.lock:
                self.now -= 1
            return super().put_part(number, body, checksums)

    data = bytes(range(256)) * 20
    bench = Bench(data)
    sink = Slow()
    bench.run(sink, streams=streams)
    assert sink.data == data
    assert sink.most <= bench.plan.buffers + streams - 1


def test_parallel_ranges_ask_for_their_own_bytes_only():
    data = bytes(range(256)) * 3
    bench = Bench(data, etag=_etag(data))
    asked = []
    source_open = bench.source.open

    def reopen(start=0, stop=None, etag=""):
        asked.append((start, stop))
        return source_open(start, stop, etag)

    bench.source.open = reopen
    bench.run(streams=4)
    assert sorted(asked) == [(start, start + PART) for start in range(PART, len(data), PART)]


def test_what_is_up_already_is_not_read_again():
    data = bytes(range(250)) * 2
    bench = Bench(data, first=4, etag=_etag(data))
    seen = []
    etags = bench.run(on_progress=seen.append)
    assert sorted(bench.sink.stored) == [4, 5, 6, 7, 8]
    assert bench.sink.data == data[3 * PART :]
    assert len(etags) == 5
    assert bench.source.opened == [(3 * PART, "")]


def test_what_is_hashed_is_uploaded_though_the_source_fails():
    class Slow(MemorySink):
        def put_part(self, number, body, checksums):
            threading.Event().wait(0.02)
            return super().put_part(number, body, checksums)

    sink = Slow()
    bench = Bench(b"x" * PART * 20, faults=[PART * 15 + 1] * 9)
    with pytest.raises(TransferInterruptedError):
        bench.run(sink)
    assert sorted(sink.stored) == list(range(1, 16))


@pytest.mark.parametrize("streams", [1, 3])
def test_progress_counts_every_byte_once(streams):
    seen = []
    Bench(b"x" * 300, faults=[100, 200], chunk=30).run(on_progress=seen.append, streams=streams)
    assert seen == sorted(seen)
    assert seen[-1] == 300


def test_a_part_that_comes_slowly_shows_that_it_comes(monkeypatch):
    monkeypatch.setattr(transfer, "PROGRESS_SECONDS", 0.001)
    bench = Bench(b"x" * 50, chunk=10)
    shown, seen = threading.Event(), []
    readinto = bench.body.readinto

    def slowly(view):
        shown.clear()
        assert shown.wait(10)
        return readinto(view)

    def show(done):
        seen.append(done)
        shown.set()

    bench.body.readinto = slowly
    bench.run(on_progress=show)
    assert {0, 10, 20, 30, 40, 50} == set(seen)


def test_no_thread_is_left():
    before = threading.active_count()
    Bench(b"x" * 300).run(streams=3)
    assert threading.active_count() == before


def test_a_late_failure_is_never_lost():
    class FailsLast(MemorySink):
        def put_part(self, number, body, checksums):
            if number == 1:
                threading.Event().wait(0.05)
                raise StorageUnavailableError("503")
            return super().put_part(number, body, checksums)

    for size in (PART, PART * 2, PART * 3):
        with pytest.raises(StorageUnavailableError):
            Bench(b"x" * size).run(FailsLast())
