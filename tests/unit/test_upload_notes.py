"""Uploads that are opened at the same moment, or that nobody hears of: each is gone on with, landed or dropped."""

from __future__ import annotations

import pytest

from livekit_backup.core.downloading import Download
from livekit_backup.core.file_links import RenewedSource
from livekit_backup.core.file_upload import FileUpload
from livekit_backup.core.open_uploads import drop_left_open
from livekit_backup.core.upload_notes import UploadNotes
from livekit_backup.errors import LinkExpiredError, StorageUnavailableError, TransferInterruptedError
from livekit_backup.models.references import OpenUpload
from unit.fakes import MemorySource
from unit.recording_bench import ATTEMPT, URI
from unit.test_kept_uploads import LONG, MIB, SHA, _bench, etag_of

LOST = StorageUnavailableError("the answer is lost")


def _fails(call, error, *, after=True, times=1):
    """Let a call fail, behind its effect or before it."""
    left = [error] * times

    def fails(*arguments, **options):
        if left and after:
            call(*arguments, **options)
        if left:
            raise left.pop()
        return call(*arguments, **options)

    return fails


def _another_opens_one_meanwhile(bench, *, until):
    """Let a try that Airflow gave up come as far as a byte, in an upload of its own, while the next opens its own."""
    create = bench.store.create_upload
    dying = MemorySource(LONG, etag=etag_of(LONG), faults=[until] * 99)

    def create_after_the_zombie(*arguments, **options):
        bench.store.create_upload = create
        opened = create(*arguments, **options)
        zombie = Download(bench.file, bench.store, bench.ledger, ATTEMPT, bench.found, anew=True)
        with pytest.raises(TransferInterruptedError):
            zombie.run(lambda: RenewedSource(lambda: dying))
        return opened

    bench.store.create_upload = create_after_the_zombie


def test_of_two_that_are_opened_at_once_the_report_drops_both():
    bench = _bench(faults=[11 * MIB] * 99)
    _another_opens_one_meanwhile(bench, until=6 * MIB)
    with pytest.raises(TransferInterruptedError):
        bench.download()
    assert len(bench.store.uploads) == 2
    drop_left_open(bench.ledger, bench.store, ATTEMPT, {URI})
    assert bench.store.uploads == {}


@pytest.mark.parametrize(("until", "others"), [(11 * MIB, 6 * MIB), (6 * MIB, 11 * MIB)], ids=["its own", "the other"])
def test_of_two_that_are_open_the_next_try_goes_on_with_what_has_most(until, others):
    bench = _bench(faults=[until] * 99)
    _another_opens_one_meanwhile(bench, until=others)
    with pytest.raises(TransferInterruptedError):
        bench.download()
    most = max(bench.store.uploads, key=lambda upload_id: len(bench.store.uploads[upload_id][1]))
    bench.source.faults = []
    upload = bench.download()
    assert upload.upload_id == most
    assert list(bench.store.uploads) == [most]
    assert bench.land(upload).sha256 == SHA


def test_what_the_next_try_has_taken_over_is_not_dropped_by_the_one_before_it():
    bench = _bench(faults=[6 * MIB] * 99)
    with pytest.raises(TransferInterruptedError):
        bench.download()
    zombie, following = (FileUpload(bench.file, bench.store, bench.ledger, ATTEMPT) for _ in range(2))
    for upload in (zombie, following):
        assert upload.left_open(bench.found).start == 5 * MIB
    zombie.drop()
    assert len(bench.store.uploads) == 1
    following.drop()
    assert bench.store.uploads == {}


def test_an_upload_whose_id_nobody_heard_is_dropped_by_the_report():
    bench = _bench()
    bench.store.create_upload = _fails(bench.store.create_upload, LOST)
    with pytest.raises(StorageUnavailableError):
        bench.download()
    assert len(bench.store.uploads) == 1
    drop_left_open(bench.ledger, bench.store, ATTEMPT, {URI})
    assert bench.store.uploads == {}


def test_an_upload_whose_id_could_not_be_noted_is_dropped_by_the_report():
    bench = _bench()
    create, abort = bench.store.create_upload, bench.store.abort_upload

    def create_and_lose_the_store(*arguments, **options):
        opened = create(*arguments, **options)
        bench.store.put = _fails(bench.store.put, LOST, after=False)
        bench.store.abort_upload = _fails(abort, LOST, after=False)
        return opened

    bench.store.create_upload = create_and_lose_the_store
    with pytest.raises(StorageUnavailableError):
        bench.download()
    assert len(bench.store.uploads) == 1
    drop_left_open(bench.ledger, bench.store, ATTEMPT, {URI})
    assert bench.store.uploads == {}


def test_what_another_run_fills_at_the_key_stays():
    bench = _bench()
    others = bench.store.create_upload(URI, content_type="x", metadata={}).upload_id
    bench.store.upload_part(URI, others, 1, memoryview(b"its bytes"))
    bench.store.create_upload = _fails(bench.store.create_upload, LOST)
    with pytest.raises(StorageUnavailableError):
        bench.download()
    drop_left_open(bench.ledger, bench.store, ATTEMPT, {URI})
    assert list(bench.store.uploads) == [others]


def test_uploads_that_cannot_be_listed_end_no_report(caplog):
    bench = _bench()
    UploadNotes(bench.ledger, ATTEMPT).put(bench.file, OpenUpload(landing_uri=URI, upload_id="", mark="m"))
    bench.store.list_uploads = _fails(bench.store.list_uploads, LOST)
    drop_left_open(bench.ledger, bench.store, ATTEMPT, ())
    assert "not looked for" in caplog.text


def test_what_is_to_be_landed_is_found_though_no_listing_shows_it():
    bench = _bench()
    bench.notes.put_result(bench.file, bench.download())
    bench.store.list_keys = lambda _: iter(())
    [entry] = bench.recovery().land([bench.file])
    assert entry.sha256 == SHA


def test_a_small_file_takes_no_request_more():
    bench = _bench(data=b"small")
    counted = []

    def counting(name, call):
        def count(uri, *given, **options):
            counted.append(name)
            return call(uri, *given, **options)

        return count

    for name in ("put", "put_new", "get", "head", "list_keys", "list_uploads", "create_upload"):
        setattr(bench.store, name, counting(name, getattr(bench.store, name)))
    bench.recovery().download([bench.file])
    assert counted == ["get", "put_new", "head", "put"], "the ledger, the file, a look at it, the ledger"


def test_what_was_up_stays_the_result_until_all_bytes_have_come_again():
    bench = _bench(store={"md5_etags": False}, found={"etags_are_md5": False})
    recovery = bench.recovery()
    recovery.download([bench.file])
    first = bench.notes.result(bench.file)
    bench.source.refusals = [LinkExpiredError("dead")]
    with pytest.raises(LinkExpiredError):
        recovery._download_noted(bench.file, anew=True)
    assert bench.notes.result(bench.file) == first
    again = recovery._download_noted(bench.file, anew=True)
    assert bench.notes.result(bench.file) == again != first
