"""What an upload survives: dead links, zombies, conflicts, stores that fail in the middle."""

from __future__ import annotations

import hashlib
import threading

import pytest

from livekit_backup.core.file_links import RenewedSource
from livekit_backup.core.open_uploads import drop_left_open
from livekit_backup.core.storage import ObjectHead
from livekit_backup.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    CorruptError,
    LandingConflictError,
    LinkExpiredError,
    SourceChangedError,
    SourceUnavailableError,
    StorageUnavailableError,
    TransferInterruptedError,
    UnresolvedError,
    UploadGoneError,
    UploadLostError,
)
from livekit_backup.models.outcome import Outcome
from unit.fakes import MemorySource
from unit.recording_bench import ATTEMPT, URI, Bench
from unit.test_resume import ETAG, LONG, MIB, SHA, etag_of


def _bench(data=LONG, **options):
    return Bench(data=data, **{"etag": etag_of(data), **options})


def _dies(*errors):
    """A source whose link answers each further question with the next error."""
    queue = list(errors)

    def reopen(start=0, stop=None, etag=""):
        raise queue.pop(0) if len(queue) > 1 else queue[0]

    return reopen


def test_a_whole_upload_needs_no_link():
    bench = _bench()
    bench.download()
    bench.source.open = _dies(LinkExpiredError("dead"))
    assert bench.land(bench.download()).sha256 == SHA


@pytest.mark.parametrize("error", [AccessDeniedError("expired session"), StorageUnavailableError("503")])
def test_what_a_person_or_time_can_mend_keeps_the_upload(error):
    bench = _bench()
    upload_part = bench.store.upload_part
    bench.store.upload_part = lambda uri, upload_id, number, *rest, **options: (
        upload_part(uri, upload_id, number, *rest, **options) if number < 3 else _raise(error)
    )
    with pytest.raises(type(error)):
        bench.download()
    bench.store.upload_part = upload_part
    bench.source.opened.clear()
    assert bench.land(bench.download()).sha256 == SHA
    assert bench.source.opened == [(10 * MIB, ETAG)]


def _raise(error):
    raise error


def test_the_report_keeps_a_whole_upload_that_may_Still_land(caplog):
    bench = _bench()
    upload = bench.download()
    drop_left_open(bench.ledger, bench.store, ATTEMPT, {URI})
    assert list(bench.store.uploads) == [upload.upload_id]
    assert "are up in an open upload" in caplog.text
    drop_left_open(bench.ledger, bench.store, ATTEMPT, set())
    assert bench.store.uploads == {}


def test_the_report_keeps_a_whole_upload_whose_listing_lags():
    bench = _bench()
    bench.notes.put_result(bench.file, bench.download())
    list_parts = bench.store.list_parts
    bench.store.list_parts = lambda *at: list_parts(*at)[:-1]
    drop_left_open(bench.ledger, bench.store, ATTEMPT, {URI})
    bench.store.list_parts = list_parts
    assert bench.land(bench.notes.result(bench.file)).sha256 == SHA


def test_the_report_drops_a_part_of_a_recording():
    bench = _bench(faults=[11 * MIB] * 9)
    with pytest.raises(TransferInterruptedError):
        bench.download()
    assert bench.store.uploads
    drop_left_open(bench.ledger, bench.store, ATTEMPT, {URI})
    assert bench.store.uploads == {}


def test_a_store_that_does_not_answer_the_report_keeps_what_it_has(caplog):
    bench = _bench()
    bench.download()
    bench.store.list_parts = _dies(StorageUnavailableError("503"))
    drop_left_open(bench.ledger, bench.store, ATTEMPT, {URI})
    assert bench.store.uploads
    assert "not looked at" in caplog.text


class Links:
    """Gives sources one after the other, or raises what stands in for one."""

    def __init__(self, *sources):
        self.sources = list(sources)
        self.asked = 0

    def __call__(self):
        self.asked += 1
        source = self.sources.pop(0)
        if isinstance(source, Exception):
            raise source
        return source


def _source(*answers, data=LONG):
    """A source that answers so, a None being a body."""
    source = MemorySource(data, etag=etag_of(data))
    source_open, queue = source.open, list(answers)

    def reopen(start=0, stop=None, etag=""):
        answer = queue.pop(0) if queue else None
        if answer:
            raise answer
        return source_open(start, stop, etag)

    source.open = reopen
    return source


