"""Moving bytes through faults, with parts of 64 bytes."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livekit_backup.core import etags, transfer
from livekit_backup.core.transfer import FRUITLESS_RESUMES, Transfer
from livekit_backup.errors import (
    LinkExpiredError,
    SourceUnavailableError,
    StorageUnavailableError,
    TransferInterruptedError,
)
from unit.fakes import MemorySource

PART = 64


@pytest.fixture(autouse=True, scope="module")
def _small_parts():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(etags, "PART_SIZE", PART)
        yield


def _parts_of(data):
    return [data[start : start + PART] for start in range(0, len(data), PART)]


def _etag(data):
    return etags.multipart_etag(hashlib.md5(part).digest() for part in _parts_of(data))


def _run(source, **options):
    stored = {}

    def upload(number, part, md5):
        assert hashlib.md5(part).digest() == md5
        stored[number] = bytes(part)

    digests = Transfer(source, source.open(), **options).run(upload)
    return digests, stored


@settings(max_examples=80)
@given(
    data=st.binary(min_size=1, max_size=700),
    faults=st.lists(st.integers(0, 700), max_size=8),
    chunk=st.integers(1, 100),
    plain=st.booleans(),
)
def test_hashes_are_right_or_it_is_an_error(data, faults, chunk, plain):
    etag = hashlib.md5(data).hexdigest() if plain else _etag(data)
    source = MemorySource(data, etag=etag, faults=faults, chunk=chunk)
    hit = [fault for fault in sorted(faults) if fault < len(data)]
    if max(Counter(hit).values(), default=0) > FRUITLESS_RESUMES:
        with pytest.raises(TransferInterruptedError, match="broke off"):
            _run(source)
    else:
        digests, stored = _run(source)
        assert digests.size == len(data)
        assert digests.sha256 == hashlib.sha256(data).hexdigest()
        assert digests.etag == _etag(data)
        assert digests.source_etag_computed == etag
        assert [stored[number] for number in sorted(stored)] == _parts_of(data)
        assert [start for start, _ in source.opened[1:]] == hit
    assert all(given_etag == etag for _, given_etag in source.opened[1:])
    assert all(body.closed for body in source.bodies)


@given(st.binary(min_size=1, max_size=300), st.integers(0, 299))
def test_a_changed_byte_changes_the_etag(data, place):
    changed = bytearray(data)
    changed[place % len(data)] ^= 1
    digests, _ = _run(MemorySource(bytes(changed), etag=_etag(data)))
    assert digests.source_etag_computed != _etag(data)


def test_no_more_resumes_than_allowed():
    source = MemorySource(b"x" * 100, faults=[50] * 99)
    with pytest.raises(TransferInterruptedError):
        _run(source)
    assert len(source.opened) == 1 + FRUITLESS_RESUMES


def test_progress_starts_the_count_again_and_a_drip_does_not(monkeypatch):
    places = [place for place in range(10, 100, 10) for _ in range(FRUITLESS_RESUMES)]
    monkeypatch.setattr(transfer, "FRUITFUL_BYTES", 10)
    source = MemorySource(b"x" * 100, faults=places)
    assert _run(source)[0].size == 100
    assert len(source.opened) == 1 + len(places)
    monkeypatch.setattr(transfer, "FRUITFUL_BYTES", 11)
    with pytest.raises(TransferInterruptedError):
        _run(MemorySource(b"x" * 100, faults=places))


def test_a_source_that_does_not_answer_is_asked_again():
    source = MemorySource(b"x" * 100, faults=[50])
    body = source.open()
    source.refusals = [SourceUnavailableError("busy"), SourceUnavailableError("busy")]
    assert Transfer(source, body).run(lambda *_: None).size == 100
    assert [start for start, _ in source.opened] == [0, 50, 50, 50]


def test_a_link_that_dies_meanwhile_ends_it():
    source = MemorySource(b"x" * 100, faults=[50])
    body = source.open()
    source.refusals = [LinkExpiredError("dead")]
    with pytest.raises(LinkExpiredError):
        Transfer(source, body).run(lambda *_: None)
    assert body.closed


def test_a_recording_of_another_length_is_not_gone_on_with():
    source = MemorySource(b"x" * 100, faults=[50])
    body = source.open()
    source.data = b"x" * 101
    with pytest.raises(TransferInterruptedError, match="changed while it was read"):
        Transfer(source, body).run(lambda *_: None)
    assert all(one.closed for one in source.bodies)


def test_a_body_that_ends_early_is_a_fault():
    class Short(MemorySource):
        pass

    source = Short(b"x" * 100)
    body = source.open()
    body.readinto = lambda view: 0
    assert Transfer(source, body).run(lambda *_: None).size == 100
    assert len(source.opened) == 2


@pytest.mark.parametrize(
    ("etag", "digest"),
    [("", True), ("0x8DCB", True), (f"{'0' * 32}-7", True), ("0" * 32, False), (None, False)],
)
def test_etags_that_nothing_can_be_held_against(etag, digest):
    data = b"x" * 100
    source = MemorySource(data, etag=_etag(data) if etag is None else etag, etag_is_digest=digest)
    assert _run(source)[0].source_etag_computed == ""


def test_a_failed_part_fails_it_without_reading_everything():
    source = MemorySource(b"x" * PART * 1000)

    def upload(number, part, md5):
        raise StorageUnavailableError("no answer")

    with pytest.raises(StorageUnavailableError):
        Transfer(source, source.open()).run(upload)
    assert source.bodies[0].closed
    assert source.bodies[0]._at < PART * 100


def test_buffers_are_few_and_not_reused_before_their_part_is_stored():
    data = bytes(range(256)) * 10
    open_parts, most, lock = set(), 0, threading.Lock()
    stored = {}

    def upload(number, part, md5):
        nonlocal most
        with lock:
            open_parts.add(number)
            most = max(most, len(open_parts))
        first = bytes(part)
        threading.Event().wait(0.002)
        assert bytes(part) == first
        stored[number] = first
        with lock:
            open_parts.remove(number)

    source = MemorySource(data)
    Transfer(source, source.open()).run(upload)
    assert b"".join(stored[number] for number in sorted(stored)) == data
    assert most <= 4


def test_progress_counts_every_byte_once():
    seen = []
    source = MemorySource(b"x" * 300, faults=[100, 200], chunk=30)
    _run(source, on_progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == 300


def test_no_thread_is_left():
    before = threading.active_count()
    _run(MemorySource(b"x" * 300))
    assert threading.active_count() == before


def test_a_part_that_fails_between_two_looks_is_not_forgotten():
    class EndsBetween(Future):
        """Is running at the first look and has failed at the next."""

        looks = 0

        def done(self):
            self.looks += 1
            return self.looks > 1

    late = EndsBetween()
    late.set_exception(StorageUnavailableError("503"))
    kept = transfer._raise_failures([late])
    assert kept == [late]
    with pytest.raises(StorageUnavailableError):
        transfer._raise_failures(kept)
