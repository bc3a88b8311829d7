"""The second half of a file's recovery: verify the upload, complete it, look again, write it down.

What holds it together: nothing is visible before :func:`land` completes the upload,
completing never replaces an object, and the ledger never loses a landing.
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
from livekit_backup.errors import (
    CorruptError,
    LandingConflictError,
    LivekitBackupError,
    NeedsOperatorError,
    UploadGoneError,
)
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import RecordingFile, Upload

log = logging.getLogger(__name__)

READ_BACK_CHUNK = 1024 * 1024


def land(file: RecordingFile, upload: Upload, store: ObjectStore, ledger: Ledger, attempt: Attempt) -> LedgerEntry:
    """Verify an upload and complete it, which makes it visible; then write it down.

    Run again after it succeeded, it finds the landed object and says so.

    :raises CorruptError: the bytes are not the recording's; the upload is dropped.
    :raises LandingConflictError: the key holds other content; the upload is dropped.
    :raises NeedsOperatorError: the upload is gone and nothing has landed: download has to run again.
    """
    if landed := ledger.find_landed(file):
        _drop(upload, store)
        return landed.model_copy(update={"outcome": Outcome.ALREADY_LANDED})
    if upload.already_landed:
        raise NeedsOperatorError(f"{upload.landing_uri} was there and is not any more: clear the download task")
    try:
        checks = check_source(upload, file.size)
        head = _complete(file, upload, store, checks)
    except (CorruptError, LandingConflictError):
        _drop(upload, store)
        raise
    entry = ledger.record(_landed_entry(file, upload, head, checks, attempt))
    # Whatever else is open here can only end in a conflict with what has just landed.
    drop_open_uploads([file], store)
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
    if head is None or (wrong := _what_is_wrong(upload, head, store, proven=proven)):
        wrong = wrong if head else "is not there after it was completed"
        if not completed:
            raise LandingConflictError(
                f"{upload.landing_uri} holds other content (it {wrong}): move it away or change landing_key, "
                "then clear the download task"
            )
        store.delete(upload.landing_uri)
        raise CorruptError(f"{upload.landing_uri} {wrong}; nothing was left there")
    if not completed:
        _drop(upload, store)
    checks.passed.append("destination_etag" if proven else "read_back")
    return head


def _landed_head(upload: Upload, store: ObjectStore, checks: Checks) -> ObjectHead:
    """The upload is gone: a try before this one may have completed it and died before it wrote that down."""
    head = store.head(upload.landing_uri)
    if head is None:
        raise NeedsOperatorError(
            f"the upload to {upload.landing_uri} was dropped and nothing is there: clear the download task"
        )
    if wrong := _what_is_wrong(upload, head, store, proven=head.etag == upload.etag):
        raise LandingConflictError(f"{upload.landing_uri} holds other content: it {wrong}")
    checks.passed.append("destination_etag" if head.etag == upload.etag else "read_back")
    return head


def _what_is_wrong(upload: Upload, head: ObjectHead, store: ObjectStore, *, proven: bool) -> str:
    """Look again, always: a store was seen that answers success to a wrong checksum."""
    if head.size != upload.size:
        return f"has {head.size} bytes instead of {upload.size}"
    if proven:
        return "" if head.etag == upload.etag else f"has ETag {head.etag} instead of {upload.etag}"
    digest = hashlib.sha256()
    body = store.open(upload.landing_uri)
    try:
        while chunk := body.read(READ_BACK_CHUNK):
            digest.update(chunk)
    finally:
        body.close()
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


def drop_open_uploads(files: Iterable[RecordingFile], store: ObjectStore) -> int:
    """Abort every open upload at the landing keys of these files; return how many there were.

    What cannot be dropped costs storage and no recording, so it is only logged.
    """
    dropped = 0
    for file in files:
        try:
            for upload_id in store.list_uploads(file.landing_uri) if file.landing_uri else ():
                store.abort_upload(file.landing_uri, upload_id)
                dropped += 1
        except LivekitBackupError as error:
            log.warning("open uploads were not dropped: %s", error)
    return dropped
