"""Files that never were in the backup: copied from the customer's own bucket, so that a recording is whole.

Where one store has both, it copies by itself, in the parts of the source, so that the copy's
ETag must come out as the source's. Else the bytes pass through the task like any other's.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from livekit_backup.core.etags import etag_rule
from livekit_backup.core.file_upload import EtagsProveNothingError, FileUpload, Work
from livekit_backup.core.part_plan import plan_parts
from livekit_backup.core.storage import ObjectHead, ObjectStore, ReadableBody
from livekit_backup.core.transfer_protocols import SourceBody
from livekit_backup.core.upload_sink import UploadSink
from livekit_backup.errors import AccessDeniedError, ConfigurationError, MissingError, SourceChangedError
from livekit_backup.models.references import Upload
from livekit_backup.models.store_abilities import StoreAbilities

COPIES = 8
"""Copies of one file under way at a time: the store does the work."""

log = logging.getLogger(__name__)


class StoreSource:
    """An object of a store as a source."""

    def __init__(self, store: ObjectStore, uri: str) -> None:
        self._store = store
        self._uri = uri

    @property
    def name(self) -> str:
        """The URI."""
        return self._uri

    def head(self) -> ObjectHead:
        """Return size and ETag. :raises MissingError: it is not there."""
        head = self._store.head(self._uri)
        if head is None:
            raise MissingError(f"nothing is stored there: {self.name}")
        return head

    def open(self, start: int = 0, stop: int | None = None, etag: str = "") -> SourceBody:
        """Ask for the bytes from ``start`` to ``stop``, of the version with this ETag.

        :raises MissingError: it is not there.
        :raises SourceChangedError: another version is there.
        """
        head = self.head()
        wanted = etag or head.etag
        if not head.size:
            return _StoreBody(None, head)
        try:
            return _StoreBody(self._store.open(self._uri, start, stop, wanted), head)
        except FileNotFoundError:
            raise MissingError(f"nothing is stored there: {self.name}") from None


class _StoreBody:
    """One open object, from some offset on."""

    def __init__(self, body: ReadableBody | None, head: ObjectHead) -> None:
        self._body = body
        self.size = head.size
        self.etag = self.version = head.etag
        self.etag_is_digest = head.etag_is_md5

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of a buffer; 0 at the end."""
        data = self._body.read(len(view)) if self._body else b""
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Give the connection back."""
        if self._body:
            self._body.close()


def copy_within_store(source_uri: str, upload: FileUpload, abilities: StoreAbilities) -> Upload | None:
    """Let the warehouse's store copy an object of its own into an upload.

    :return: None where it cannot, or where the copy would prove nothing: then the bytes have to pass through.
    :raises MissingError: the object is not there.
    :raises RetryableError: the store gave up.
    """
    try:
        head = StoreSource(upload.store, source_uri).head()
        rule = etag_rule(head.etag, head.size, is_digest=head.etag_is_md5)
        if not head.size or not (plan := plan_parts(head.size, rule, abilities)).proves_source:
            return None
        work = Work(plan, rule, head.etag)
        etags = _copy_parts(upload.open(work), source_uri, work)
    except (
        AccessDeniedError,
        ConfigurationError,
        EtagsProveNothingError,
        FileNotFoundError,
        SourceChangedError,
    ) as error:
        log.info("%s is not copied by the store itself: %s", source_uri, error)
        upload.drop()
        return None
    # Nobody has seen its bytes yet: what they are is read back once they have landed.
    copied = upload.result(work, work.checksums(), etags).model_copy(update={"sha256": "", "crc64nvme": ""})
    if copied.source_etag_by_warehouse != copied.source_etag:
        log.info("%s is not copied by the store itself: the copy proves nothing", source_uri)
        upload.drop()
        return None
    return copied


def _copy_parts(sink: UploadSink, source_uri: str, work: Work) -> list[str]:
    with ThreadPoolExecutor(COPIES, thread_name_prefix="copy") as pool:
        copies = [
            pool.submit(sink.copy_part, number, source_uri, work.plan.span(number), work.source_etag)
            for number in range(1, work.plan.count + 1)
        ]
        try:
            return [copy.result() for copy in copies]
        finally:
            pool.shutdown(cancel_futures=True)
