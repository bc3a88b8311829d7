"""A download that goes on with what an earlier try has left, or begins anew."""

from __future__ import annotations

import hashlib
import logging

import pytest

from livekit_backup.core.downloading import MOST_PASSES
from livekit_backup.core.etags import MIB, multipart_etag
from livekit_backup.core.object_metadata import SHA256
from livekit_backup.core.open_uploads import drop_left_open
from livekit_backup.errors import (
    AccessDeniedError,
    CorruptError,
    LinkExpiredError,
    SourceChangedError,
    SourceUnavailableError,
    StorageUnavailableError,
    TransferInterruptedError,
)
from livekit_backup.models.outcome import Outcome
from unit.fakes import crc64nvme_of
from unit.recording_bench import ATTEMPT, NO_MD5, URI, Bench

PART = 5 * MIB
LONG = hashlib.shake_128(b"a long recording").digest(13 * MIB)
"""Three parts of LiveKit's."""


def etag_of(data, part_size=PART):
    parts = [data[start : start + part_size] for start in range(0, len(data), part_size)]
    return multipart_etag(hashlib.md5(part).digest() for part in parts)


ETAG = etag_of(LONG)
SHA = hashlib.sha256(LONG).hexdigest()


def _bench(data=LONG, etag=None, **options):
    return Bench(data=data, etag=etag or etag_of(data), **options)


def _killed(bench, at=11 * MIB):
    """A try that broke off at a byte, and left what it had."""
    bench.source.faults = [at] * 9
    with pytest.raises(TransferInterruptedError):
        bench.download()
    bench.source.faults = []
    (upload_id,) = bench.store.uploads
    bench.source.opened.clear()
    bench.store.put_parts.clear()
    return upload_id


def test_the_next_try_goes_on_behind_the_parts_that_are_up():
    bench = _bench()
    upload_id = _killed(bench)
    upload = bench.download()
    assert upload.upload_id == upload_id
    assert bench.source.opened == [(10 * MIB, ETAG)]
    assert bench.store.put_parts == [3]
    assert upload.sha256 == ""
    entry = bench.land(upload)
    assert bench.store.objects[URI] == LONG
    assert entry.sha256 == SHA
    assert entry.verified_by == ("length", "event_size", "source_etag", "destination_etag", "read_back")
    assert bench.store.tags[URI] == {SHA256: SHA}


def test_the_crc64nvme_of_the_whole_is_known_where_the_store_lists_that_of_the_parts():
    bench = _bench(store={"keeps_crc64nvme": True})
    _killed(bench)
    upload = bench.download()
    assert upload.crc64nvme == crc64nvme_of(LONG)
    assert "destination_crc64nvme" in bench.land(upload).verified_by
    other = _bench()
    _killed(other)
    assert other.download().crc64nvme == ""


def test_nothing_is_read_when_all_parts_are_up():
    bench = _bench()
    upload = bench.download()
    bench.source.opened.clear()
    again = bench.download()
    assert bench.source.opened == []
    assert (again.upload_id, again.size, again.sha256) == (upload.upload_id, len(LONG), "")
    assert bench.land(again).sha256 == SHA


def test_a_gap_ends_what_is_trusted():
    bench = _bench()
    upload_id = _killed(bench)
    del bench.store.uploads[upload_id][1][1]
    bench.download()
    assert bench.source.opened == [(0, "")]
    assert list(bench.store.uploads) != [upload_id]


def test_a_part_of_another_size_ends_it_too():
    bench = _bench()
    upload_id = _killed(bench)
    parts = bench.store.uploads[upload_id][1]
    parts[2] = parts[2][:-1]
    upload = bench.download()
    assert bench.source.opened == [(5 * MIB, ETAG)]
    assert bench.land(upload).sha256 == SHA


