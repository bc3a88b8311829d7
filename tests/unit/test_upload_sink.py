"""A sink over a store's upload: a part whose bytes changed on the way is sent again."""

from __future__ import annotations

import pytest

from livekit_backup.core.checksums import PartChecksums
from livekit_backup.core.upload_sink import MISMATCHES, UploadSink
from livekit_backup.errors import ChecksumMismatchError, StorageUnavailableError
from unit.fakes import MemoryStore, crc64nvme_of

URI = "s3://b/k"
BODY = memoryview(b"part")


class Flipping(MemoryStore):
    """Receives another first bit, so many times."""

    def __init__(self, times):
        super().__init__()
        self.times, self.sent = times, 0

    def upload_part(self, uri, upload_id, number, body, **checks):
        self.sent += 1
        received = bytes([body[0] ^ 1]) + bytes(body[1:]) if self.sent <= self.times else bytes(body)
        return super().upload_part(uri, upload_id, number, memoryview(received), **checks)


def _put(store):
    opened = store.create_upload(URI, content_type="x", metadata={})
    return UploadSink(store, URI, opened.upload_id).put_part(1, BODY, PartChecksums(crc64nvme_of(bytes(BODY))))


@pytest.mark.parametrize("times", [0, 1, MISMATCHES])
def test_bits_that_flip_are_sent_again(times, caplog):
    store = Flipping(times)
    assert _put(store)
    assert store.sent == times + 1
    assert caplog.text.count("part 1 is sent again") == times


def test_a_path_that_flips_every_time_is_given_up():
    store = Flipping(99)
    with pytest.raises(ChecksumMismatchError):
        _put(store)
    assert store.sent == MISMATCHES + 1


def test_other_errors_are_not_its_business():
    store = MemoryStore()

    def refuse(*_, **__):
        raise StorageUnavailableError("503")

    store.upload_part = refuse
    with pytest.raises(StorageUnavailableError):
        _put(store)
