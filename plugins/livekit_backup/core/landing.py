"""The second half of a file's recovery: verify the upload, complete it, look again, write it down.

What holds it together: nothing is visible before :func:`land` completes the upload,
completing never replaces an object, and a landing stays in the ledger while its object is there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable

from livekit_backup.core.downloading import provenance
from livekit_backup.core.landing_keys import content_type
from livekit_backup.core.ledger import Ledger, entry_for
from livekit_backup.core.storage import ObjectHead, ObjectStore
from livekit_backup.core.verification import Checks, check_parts, check_source
from livekit_backup.core.wording import quoted
from livekit_backup.errors import (
    CorruptError,
    LandingConflictError,
    LivekitBackupError,
    StorageUnavailableError,
    UploadGoneError,
    UploadLostError,
)
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import OpenUpload, RecordingFile, Upload

log = logging.getLogger(__name__)

READ_BACK_CHUNK = 1024 * 1024


def land(file: RecordingFile, upload: Upload, store: ObjectStore, ledger: Ledger, attempt: Attempt) -> LedgerEntry:
    """Verify an upload and complete it, which makes it visible; then write it down.

    Run again after it succeeded, it finds the landed object and says so.

    :raises CorruptError: the bytes are not the recording's; the upload is dropped.
    :raises LandingConflictError: the key holds other content; the upload is dropped.
    :raises UploadLostError: the upload is gone or of another file, and nothing has landed: download has to run again.
    :raises StorageUnavailableError: the landed object does not show yet.
    """
    is_its_own = (upload.egress_id, upload.run, upload.filename) == file.key
    if landed := ledger.find_landed(file):
        if is_its_own:
            _drop(upload, store)
        return landed.model_copy(update={"outcome": Outcome.ALREADY_LANDED})
    if not is_its_own:
        raise UploadLostError(
            f"what download left here is of another file ({upload.egress_id} {quoted(upload.filename)}), since "
            "resolve_manifests ran again: clear the download task"
        )
    if upload.already_landed:
        raise UploadLostError(f"{upload.landing_uri} was there and is not any more: clear the download task")
    try:
        checks = check_source(upload, file.size)
        head = _complete(file, upload, store, checks)
    except (CorruptError, LandingConflictError):
        _drop(upload, store)
        raise
    entry = ledger.record(_landed_entry(file, upload, head, checks, attempt))
    drop_open_uploads(_rivals(upload.landing_uri, store), store)
    return entry


def _complete(file: RecordingFile, upload: Upload, store: ObjectStore, checks: Checks) -> ObjectHead:
    if not upload.size:
        completed = store.put_new(
            upload.landing_uri, b"", content_type=content_type(file.filename), metadata=provenance(file)
        )
        # Of no bytes there is nothing to prove, and under SSE-KMS their ETag is no MD5.
        proven = False
    else:
        parts = store.list_parts(upload.landing_uri, upload.upload_id or "")
        if parts is None:
            return _landed_head(upload, store, checks)
        proven = check_parts(upload, parts)
        try:
            completed = store.complete_upload(upload.landing_uri, upload.upload_id or "", parts)
        except UploadGoneError:
            return _landed_head(upload, store, checks)
    head = store.head(upload.landing_uri)
    if head is None:
        # A store may show late what it has acknowledged; the next try finds it.
        raise StorageUnavailableError(f"{upload.landing_uri} is not there yet after it was completed")
    if wrong := _what_is_wrong(upload, head, store, checks, proven=proven):
        if not completed:
            raise LandingConflictError(
                f"{upload.landing_uri} holds other content (it {wrong}): move it away or change landing_key, "
                "then clear the download task"
            )
        store.delete(upload.landing_uri)
        raise CorruptError(f"{upload.landing_uri} {wrong}; nothing was left there")
    if not completed:
        _drop(upload, store)
    return head


def _landed_head(upload: Upload, store: ObjectStore, checks: Checks) -> ObjectHead:
    """The upload is gone: a try before this one may have completed it and died before it wrote that down."""
    head = store.head(upload.landing_uri)
    if head is None:
        raise UploadLostError(
            f"the upload to {upload.landing_uri} was dropped and nothing is there: clear the download task"
        )
    if wrong := _what_is_wrong(upload, head, store, checks, proven=True):
        raise LandingConflictError(f"{upload.landing_uri} holds other content: it {wrong}")
    return head


def _what_is_wrong(upload: Upload, head: ObjectHead, store: ObjectStore, checks: Checks, *, proven: bool) -> str:
    """Look again, always: a store was seen that answers success to a wrong checksum.

    An ETag that is not the expected one proves nothing: the same bytes have others when they
    were stored in other parts or under SSE-KMS. Then the object itself is read.
    """
    if head.size != upload.size:
        return f"has {head.size} bytes instead of {upload.size}"
    if proven and head.etag == upload.etag:
        checks.passed.append("destination_etag")
        return ""
    digest = hashlib.sha256()
    body = store.open(upload.landing_uri)
    try:
        while chunk := body.read(READ_BACK_CHUNK):
            digest.update(chunk)
    finally:
        body.close()
    checks.passed.append("read_back")
    return "" if digest.hexdigest() == upload.sha256 else "reads back with another SHA-256"


def _drop(upload: Upload, store: ObjectStore) -> None:
    if upload.upload_id:
        store.abort_upload(upload.landing_uri, upload.upload_id)


def _landed_entry(
    file: RecordingFile, upload: Upload, head: ObjectHead, checks: Checks, attempt: Attempt
) -> LedgerEntry:
    return entry_for(file, Outcome.LANDED, "", attempt).model_copy(
        update={
            "landed_uri": upload.landing_uri,
            "size": head.size,
            "sha256": upload.sha256,
            "etag": head.etag,
            "source_etag": upload.source_etag,
            "verified_by": tuple(checks.passed),
            "unverified": tuple(checks.unverified),
            "flags": () if upload.size else ("empty",),
        }
    )


def drop_open_uploads(uploads: Iterable[OpenUpload], store: ObjectStore) -> None:
    """Abort uploads. What cannot be dropped costs storage and no recording, so it is only logged."""
    for upload in uploads:
        try:
            store.abort_upload(upload.landing_uri, upload.upload_id)
        except LivekitBackupError as error:
            log.warning("an open upload was not dropped: %s", error)


def _rivals(landing_uri: str, store: ObjectStore) -> list[OpenUpload]:
    """Uploads that are open where something has just landed: they can only end in a conflict with it."""
    try:
        open_ids = store.list_uploads(landing_uri)
    except LivekitBackupError as error:
        log.warning("open uploads were not looked for: %s", error)
        open_ids = []
    return [OpenUpload(landing_uri=landing_uri, upload_id=upload_id) for upload_id in open_ids]