def test_a_wrong_part_that_a_dead_try_left_never_lands(caplog):
    bench = _bench()
    upload_id = _killed(bench)
    parts = bench.store.uploads[upload_id][1]
    parts[1] = b"x" + parts[1][1:]
    upload = bench.download()
    assert [start for start, _ in bench.source.opened] == [10 * MIB, 0]
    assert "beginning anew at byte 0" in caplog.text
    assert upload.sha256 == SHA
    assert bench.land(upload).outcome is Outcome.LANDED
    assert bench.store.objects[URI] == LONG


def test_another_recording_at_the_source_is_read_from_its_beginning():
    bench = _bench()
    upload_id = _killed(bench)
    other = bytes(reversed(LONG))
    bench.source.data, bench.source.etag = other, etag_of(other)
    bench.source.refusals = [SourceChangedError("another ETag")]
    upload = bench.download()
    assert bench.source.opened == [(10 * MIB, ETAG), (0, "")]
    assert upload.sha256 == hashlib.sha256(other).hexdigest()
    assert upload_id not in bench.store.uploads
    assert bench.land(upload).source_etag == etag_of(other)


def test_an_upload_that_is_gone_is_begun_anew():
    bench = _bench()
    _killed(bench)
    bench.store.uploads.clear()
    assert bench.download().sha256 == SHA
    assert bench.source.opened == [(0, "")]


def test_another_landing_key_is_another_upload():
    bench = _bench()
    _killed(bench)
    bench.file = bench.file.model_copy(update={"landing_uri": "s3://b/out/other.mp4"})
    upload = bench.download()
    assert bench.source.opened == [(0, "")]
    drop_left_open(bench.ledger, bench.store, ATTEMPT, {upload.landing_uri})
    assert [uri for uri, _, _ in bench.store.uploads.values()] == [upload.landing_uri]


@pytest.mark.parametrize(
    "options",
    [NO_MD5, {"etag_is_digest": False}, {"etag": "weird"}, {"etag": hashlib.md5(LONG).hexdigest()}],
    ids=["warehouse without MD5s", "source without MD5s", "no known rule", "one PUT"],
)
def test_where_nothing_can_be_proved_it_begins_anew(options):
    bench = _bench(**options)
    bench.source.faults = [11 * MIB] * 9
    with pytest.raises(TransferInterruptedError):
        bench.download()
    bench.source.faults = []
    bench.source.opened.clear()
    upload = bench.download()
    assert bench.source.opened == [(0, "")]
    assert upload.sha256 == SHA
    assert len(bench.store.uploads) == 1
    assert bench.land(upload).outcome is Outcome.LANDED


def test_a_second_process_beside_it_shares_the_upload():
    bench = _bench()
    first = bench.download()
    second = bench.download()
    assert first.upload_id == second.upload_id
    assert bench.land(first).outcome is Outcome.LANDED
    assert bench.land(second).outcome is Outcome.ALREADY_LANDED


@pytest.mark.parametrize("error", [LinkExpiredError("dead"), AccessDeniedError("403")])
def test_a_link_that_dies_meanwhile_is_read_again(error):
    bench = _bench(faults=[11 * MIB])
    source_open, dead = bench.source.open, [error]

    def reopen(start=0, stop=None, etag=""):
        if start and dead:
            raise dead.pop()
        return source_open(start, stop, etag)

    bench.source.open = reopen
    assert bench.download().sha256 == SHA


def test_a_link_that_stays_dead_is_expired_and_leaves_no_upload():
    bench = _bench(faults=[11 * MIB])
    source_open = bench.source.open

    def reopen(start=0, stop=None, etag=""):
        if start:
            raise LinkExpiredError("dead")
        return source_open(start, stop, etag)

    bench.source.open = reopen
    with pytest.raises(LinkExpiredError):
        bench.download()
    assert bench.store.uploads == {}


