"""Files of the customer's own bucket, copied by the store itself or through the task."""

from __future__ import annotations

import hashlib

import pytest

from livekit_backup.core.downloading import Download
from livekit_backup.core.etags import MIB
from livekit_backup.core.primary_copy import StoreSource, copy_within_store
from livekit_backup.errors import AccessDeniedError, ConfigurationError, MissingError, SourceChangedError
from livekit_backup.models.outcome import Outcome
from unit.recording_bench import ATTEMPT, NO_MD5, URI, Bench
from unit.test_resume import LONG, SHA

PRIMARY = "s3://acme/recordings/a.mp4"


class Primary(Bench):
    """The primary bucket and the warehouse are of one store."""

    def __init__(self, data=LONG, **options):
        super().__init__(data=data, **options)
        self.file = self.file.model_copy(update={"primary_uri": PRIMARY, "deadline": None})
        opened = self.store.create_upload(PRIMARY, content_type="x", metadata={})
        etags = []
        for number in range(1, -(-len(data) // (5 * MIB)) + 1):
            part = memoryview(data)[(number - 1) * 5 * MIB : number * 5 * MIB]
            etags.append(self.store.upload_part(PRIMARY, opened.upload_id, number, part))
        if len(data) <= 5 * MIB:
            self.store.abort_upload(PRIMARY, opened.upload_id)
            self.store.put(PRIMARY, data)
        else:
            parts = self.store.list_parts(PRIMARY, opened.upload_id)
            self.store.complete_upload(PRIMARY, opened.upload_id, parts, size=len(data))
        self.streamed = 0

    def download(self, *, copies=True):
        def open_source():
            self.streamed += 1
            return StoreSource(self.store, PRIMARY)

        def copy(upload):
            return copy_within_store(PRIMARY, upload, self.found)

        return Download(self.file, self.store, self.ledger, ATTEMPT, self.found).run(
            open_source, copy if copies else None
        )


@pytest.mark.parametrize("data", [LONG, LONG[:MIB]], ids=["parts", "one PUT"])
def test_the_store_copies_it_and_the_etag_proves_it(data):
    bench = Primary(data)
    upload = bench.download()
    assert (upload.sha256, bench.streamed) == ("", 0)
    assert URI not in bench.store.objects
    entry = bench.land(upload)
    assert bench.store.objects[URI] == data
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    assert {"source_etag", "read_back"} <= set(entry.verified_by)


@pytest.mark.parametrize(
    "error", [AccessDeniedError("403"), ConfigurationError("501"), SourceChangedError("412"), FileNotFoundError("404")]
)
def test_what_the_store_cannot_copy_passes_through(error):
    bench = Primary()

    def refuse(*_):
        raise error

    bench.store.copy_part = refuse
    upload = bench.download()
    assert (upload.sha256, bench.streamed) == (SHA, 1)
    assert list(bench.store.uploads) == [upload.upload_id]
    assert bench.land(upload).outcome is Outcome.LANDED


def test_a_copy_that_would_prove_nothing_is_not_made():
    bench = Primary(**NO_MD5)
    assert (bench.download().sha256, bench.streamed) == (SHA, 1)


def test_a_copy_of_other_bytes_is_dropped():
    bench = Primary()
    bench.store.copy_part = lambda uri, upload_id, number, *_: bench.store.upload_part(
        uri, upload_id, number, memoryview(b"other")
    )
    upload = bench.download()
    assert (upload.sha256, bench.streamed) == (SHA, 1)
    assert list(bench.store.uploads) == [upload.upload_id]


def test_other_stores_pass_it_through():
    bench = Primary()
    assert (bench.download(copies=False).sha256, bench.streamed) == (SHA, 1)


def test_a_copy_that_was_killed_is_gone_on_with():
    bench = Primary()
    upload = bench.download()
    del bench.store.uploads[upload.upload_id][1][3]
    again = bench.download()
    assert again.upload_id == upload.upload_id
    assert bench.land(again).sha256 == SHA


def test_what_is_not_there_is_missing():
    bench = Primary()
    bench.store.delete(PRIMARY)
    with pytest.raises(MissingError, match="nothing is stored there"):
        bench.download()


def test_an_empty_object_lands():
    bench = Primary(b"")
    entry = bench.land(bench.download())
    assert (entry.size, entry.flags) == (0, ("empty",))
