"""A sink over a store's multipart upload."""

from __future__ import annotations

from collections.abc import Sequence

from livekit_backup.core.checksums import PartChecksums
from livekit_backup.core.storage import ObjectStore, UploadedPart


class UploadSink:
    """One open multipart upload at a URI."""

    def __init__(self, store: ObjectStore, uri: str, upload_id: str) -> None:
        self._store = store
        self.uri = uri
        self.upload_id = upload_id

    def put_part(self, number: int, body: memoryview, checksums: PartChecksums) -> str:
        """Store a part, numbered from 1, and return its ETag. :raises UploadGoneError: aborted."""
        return self._store.upload_part(
            self.uri, self.upload_id, number, body, crc64nvme=checksums.crc64nvme, md5=checksums.md5
        )

    def copy_part(self, number: int, source_uri: str, span: range, etag: str) -> str:
        """Let the store itself copy a part from another of its objects, and return the part's ETag."""
        return self._store.copy_part(self.uri, self.upload_id, number, source_uri, span, etag)

    def parts(self) -> list[UploadedPart] | None:
        """List the stored parts in order, or None when the upload is gone."""
        return self._store.list_parts(self.uri, self.upload_id)

    def complete(self, parts: Sequence[UploadedPart], *, size: int, crc64nvme: str) -> bool:
        """Make the parts the object, where there is none; False when there is one."""
        return self._store.complete_upload(self.uri, self.upload_id, parts, size=size, crc64nvme=crc64nvme)

    def abort(self) -> None:
        """Drop the parts; dropping what is gone is no error."""
        self._store.abort_upload(self.uri, self.upload_id)