def test_a_source_that_changes_while_it_is_read_is_begun_anew():
    bench = _bench(faults=[11 * MIB])
    bench.source.refusals = []
    source_open, changed = bench.source.open, [SourceChangedError("another ETag")]

    def reopen(start=0, stop=None, etag=""):
        if start and changed:
            raise changed.pop()
        return source_open(start, stop, etag)

    bench.source.open = reopen
    upload = bench.download()
    assert upload.sha256 == SHA
    assert list(bench.store.uploads) == [upload.upload_id]


def test_a_source_that_never_stays_the_same_is_given_up():
    bench = _bench()
    opened = []

    def reopen(start=0, stop=None, etag=""):
        opened.append(start)
        raise SourceChangedError("another ETag")

    bench.source.open = reopen
    with pytest.raises(SourceChangedError):
        bench.download()
    assert opened == [0] * MOST_PASSES


def test_a_warehouse_that_turns_out_to_encrypt_is_not_counted_on():
    """The store was checked before somebody switched SSE-KMS on."""
    bench = _bench(store={"md5_etags": False, "says_kms": True, "keeps_crc64nvme": True})
    upload = bench.download()
    assert upload.computed_etags == (ETAG,)
    entry = bench.land(upload)
    assert entry.verified_by == ("length", "event_size", "source_etag", "destination_crc64nvme")
    assert list(bench.store.uploads) == []


def test_another_writers_guess_that_fails_is_tried_in_other_sizes(caplog):
    data = LONG[: 9 * MIB]
    bench = _bench(data=data, etag=etag_of(data, 8 * MIB))
    upload = bench.download()
    assert upload.computed_etags == (etag_of(data), etag_of(data, 8 * MIB))
    assert "source_etag" in bench.land(upload).verified_by


def test_a_wrong_byte_of_livekits_never_lands():
    wrong = b"x" + LONG[1:]
    bench = _bench(data=wrong, etag=ETAG)
    upload = bench.download()
    with pytest.raises(CorruptError, match="LiveKit's storage says"):
        bench.land(upload)
    assert URI not in bench.store.objects
    assert bench.store.uploads == {}


def test_another_writers_odd_part_size_is_unknown_and_lands():
    data = LONG[: 12 * MIB] * 5
    bench = _bench(data=data, etag=etag_of(data, 8 * MIB - 7))
    entry = bench.land(bench.download())
    assert entry.outcome is Outcome.LANDED
    assert "source_etag" in entry.unverified[0]


def test_the_digest_is_in_the_metadata_where_it_is_known_in_time():
    bench = Bench()
    upload = bench.download()
    assert bench.store.uploads[upload.upload_id][2][SHA256] == upload.sha256
    bench.land(upload)
    assert bench.store.tags == {}
    long = _bench()
    assert SHA256 not in long.store.uploads[long.download().upload_id][2]


def test_no_tags_where_the_store_has_none():
    bench = _bench(found={"tags": False})
    bench.land(bench.download())
    assert bench.store.tags == {}


def test_a_note_that_cannot_be_written_leaves_no_upload():
    bench = _bench()

    def refuse(uri, body, **options):
        raise StorageUnavailableError("503")

    bench.store.put = refuse
    with pytest.raises(StorageUnavailableError):
        bench.download()
    assert bench.store.uploads == {}


def test_a_source_that_does_not_answer_leaves_no_upload():
    bench = _bench()
    bench.source.refusals = [SourceUnavailableError("503")]
    with pytest.raises(SourceUnavailableError):
        bench.download()
    assert bench.store.uploads == {}


def test_the_log_tells_where_it_goes_on_and_what_was_checked(caplog):
    caplog.set_level(logging.INFO)
    bench = _bench()
    _killed(bench)
    bench.download()
    assert "going on at 77 %" in caplog.text
    assert "source's ETag by the warehouse's own checksums" in caplog.text


def test_side_by_side_ranges_give_the_same():
    bench = _bench()
    upload = bench.download(streams=3)
    assert (upload.sha256, upload.etag) == (SHA, ETAG)
    assert ATTEMPT.run_id == "r1"
