"""One recording from link to ledger, against a store in memory."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import pytest

from livekit_backup.core.etags import multipart_etag
from livekit_backup.core.file_links import find_location
from livekit_backup.core.ledger import entry_for
from livekit_backup.core.open_uploads import drop_open_uploads
from livekit_backup.errors import (
    ChecksumMismatchError,
    CorruptError,
    LandingConflictError,
    MissingError,
    NeedsOperatorError,
    StorageUnavailableError,
    UnresolvedError,
    UploadLostError,
)
from livekit_backup.models.manifest import Manifest
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import OpenUpload
from unit.fakes import MemoryStore, egress_ended, signed
from unit.recording_bench import ATTEMPT, DATA, MD5, NO_MD5, URI, Bench, file_of


def test_nothing_is_visible_before_it_lands():
    bench = Bench()
    upload = bench.download()
    assert URI not in bench.store.objects
    assert [noted.upload_id for noted in bench.notes.of(bench.file)] == [upload.upload_id]
    entry = bench.land(upload)
    assert bench.store.objects[URI] == DATA
    assert bench.store.uploads == {}
    assert entry == bench.ledger.read(bench.file)
    assert entry.outcome is Outcome.LANDED
    assert entry.sha256 == hashlib.sha256(DATA).hexdigest()
    assert entry.etag == multipart_etag([hashlib.md5(DATA).digest()])
    assert entry.verified_by == ("length", "event_size", "source_etag", "destination_etag")
    assert (entry.unverified, entry.flags) == ((), ())


def test_its_metadata_is_ascii():
    bench = Bench()
    upload = bench.download()
    metadata = bench.store.uploads[upload.upload_id][2]
    assert all(value.isascii() for value in metadata.values())
    assert metadata["livekit-filename"] == "d/%C3%A4.mp4"
    assert sum(len(key) + len(value) for key, value in metadata.items()) < 2048
    assert bench.store.content_types[URI] == "video/mp4"


def test_long_names_fit_the_metadata():
    bench = Bench()
    bench.file = file_of(filename="ü" * 500 + ".mp4", room_name="ö" * 500)
    metadata = bench.store.uploads[bench.download().upload_id][2]
    assert sum(len(key) + len(value) for key, value in metadata.items()) < 2048


def test_what_has_landed_is_not_fetched_again():
    bench = Bench()
    bench.land(bench.download())
    opened = len(bench.source.opened)
    [again] = bench.recovery().download([bench.file])
    assert again.outcome is Outcome.ALREADY_LANDED
    assert len(bench.source.opened) == opened
    assert bench.ledger.read(bench.file).outcome is Outcome.LANDED


def test_landing_again_finds_the_landed_object():
    bench = Bench()
    upload = bench.download()
    bench.land(upload)
    assert bench.land(upload).outcome is Outcome.ALREADY_LANDED


def test_a_try_that_died_before_writing_it_down_is_completed():
    bench = Bench()
    upload = bench.download()
    parts = bench.store.list_parts(URI, upload.upload_id)
    bench.store.complete_upload(URI, upload.upload_id, parts, size=len(DATA))
    assert bench.land(upload).outcome is Outcome.LANDED


def test_a_wrong_byte_on_the_way_is_gone_at_the_second_fetch():
    bench = Bench()
    bodies = iter([b"x" + DATA[1:], DATA])
    source_open = bench.source.open

    def reopen(start=0, stop=None, etag=""):
        bench.source.data = next(bodies)
        return source_open(start, stop, etag)

    bench.source.open = reopen
    assert bench.land(bench.download()).outcome is Outcome.LANDED
    assert bench.store.objects[URI] == DATA


def test_a_wrong_byte_at_the_source_is_corrupt():
    bench = Bench(data=b"x" + DATA[1:])
    upload = bench.download()
    assert len(bench.source.opened) == 2
    with pytest.raises(CorruptError, match="LiveKit's storage says"):
        bench.land(upload)
    assert URI not in bench.store.objects
    assert bench.store.uploads == {}


def test_another_size_than_the_event_says_is_corrupt():
    bench = Bench()
    upload = bench.download()
    bench.file = file_of(size=5)
    with pytest.raises(CorruptError, match="LiveKit's event says 5"):
        bench.land(upload)
    assert bench.store.uploads == {}


@pytest.mark.parametrize("size", [5, len(DATA) + 1])
def test_of_another_size_than_the_event_says_nothing_is_stored(size):
    """A source may announce as much as S3 takes; the verdict would be the same behind the last of it."""
    bench = Bench()
    bench.file = file_of(size=size)
    with pytest.raises(CorruptError, match=f"has {len(DATA)} bytes, LiveKit's event says {size}"):
        bench.download()
    assert bench.store.uploads == {}
    assert bench.store.put_parts == []


@pytest.mark.parametrize("other", [b"other", b"x" + DATA[1:]])
def test_other_content_at_the_key_stays(other):
    bench = Bench()
    upload = bench.download()
    bench.store.put(URI, other)
    with pytest.raises(LandingConflictError, match="holds other content"):
        bench.land(upload)
    assert bench.store.objects[URI] == other
    assert list(bench.store.uploads) == [upload.upload_id], "its link may be dead when a person has made room"
    bench.store.delete(URI)
    assert bench.land(upload).outcome is Outcome.LANDED


def test_an_upload_that_was_dropped_needs_its_download_again():
    bench = Bench()
    upload = bench.download()
    bench.store.uploads.clear()
    with pytest.raises(NeedsOperatorError, match="clear the download task"):
        bench.land(upload)


def test_what_was_landed_and_then_removed_is_recovered_again():
    bench = Bench()
    bench.recovery().download([bench.file])
    bench.store.delete(URI)
    with pytest.raises(NeedsOperatorError, match="clear the download task"):
        bench.recovery().land([bench.file])
    assert bench.ledger.find_landed(bench.file) is None
    [entry] = bench.recovery().download([bench.file])
    assert entry.outcome is Outcome.LANDED


def test_where_etags_prove_nothing_it_is_read_back():
    bench = Bench(**NO_MD5)
    entry = bench.land(bench.download())
    assert entry.verified_by[-1] == "read_back"
    assert bench.store.objects[URI] == DATA


def test_a_store_that_changed_the_bytes_is_found_out():
    bench = Bench(**NO_MD5)
    upload = bench.download()
    parts = bench.store.uploads[upload.upload_id][1]
    parts[1] = b"x" + parts[1][1:]
    with pytest.raises(ChecksumMismatchError, match="reads back with another SHA-256"):
        bench.land(upload)
    assert URI not in bench.store.objects


def test_a_source_without_a_known_etag_is_landed_and_says_so():
    bench = Bench(etag="0x8DCB")
    entry = bench.land(bench.download())
    assert entry.outcome is Outcome.LANDED
    assert "source_etag" in entry.unverified[0]


def test_other_open_uploads_at_the_key_are_dropped():
    bench = Bench()
    bench.store.create_upload(URI, content_type="x", metadata={})
    bench.store.create_upload(f"{URI}.other", content_type="x", metadata={})
    bench.land(bench.download())
    assert [uri for uri, _, _ in bench.store.uploads.values()] == [f"{URI}.other"]


def test_an_empty_file_lands_and_is_flagged():
    bench = Bench(data=b"", etag=hashlib.md5(b"").hexdigest())
    upload = bench.download()
    assert upload.content == b""
    entry = bench.land(upload)
    assert (entry.outcome, entry.flags, entry.size) == (Outcome.LANDED, ("empty",), 0)
    assert bench.store.objects[URI] == b""
    assert all(body.closed for body in bench.source.bodies)


def test_an_empty_file_lands_where_etags_prove_nothing():
    bench = Bench(**NO_MD5, data=b"", etag=hashlib.md5(b"").hexdigest())
    assert bench.land(bench.download()).outcome is Outcome.LANDED


def test_open_uploads_of_files_that_did_not_land_are_dropped():
    store = MemoryStore()
    ids = [store.create_upload(URI, content_type="x", metadata={}).upload_id for _ in range(2)]
    drop_open_uploads([OpenUpload(landing_uri=URI, upload_id=upload_id) for upload_id in ids], store)
    assert store.uploads == {}


def test_an_upload_of_another_file_never_lands_as_this_one():
    bench = Bench()
    upload = bench.download().model_copy(update={"filename": "other.mp4"})
    with pytest.raises(UploadLostError, match="of another file"):
        bench.land(upload)
    assert URI not in bench.store.objects
    assert len(bench.store.uploads) == 1, "it is that file's to land or to drop"


def test_a_landed_file_stays_a_success_whatever_upload_the_list_gives_it():
    bench = Bench()
    bench.land(bench.download())
    others = Bench().download().model_copy(update={"filename": "other.mp4"})
    assert bench.land(others).outcome is Outcome.ALREADY_LANDED


def test_an_entry_is_of_now():
    entry = entry_for(file_of(), Outcome.FAILED, "reason", ATTEMPT)
    assert (entry.filename, entry.reason, entry.attempt) == ("d/ä.mp4", "reason", ATTEMPT)
    assert abs((datetime.now(UTC) - entry.recorded_at).total_seconds()) < 60


def _inbox(**info):
    store = MemoryStore()
    store.put("s3://b/in/e", json.dumps(egress_ended(backupStorageUsed=True, **info)).encode())
    return store


def _manifest(*names):
    def fetch(location):
        files = [{"filename": name, "location": signed(name)} for name in names]
        return Manifest.model_validate({"egress_id": "EG_1", "files": files})

    return fetch


def test_a_link_is_read_where_it_is_used():
    location = find_location(_inbox(manifestLocation=signed("m")), file_of(filename="a"), _manifest("b", "a"))
    assert location.url == signed("a")


def test_a_file_that_is_not_listed_any_more():
    with pytest.raises(UnresolvedError, match="not in the manifest of EG_1 any more"):
        find_location(_inbox(manifestLocation=signed("m")), file_of(filename="a"), _manifest("b"))


def test_a_files_own_error_is_raised():
    def fetch(location):
        raise MissingError("gone")

    with pytest.raises(UnresolvedError, match="gone"):
        find_location(
            _inbox(manifestLocation=signed("m"), fileResults=[{"filename": "a"}]), file_of(filename="a"), fetch
        )


def test_an_object_that_shows_late_is_not_deleted():
    bench = Bench()
    upload = bench.download()
    head = bench.store.head
    bench.store.head = lambda uri: None
    with pytest.raises(StorageUnavailableError, match="not there yet"):
        bench.land(upload)
    bench.store.head = head
    assert bench.store.objects[URI] == DATA
    assert bench.land(upload).outcome is Outcome.LANDED


def test_the_same_bytes_under_another_etag_are_no_conflict():
    bench = Bench()
    upload = bench.download()
    bench.store.put(URI, DATA)
    entry = bench.land(upload)
    assert (entry.outcome, entry.etag) == (Outcome.LANDED, MD5)
    assert "read_back" in entry.verified_by
    assert bench.store.uploads == {}