DEAD = LinkExpiredError("dead")


def test_no_link_is_read_before_it_is_needed():
    links = Links()
    RenewedSource(links)
    assert links.asked == 0


def test_a_link_that_never_worked_is_not_read_twice():
    links = Links(_source(DEAD), _source())
    with pytest.raises(LinkExpiredError):
        RenewedSource(links).open()
    assert links.asked == 1


def test_a_manifest_that_does_not_answer_is_asked_again_at_the_next_resume():
    links = Links(_source(None, DEAD, DEAD), SourceUnavailableError("503"), _source())
    source = RenewedSource(links)
    source.open()
    with pytest.raises(SourceUnavailableError):
        source.open(5, etag=ETAG)
    assert source.open(5, etag=ETAG).size == len(LONG)


def test_a_manifest_that_has_no_link_any_more_leaves_it_dead():
    source = RenewedSource(Links(_source(None, DEAD), UnresolvedError("gone")))
    source.open()
    with pytest.raises(LinkExpiredError):
        source.open(5)


def test_a_fresh_link_that_is_dead_too_is_final():
    source = RenewedSource(Links(_source(None, DEAD), _source(DEAD)))
    source.open()
    with pytest.raises(LinkExpiredError):
        source.open(5)


def test_each_link_that_has_worked_may_be_renewed_also_at_byte_0():
    source = RenewedSource(Links(_source(None, DEAD), _source(None, DEAD), _source()))
    for _ in range(3):
        assert source.open().size == len(LONG)


