"""A sink over a store's multipart upload."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from livekit_backup.core.checksums import PartChecksums
from livekit_backup.core.storage import ObjectStore, UploadedPart
from livekit_backup.errors import ChecksumMismatchError

MISMATCHES = 3
"""So often a part is sent again since the store received other bytes: ours are right, and a bit that flipped on the way
must not cost the whole download."""

log = logging.getLogger(__name__)


class UploadSink:
    """One open multipart upload at a URI."""

    def __init__(self, store: ObjectStore, uri: str, upload_id: str) -> None:
        self._store = store
        self.uri = uri
        self.upload_id = upload_id

    def put_part(self, number: int, body: memoryview, checksums: PartChecksums) -> str:
        """Store a part, numbered from 1, and return its ETag.

        :raises ChecksumMismatchError: the store received other bytes than were sent, time and again.
        :raises UploadGoneError: the upload was aborted or completed.
        """
        for left in range(MISMATCHES, -1, -1):
            try:
                return self._store.upload_part(
                    self.uri, self.upload_id, number, body, crc64nvme=checksums.crc64nvme, md5=checksums.md5
                )
            except ChecksumMismatchError as error:
                if not left:
                    raise
                log.warning("part %d is sent again: %s", number, error)
        raise AssertionError("the last attempt returns or raises")

    def copy_part(self, number: int, source_uri: str, span: range, etag: str) -> str:
        """Let the store itself copy a part from another of its objects, and return the part's ETag."""
        return self._store.copy_part(self.uri, self.upload_id, number, source_uri, span, etag)

    def parts(self) -> list[UploadedPart] | None:
        """List the stored parts in order, or None when the upload is gone."""
        return self._store.list_parts(self.uri, self.upload_id)

    def complete(self, parts: Sequence[UploadedPart], *, size: int, crc64nvme: str, replace: bool = False) -> bool:
        """Make the parts the object, where there is none or with ``replace``; False when there is one."""
        return self._store.complete_upload(
            self.uri, self.upload_id, parts, size=size, crc64nvme=crc64nvme, replace=replace
        )

    def abort(self) -> None:
        """Drop the parts; dropping what is gone is no error."""
        self._store.abort_upload(self.uri, self.upload_id)
