"""The second half of a file's recovery: verify the upload, complete it, look again, write it down.

What holds it together: nothing is visible before :func:`land` completes the upload,
completing never replaces an object, and a landing stays in the ledger while its object is there.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime

from livekit_backup.core.ledger import Ledger, entry_for
from livekit_backup.core.object_metadata import MARK, SHA256, content_type, provenance
from livekit_backup.core.open_uploads import drop_rivals
from livekit_backup.core.read_back import ReadBack, read_back
from livekit_backup.core.small_files import WholeFile
from livekit_backup.core.storage import ConditionalStore, ObjectHead, ObjectStore
from livekit_backup.core.upload_sink import UploadSink
from livekit_backup.core.verification import Checks, check_landed, check_parts, check_proven, check_source
from livekit_backup.core.wording import quoted
from livekit_backup.errors import (
    ChecksumMismatchError,
    CorruptError,
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


def land(
    file: RecordingFile,
    done: Upload | WholeFile,
    store: ObjectStore,
    ledger: Ledger,
    attempt: Attempt,
    abilities: StoreAbilities,
    *,
    replace: bool = False,
    is_new: bool = False,
    verify: Verify = Verify.STANDARD,
) -> LedgerEntry:
    """Verify an upload and complete it, which makes it visible, or verify and store a whole file; write it down.

    Run again after it succeeded, it finds the landed object and says so.

    :param done: what the download brought.
    :param replace: what is at the key and is other content makes way.
    :param is_new: the ledger was read a moment ago, and had no entry of this file.
    :param verify: how much has to be proven.
    :raises CorruptError: the bytes are not the recording's; the upload is dropped.
    :raises UnprovenError: by ``verify``, before anything shows; the upload is kept, since the link may die meanwhile.
    :raises ChecksumMismatchError: the store holds other bytes than were sent; of a landed object nothing was left.
    :raises LandingConflictError: the key holds other content; the upload is kept, since the link may die meanwhile.
    :raises UploadLostError: the upload is gone, altered or of another file, and nothing has landed: download has to
        run again.
    :raises StorageUnavailableError: the parts or the landed object do not show yet.
    """
    upload, content = (done.upload, done.content) if isinstance(done, WholeFile) else (done, b"")
    is_its_own = (upload.egress_id, upload.run, upload.filename) == file.key
    if not is_new and (landed := ledger.find_landed(file)):
        if is_its_own:
            _drop(upload, store)
        return landed.model_copy(update={"outcome": Outcome.ALREADY_LANDED})
    if not is_its_own:
        raise UploadLostError(
            f"what download left here is of another file ({upload.egress_id} {quoted(upload.filename)}), since "
            "resolve_manifests ran again: clear the download task"
        )
    landing = _Landing(file, upload, store, abilities, content=content, replace=replace, verify=verify)
    try:
        landing.run()
    except (CorruptError, UploadLostError):
        _drop(upload, store)
        raise
    entry = ledger.record(landing.entry(attempt), is_new=is_new)
    if upload.upload_id:
        drop_rivals(upload.landing_uri, store)
    return entry


def beside(file: RecordingFile, upload: Upload) -> RecordingFile:
    """Return the file with a landing key of its own, named after its content: the key that it should have is taken."""
    digest = upload.sha256 or (upload.etag or upload.source_etag).partition("-")[0]
    mark = digest[:12] or hashlib.sha256(repr(file.key).encode(errors="backslashreplace")).hexdigest()[:12]
    folder, slash, name = file.landing_uri.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    beside_name = f"{stem}~{mark}.{ending}" if dot and stem else f"{name}~{mark}"
    return file.model_copy(update={"landing_uri": f"{folder}{slash}{beside_name}", "is_beside": True})


class _Landing:
    """One upload on its way to being an object."""

    def __init__(
        self,
        file: RecordingFile,
        upload: Upload,
        store: ObjectStore,
        abilities: StoreAbilities,
        *,
        content: bytes,
        replace: bool,
        verify: Verify,
    ) -> None:
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
        upload = self._upload
        self._checks = check_source(upload, self._file.size)
        if self._is_strict:
            check_proven(upload, self._checks)
        completed = self._complete()
        head = self._head = self._store.head(upload.landing_uri)
        if head is None and completed is None:
            raise UploadLostError(
                f"the upload to {upload.landing_uri} was dropped and nothing is there: clear the download task"
            )
        if head is None:
            # A store may show late what it has acknowledged; the next try finds it.
            raise StorageUnavailableError(f"{upload.landing_uri} is not there yet after it was completed")
        if wrong := self._what_is_wrong(head):
            if completed and not self._is_ours(head):
                # Of two completions at the same instant stores were seen to let both win: look again later.
                raise StorageUnavailableError(f"{upload.landing_uri} does not show what was completed: it {wrong}")
            if not self._is_ours(head) and completed is None and self._replace:
                raise UploadLostError(
                    f"the upload that was to replace {upload.landing_uri} was dropped: clear the download task"
                )
            if not self._is_ours(head):
                raise LandingConflictError(
                    f"{upload.landing_uri} holds other content (it {wrong}): move it away, then clear the "
                    "verify_and_land task"
                )
            self._remove(head)
            raise ChecksumMismatchError(f"{upload.landing_uri} {wrong}: not what was sent; nothing was left there")
        if completed is False:
            _drop(upload, self._store)
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


def _drop(upload: Upload, store: ObjectStore) -> None:
    if upload.upload_id:
        store.abort_upload(upload.landing_uri, upload.upload_id)