def test_streams_side_by_side_renew_a_link_once():
    together = threading.Barrier(4, timeout=10)
    first, second = _source(), _source()
    links = Links(first, second)
    source = RenewedSource(links)
    source.open()

    def dead(start=0, stop=None, etag=""):
        together.wait()
        raise DEAD

    first.open = dead
    found = []
    threads = [threading.Thread(target=lambda: found.append(source.open(5, etag=ETAG).size)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [len(LONG)] * 4
    assert links.asked == 2


def test_without_a_version_a_break_begins_anew_and_nothing_is_mixed():
    bench = _bench(etag="", version="", faults=[11 * MIB])
    other = bytes(reversed(LONG))
    source_open = bench.source.open

    def reopen(start=0, stop=None, etag=""):
        if bench.source.opened:
            bench.source.data = other
        return source_open(start, stop, etag)

    bench.source.open = reopen
    upload = bench.download(streams=3)
    assert upload.sha256 == hashlib.sha256(other).hexdigest()
    assert [start for start, _ in bench.source.opened] == [0, 0]
    bench.land(upload)
    assert bench.store.objects[URI] == other


def test_the_time_of_the_last_change_stands_in_for_an_etag():
    bench = _bench(etag="", version="date:Thu, 01 Jan 2026 00:00:00 GMT", faults=[11 * MIB])
    assert bench.download().sha256 == SHA
    assert bench.source.opened[1] == (11 * MIB, "date:Thu, 01 Jan 2026 00:00:00 GMT")


def test_an_upload_that_could_not_be_dropped_is_not_filled_again():
    bench = _bench(faults=[11 * MIB])
    abort, other = bench.store.abort_upload, LONG[: 7 * MIB]
    bench.store.abort_upload = _dies(StorageUnavailableError("503"))
    source_open = bench.source.open

    def reopen(start=0, stop=None, etag=""):
        if start:
            bench.source.data, bench.source.etag = other, etag_of(other)
            raise SourceChangedError("another ETag")
        return source_open(start, stop, etag)

    bench.source.open = reopen
    bench.file = bench.file.model_copy(update={"size": None})
    upload = bench.download()
    bench.store.abort_upload = abort
    assert len(bench.store.uploads) == 2
    entry = bench.land(upload)
    assert bench.store.objects[URI] == other
    assert bench.store.uploads == {}, "what is open where something has landed is dropped"
    assert entry.source_etag == etag_of(other)


def test_the_report_drops_what_could_not_be_dropped_before_another_took_its_place():
    bench = _bench(data=LONG, etag=etag_of(b"x" + LONG[1:]))
    bench.store.abort_upload, abort = _dies(StorageUnavailableError("503")), bench.store.abort_upload
    upload = bench.download()
    assert len(bench.store.uploads) == 2, "wrong bytes are fetched once more, into an upload of their own"
    bench.store.abort_upload = abort
    with pytest.raises(CorruptError):
        bench.land(upload)
    assert len(bench.store.uploads) == 1
    drop_left_open(bench.ledger, bench.store, ATTEMPT, ())
    assert bench.store.uploads == {}


def test_parts_without_checksums_are_not_gone_on_with_in_an_upload_that_wants_them():
    bench = _bench(found={"accepts_crc64nvme": False, "refuses_wrong_crc64nvme": False})
    bench.source.faults = [11 * MIB] * 9
    with pytest.raises(TransferInterruptedError):
        bench.download()
    bench.source.faults = []
    bench.source.opened.clear()
    bench.found = bench.found.model_copy(update={"accepts_crc64nvme": True, "refuses_wrong_crc64nvme": True})
    assert bench.download().sha256 == SHA
    assert bench.source.opened == [(0, "")]


def test_a_zombie_drops_nothing_that_the_next_try_has():
    bench = _bench(faults=[11 * MIB])
    taken = []
    source_open = bench.source.open

    def reopen(start=0, stop=None, etag=""):
        if start == 11 * MIB and not taken:
            taken.append(None)
            # Meanwhile the next try finishes; then the zombie's link is found dead.
            bench.source.faults = []
            bench.source.open = source_open
            taken[0] = bench.download()
            raise LinkExpiredError("dead")
        return source_open(start, stop, etag)

    bench.source.open = reopen
    from livekit_backup.core.downloading import Download

    # Where none of its parts was stored yet, the next try has dropped its upload and begun its own.
    with pytest.raises((LinkExpiredError, UploadGoneError)):
        Download(bench.file, bench.store, bench.ledger, ATTEMPT, bench.found).run(lambda: _Still(reopen))
    assert bench.land(taken[0]).sha256 == SHA


class _Still:
    name = "https://livekit.example/recording"

    def __init__(self, reopen):
        self.open = reopen


def test_a_listing_that_lags_is_waited_for():
    bench = _bench()
    upload = bench.download()
    list_parts = bench.store.list_parts
    bench.store.list_parts = lambda *place: list_parts(*place)[:2]
    with pytest.raises(StorageUnavailableError, match="parts"):
        bench.land(upload)
    bench.store.list_parts = list_parts
    assert bench.land(upload).sha256 == SHA


def test_parts_that_somebody_altered_are_downloaded_again():
    bench = _bench()
    upload = bench.download()
    bench.store.uploads[upload.upload_id][1][2] = b"other"
    with pytest.raises(UploadLostError, match="clear the download task"):
        bench.land(upload)
    assert bench.store.uploads == {}
    assert bench.land(bench.download()).sha256 == SHA


def test_a_wrong_object_of_ours_is_removed_by_the_next_try_too():
    bench = _bench(store={"md5_etags": False}, found={"etags_are_md5": False, "refuses_wrong_crc64nvme": False})
    upload = bench.download()
    bench.store.uploads[upload.upload_id][1][1] = bytes(len(LONG))
    head = bench.store.head
    heads = [StorageUnavailableError("503")]
    bench.store.head = lambda uri: _raise(heads.pop()) if uri == URI and heads else head(uri)
    with pytest.raises(StorageUnavailableError):
        bench.land(upload)
    assert URI in bench.store.objects
    with pytest.raises(ChecksumMismatchError, match="nothing was left there"):
        bench.land(upload)
    assert URI not in bench.store.objects


def test_somebody_elses_wrong_object_stays():
    bench = _bench()
    upload = bench.download()
    bench.store.uploads.clear()
    bench.store.put(URI, b"other")
    bench.store.heads[URI] = ObjectHead(5, "x", {"livekit-upload": "another"})
    with pytest.raises(LandingConflictError):
        bench.land(upload)
    assert bench.store.objects[URI] == b"other"


@pytest.mark.parametrize("options", [{"etag": ""}, {"etag": "weird"}, {"etag_is_digest": False}])
def test_what_nothing_can_be_held_against_is_read_once(options):
    bench = _bench(**options, found={"refuses_wrong_crc64nvme": False})
    upload = bench.download()
    assert len(bench.source.opened) == 1
    assert upload.own_etag == etag_of(LONG, 16 * MIB)
    entry = bench.land(upload)
    assert entry.outcome is Outcome.LANDED
    assert "destination_etag" in entry.verified_by
    assert "follows no rule" in entry.unverified[0]
