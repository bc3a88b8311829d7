"""``verify = strict``: what nothing proves does not land, and what landed is read back, by a store that may lie."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest

from livekit_backup.core.read_back import CHUNK, read_back
from livekit_backup.core.storage import ObjectHead
from livekit_backup.errors import (
    ChecksumMismatchError,
    ConfigurationError,
    CorruptError,
    LinkExpiredError,
    SourceChangedError,
    StorageUnavailableError,
    UnprovenError,
    UploadLostError,
)
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import RecordingFile
from livekit_backup.models.settings import Verify
from unit.fakes import Body, MemorySource, MemoryStore
from unit.recording_bench import DATA, MD5, URI, Bench, file_of

STRICT = {"verify": Verify.STRICT}
SIZES = pytest.mark.parametrize("small", [len(DATA), -1], ids=["small", "in parts"])
UNPROVEN = pytest.mark.parametrize(
    "source",
    [
        {"etag": ""},
        {"etag": MD5, "etag_is_digest": False},
        {"etag": "0" * 32 + "-2"},
        {"etag": "an ETag of another kind"},
    ],
    ids=["no ETag", "under SSE-KMS", "parts of an unusual size", "no MD5"],
)


class LyingStore(MemoryStore):
    """Its ETags and checksums are right; what it gives back of landed objects is not, as often as it is told."""

    def __init__(self, **options):
        super().__init__(**options)
        self.lies = 0
        self.reads = []
        self.on_read = lambda: None

    def open(self, uri, start=0, stop=None, etag=""):
        body = super().open(uri, start, stop, etag)
        if uri.startswith("s3://b/out/_l"):
            return body
        self.reads.append((uri, start))
        self.on_read()
        if self.lies:
            self.lies -= 1
            return Body(b"?" + body.read()[1:])
        return body


def bench_with(**options):
    bench = Bench(**options)
    bench.store = LyingStore()
    bench.ledger._store = bench.store
    return bench


def run(bench, small, **options):
    """Both tasks."""
    recovery = bench.recovery(small=small, **options)
    recovery.download([bench.file])
    [entry] = recovery.land([bench.file])
    return bench.ledger.read(bench.file) if entry.outcome is Outcome.ALREADY_LANDED else entry


@SIZES
def test_what_lands_is_read_back(small):
    bench = bench_with()
    entry = run(bench, small, **STRICT)
    assert entry.outcome is Outcome.LANDED
    assert entry.verified_by == ("length", "event_size", "source_etag", "destination_etag", "read_back")
    assert entry.sha256 == hashlib.sha256(DATA).hexdigest()
    assert bench.store.reads == [(URI, 0)]


@SIZES
def test_by_the_standard_nothing_is_read_that_is_proven(small):
    bench = bench_with()
    bench.store.lies = 99
    assert run(bench, small).verified_by[-1] == "destination_etag"
    assert bench.store.reads == []


@SIZES
@UNPROVEN
def test_without_a_checksum_of_the_sources_nothing_shows(small, source):
    bench = bench_with(**source)
    with pytest.raises(
        UnprovenError, match=r"nothing proves the bytes of 'd/ä.mp4', and verify is strict: source_etag"
    ):
        run(bench, small, **STRICT)
    assert URI not in bench.store.objects
    entry = bench.ledger.read(bench.file)
    assert entry.outcome is Outcome.FAILED
    assert "verify is strict" in entry.reason


@UNPROVEN
def test_what_was_fetched_is_kept_for_a_person_to_decide(source):
    bench = bench_with(**source)
    with pytest.raises(UnprovenError):
        run(bench, -1, **STRICT)
    opened = len(bench.source.opened)
    bench.source.refusals = [AssertionError("the link is dead by now")] * 9
    [entry] = bench.recovery(small=-1).land([bench.file])
    assert entry.outcome is Outcome.LANDED
    assert bench.store.objects[URI] == DATA
    assert any(gap.startswith("source_etag") for gap in entry.unverified)
    assert len(bench.source.opened) == opened


def test_a_file_without_a_size_in_its_event_is_proven_by_its_checksum():
    bench = bench_with()
    bench.file = file_of(size=None)
    assert "source_etag" in run(bench, -1, **STRICT).verified_by


def test_a_small_one_that_reads_back_wrong_is_removed_and_its_task_tried_again():
    bench = bench_with()
    bench.store.lies = 2
    with pytest.raises(ChecksumMismatchError, match="reads back with another SHA-256: not what was sent"):
        run(bench, len(DATA), **STRICT)
    assert URI not in bench.store.objects
    entry = bench.ledger.read(bench.file)
    assert (entry.outcome, "nothing was left there" in entry.reason) == (Outcome.FAILED, True)
    assert run(bench, len(DATA), **STRICT).outcome is Outcome.LANDED


def test_one_in_parts_that_reads_back_wrong_is_removed_and_fetched_once_more():
    bench = bench_with()
    bench.store.lies = 2
    assert run(bench, -1, **STRICT).verified_by[-1] == "read_back"
    assert bench.store.objects[URI] == DATA
    assert len(bench.source.opened) == 2
    assert bench.store.uploads == {}


def test_in_parts_it_is_left_to_a_person_the_second_time():
    bench = bench_with()
    bench.store.lies = 4
    with pytest.raises(UploadLostError, match=r"another SHA-256.*for the second time: clear the download task"):
        run(bench, -1, **STRICT)
    assert URI not in bench.store.objects
    assert bench.ledger.read(bench.file).outcome is Outcome.FAILED
    assert bench.store.uploads == {}
    assert run(bench, -1, **STRICT).outcome is Outcome.LANDED, "once its download is cleared"


def test_should_the_link_be_dead_by_then_it_is_said():
    bench = bench_with()
    bench.store.lies = 2
    recovery = bench.recovery(small=-1, **STRICT)
    recovery.download([bench.file])
    bench.source.refusals = [LinkExpiredError("the link died")] * 9
    with pytest.raises(LinkExpiredError):
        recovery.land([bench.file])
    assert URI not in bench.store.objects
    assert bench.ledger.read(bench.file).outcome is Outcome.EXPIRED


@SIZES
def test_one_bad_reading_removes_nothing(small):
    bench = bench_with()
    bench.store.lies = 1
    assert run(bench, small, **STRICT).verified_by[-1] == "read_back"
    assert bench.store.objects[URI] == DATA
    assert len(bench.store.reads) == 2


@SIZES
def test_what_somebody_put_there_meanwhile_stays(small):
    bench = bench_with()
    bench.store.lies = 2

    def replaced():
        if len(bench.store.reads) == 2:
            bench.store.objects[URI] = b"somebody else's"
            bench.store.heads[URI] = ObjectHead(15, "theirs")

    bench.store.on_read = replaced
    with pytest.raises(StorageUnavailableError, match="was replaced while it was looked at"):
        run(bench, small, **STRICT)
    assert bench.store.objects[URI] == b"somebody else's"


def test_the_same_bytes_that_somebody_else_put_there_stay_though_they_read_back_wrong():
    bench = bench_with()
    bench.store.put(URI, DATA)
    bench.store.lies = 2
    [entry] = bench.recovery(small=len(DATA), **STRICT).download([bench.file])
    assert bench.store.objects[URI] == DATA
    assert entry.landed_uri != URI, "it landed beside"
    assert entry.verified_by[-1] == "read_back"


def test_a_try_that_died_while_it_read_back_is_read_back_by_the_next():
    bench = bench_with()

    def killed():
        if len(bench.store.reads) == 1:
            raise KeyboardInterrupt

    bench.store.on_read = killed
    with pytest.raises(KeyboardInterrupt):
        run(bench, -1, **STRICT)
    assert bench.ledger.read(bench.file) is None, "nothing says that it landed"
    [entry] = bench.recovery(small=-1, **STRICT).land([bench.file])
    assert entry.verified_by[-1] == "read_back"
    assert len(bench.store.reads) == 2


def test_a_replaced_object_is_not_held_against_the_upload():
    bench = bench_with()

    def replaced():
        if len(bench.store.reads) == 1:
            bench.store.put(URI, b"another")

    bench.store.on_read = replaced
    store_open = bench.store.open

    def opened(uri, start=0, stop=None, etag=""):
        body = store_open(uri, start, stop, etag)
        if etag and bench.store.heads[uri].etag != etag:
            raise SourceChangedError(uri)
        return body

    bench.store.open = opened
    with pytest.raises(SourceChangedError):
        run(bench, -1, **STRICT)
    assert bench.store.objects[URI] == b"another"


class BreakingStore(MemoryStore):
    """Breaks off behind every two MiB."""

    most = 0

    def open(self, uri, start=0, stop=None, etag=""):
        body = super().open(uri, start, stop, etag)
        store, left = self, [2 << 20]

        class Breaking:
            def read(self, size=-1):
                store.most = max(store.most, size)
                if not left[0]:
                    raise StorageUnavailableError("broke off")
                data = body.read(min(size, left[0]))
                left[0] -= len(data)
                return data

            def close(self):
                body.close()

        return Breaking()


def test_it_goes_on_behind_each_break_and_holds_one_mebibyte():
    store, data = BreakingStore(), hashlib.sha256(b"seed").digest() * (9 << 15)
    store.put("s3://b/o", data)
    found = read_back(store, "s3://b/o", store.head("s3://b/o"), part_size=5 << 20)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.etag.endswith("-2")
    assert store.most == CHUNK


def test_reading_back_takes_the_same_memory_whatever_the_size():
    size, block = 96 << 20, bytes(1 << 20)

    class Large(MemoryStore):
        def head(self, uri):
            return ObjectHead(size, "large")

        def open(self, uri, start=0, stop=None, etag=""):
            class Zeros:
                left = size - start

                def read(self, count=-1):
                    given = block[: min(count, self.left)]
                    self.left -= len(given)
                    return given

                def close(self):
                    pass

            return Zeros()

    tracemalloc.start()
    try:
        found = read_back(Large(), "s3://b/large", ObjectHead(size, "large"), part_size=5 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.etag.endswith("-20")
    assert peak < 4 << 20


def test_an_object_that_ends_early_or_vanishes_is_the_stores_fault():
    store = MemoryStore()
    store.put("s3://b/o", b"12345")
    with pytest.raises(StorageUnavailableError, match="is gone while it is read back"):
        read_back(store, "s3://b/p", ObjectHead(5, "x"))
    store.objects["s3://b/o"] = b"123"
    store.heads["s3://b/o"] = ObjectHead(5, "x")
    with pytest.raises(Exception, match="ended 2 bytes early") as raised:
        read_back(store, "s3://b/o", ObjectHead(5, "x"))
    assert not isinstance(raised.value, CorruptError)


def test_an_empty_file_is_read_back_too():
    bench = Bench(data=b"", etag=hashlib.md5(b"").hexdigest())
    bench.file = file_of(size=None)
    entry = run(bench, 10, **STRICT)
    assert entry.verified_by[-1] == "read_back"
    assert entry.sha256 == hashlib.sha256(b"").hexdigest()


def test_of_many_the_unproven_one_stops_no_other():
    bench = bench_with()
    files: list[RecordingFile] = [
        file_of(filename=name, landing_uri=f"s3://b/out/{name}", size=len(DATA)) for name in ("a.ts", "b.ts", "c.ts")
    ]
    recovery = bench.recovery(**STRICT)
    sources = {file.filename: MemorySource(DATA, etag="" if file.filename == "b.ts" else MD5) for file in files}
    object.__setattr__(recovery.sources, "open_backup", lambda file: sources[file.filename])
    with pytest.raises(UnprovenError, match=r"b\.ts"):
        recovery.download(files)
    assert [bench.ledger.read(file).outcome.value for file in files] == ["landed", "failed", "landed"]
    assert not [uri for uri in bench.store.objects if uri.endswith("b.ts")]


def test_it_holds_at_a_warehouse_whose_etags_prove_nothing():
    bench = Bench(store={"md5_etags": False}, found={"etags_are_md5": False, "refuses_wrong_crc64nvme": False})
    assert run(bench, -1, **STRICT).verified_by == ("length", "event_size", "source_etag", "read_back")


def test_a_wrong_word_is_refused(monkeypatch):
    from livekit_backup.hooks.configuration import load_settings

    given = {"inbox": "s3://a", "warehouse": "s3://b"}
    assert load_settings(given).verify is Verify.STANDARD
    assert load_settings({**given, "verify": "strict", "probe": "true"}).probe is True
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__VERIFY", "strict")
    assert load_settings(given).verify is Verify.STRICT
    with pytest.raises(ConfigurationError, match="verify must be 'standard' or 'strict', not 'paranoid'"):
        load_settings({**given, "verify": "paranoid"})
    with pytest.raises(ConfigurationError, match="probe must be"):
        load_settings({**given, "probe": "perhaps"})
