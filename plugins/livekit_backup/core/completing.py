"""An upload on its way to being an object: verified, completed, and looked at where it shows."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from livekit_backup.core.ledger import entry_for
from livekit_backup.core.object_metadata import MARK, SHA256, content_type, provenance
from livekit_backup.core.read_back import ReadBack, read_back
from livekit_backup.core.storage import ConditionalStore, ObjectHead, ObjectStore
from livekit_backup.core.upload_sink import UploadSink
from livekit_backup.core.verification import Checks, check_landed, check_parts, check_proven, check_source
from livekit_backup.errors import (
    ChecksumMismatchError,
    LandingConflictError,
    StorageUnavailableError,
    UploadGoneError,
    UploadLostError,
)
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import RecordingFile, Upload
from livekit_backup.models.settings import Verify
from livekit_backup.models.store_abilities import StoreAbilities

log = logging.getLogger(__name__)


class Completion:
    """One upload on its way to being an object."""

    def __init__(
        self,
        file: RecordingFile,
        upload: Upload,
        store: ObjectStore,
        abilities: StoreAbilities,
        *,
        content: bytes = b"",
        replace: bool = False,
        verify: Verify = Verify.STANDARD,
        had_landed: bool = False,
    ) -> None:
        """Prepare.

        :param had_landed: it was written down once: what shows in its place now is somebody's, whatever it says.
        """
        self._had_landed = had_landed
        self._file = file
        self._upload = upload
        self._store = store
        self._abilities = abilities
        self._content = content
        self._replace = replace
        self._is_strict = verify is Verify.STRICT
        self._sink = UploadSink(store, upload.landing_uri, upload.upload_id or "")
        self._checks = Checks()
        self._sha256 = upload.sha256
        self._head: ObjectHead | None = None

    def run(self) -> None:
        """Check, complete, and look again, always: a store was seen that answers success to a wrong checksum."""
        self._checks = check_source(self._upload, self._file.size)
        if self._is_strict:
            check_proven(self._upload, self._checks)
        self._look(self._complete())

    def look(self, checks: Checks) -> None:
        """Look at what shows, as if an earlier try had completed it.

        :param checks: that it has passed before it was.
        """
        self._checks = checks
        self._look(None)

    def _look(self, completed: bool | None) -> None:
        upload = self._upload
        head = self._head = self._store.head(upload.landing_uri)
        if head is None and completed is None:
            raise UploadLostError(
                f"the upload to {upload.landing_uri} was dropped and nothing is there: clear the download task"
            )
        if head is None:
            # A store may show late what it has acknowledged; the next try finds it.
            raise StorageUnavailableError(f"{upload.landing_uri} is not there yet after it was completed")
        if wrong := self._what_is_wrong(head):
            is_ours = self._is_ours(head) and not (self._had_landed and completed is None)
            if completed and not is_ours:
                # Of two completions at the same instant stores were seen to let both win: look again later.
                raise StorageUnavailableError(f"{upload.landing_uri} does not show what was completed: it {wrong}")
            if not is_ours and completed is None and self._replace:
                raise UploadLostError(
                    f"the upload that was to replace {upload.landing_uri} was dropped: clear the download task"
                )
            if not is_ours:
                raise LandingConflictError(
                    f"{upload.landing_uri} holds other content (it {wrong}): move it away, then clear the "
                    "verify_and_land task"
                )
            self._remove(head)
            raise ChecksumMismatchError(f"{upload.landing_uri} {wrong}: not what was sent; nothing was left there")
        if completed is False and upload.upload_id:
            self._sink.abort()
        if completed is not False and SHA256 not in head.metadata and self._abilities.tags:
            self._store.add_tags(upload.landing_uri, {SHA256: self._sha256})

    def _complete(self) -> bool | None:
        """Make the upload the object; False where one is there already, None when the upload is gone.

        Gone, since a try before this one may have completed it and died before it wrote that down.
        """
        upload = self._upload
        if upload.upload_id is None:
            return self._put()
        parts = self._sink.parts()
        if parts is None:
            return None
        check_parts(upload, parts)
        try:
            return self._sink.complete(parts, size=upload.size, crc64nvme=upload.crc64nvme, replace=self._replace)
        except UploadGoneError:
            return None

    def _put(self) -> bool:
        upload, store = self._upload, self._store
        if self._abilities.never_replaces and isinstance(store, ConditionalStore):
            # One request less. Of uploads in parts two stores were seen to let both of two completions win.
            store = store.without_looking()
        is_checked = bool(upload.size)
        return store.put_new(
            upload.landing_uri,
            self._content,
            content_type=content_type(self._file.filename),
            metadata=provenance(self._file, datetime.now(UTC), upload.sha256, upload.mark),
            crc64nvme=upload.crc64nvme if is_checked and self._abilities.accepts_crc64nvme else "",
            md5=bytes.fromhex(upload.own_etag) if is_checked and not self._abilities.refuses_wrong_crc64nvme else b"",
            replace=self._replace,
        )

    def _is_ours(self, head: ObjectHead) -> bool:
        """Whether an earlier try completed this very upload, and died before it had looked at it."""
        return bool(self._upload.mark) and head.metadata.get(MARK) == self._upload.mark

    def _remove(self, head: ObjectHead) -> None:
        """Remove what was found wrong, and nothing else: reading an object back takes time, and others write too."""
        now = self._store.head(self._upload.landing_uri)
        if now is not None and not (now.etag == head.etag and self._is_ours(now)):
            raise StorageUnavailableError(f"{self._upload.landing_uri} was replaced while it was looked at")
        self._store.delete(self._upload.landing_uri)

    def _what_is_wrong(self, head: ObjectHead) -> str:
        wrong, is_proven = check_landed(self._upload, head, self._abilities, self._checks)
        if wrong or (is_proven and self._sha256 and not self._is_strict):
            return wrong
        return self._read_back(head)

    def _read_back(self, head: ObjectHead) -> str:
        """Read the object itself: for a proof where there is no other, or for the SHA-256 of all its bytes.

        Of an upload that was put together by more than one process only this gives the SHA-256; its
        bytes are those that the source's ETag stands for. What reads back otherwise is read once more: an object
        is not removed for a fault on the way to here.
        """
        wrong, found = self._read_back_once(head)
        if wrong:
            log.warning("%s %s: it is read once more", self._upload.landing_uri, wrong)
            wrong, found = self._read_back_once(head)
        if not wrong:
            self._sha256 = found.sha256
            self._checks.passed.append("read_back")
        return wrong

    def _read_back_once(self, head: ObjectHead) -> tuple[str, ReadBack]:
        upload = self._upload
        found = read_back(self._store, upload.landing_uri, head, part_size=None if self._sha256 else upload.part_size)
        if self._sha256 and found.sha256 != self._sha256:
            return "reads back with another SHA-256", found
        if found.etag and upload.etag and found.etag != upload.etag:
            return "reads back with another ETag", found
        return "", found

    def entry(self, attempt: Attempt) -> LedgerEntry:
        """Return what the ledger is to hold."""
        assert self._head is not None
        return entry_for(self._file, Outcome.LANDED, "", attempt).model_copy(
            update={
                "landed_uri": self._upload.landing_uri,
                "size": self._head.size,
                "sha256": self._sha256,
                "crc64nvme": self._upload.crc64nvme,
                "etag": self._head.etag,
                "source_etag": self._upload.source_etag,
                "verified_by": tuple(self._checks.passed),
                "unverified": tuple(self._checks.unverified),
                "flags": () if self._upload.size else ("empty",),
                "suspect": () if self._upload.size else ("it is empty",),
            }
        )
