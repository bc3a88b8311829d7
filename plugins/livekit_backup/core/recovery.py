"""The story of one recording: find its link, download it, verify it, land it, write it down.

Any step may be killed at any instant and run again, also beside itself. What holds this
together: nothing is visible before :func:`land` completes the upload, completing never
replaces an object, and the ledger never loses a landing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import quote

from livekit_backup.core.inbox import load_backup_events
from livekit_backup.core.landing import content_type, printable
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.locations import Location
from livekit_backup.core.progress import ProgressLog
from livekit_backup.core.resolution import FetchManifest, resolve_backup
from livekit_backup.core.storage import ObjectHead, ObjectStore
from livekit_backup.core.transfer import Digests, Source, SourceBody, Transfer
from livekit_backup.core.verification import Checks, check_parts, check_source
from livekit_backup.errors import (
    CorruptError,
    LandingConflictError,
    NeedsOperatorError,
    UnresolvedError,
    UploadGoneError,
)
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.outcome import IN_WAREHOUSE, Outcome
from livekit_backup.models.references import BackupRef, RecordingFile, Upload

READ_BACK_CHUNK = 1024 * 1024
CORRUPT_FETCHES = 2
"""A wrong byte on the way is gone at the second fetch; one at the source is not."""

log = logging.getLogger(__name__)


class UploadMemory(Protocol):
    """Remembers across the tries of a task which upload the last try left open."""

    def get(self) -> str | None:
        """Return the upload's id, or None."""
        ...

    def set(self, upload_id: str) -> None:
        """Remember it, before the first part is sent."""
        ...


def find_location(inbox: ObjectStore, file: RecordingFile, fetch: FetchManifest) -> Location:
    """Read the event and the manifest again for a file's own signed URL.

    It is read where it is used, so that it never travels between tasks.

    :raises UnresolvedError: the file is not in them any more.
    :raises PermanentError, RetryableError: as the file's own error says.
    """
    ref = BackupRef(egress_id=file.egress_id, run=file.run, events=file.events)
    for found in resolve_backup(load_backup_events(inbox, ref), fetch).files:
        if found.filename == file.filename:
            if found.error:
                raise found.error
            if found.location:
                return found.location
    raise UnresolvedError(f"{printable(file.filename)} is not in the manifest of {file.egress_id} any more")


def download(
    file: RecordingFile,
    open_source: Callable[[], Source],
    store: ObjectStore,
    ledger: Ledger,
    memory: UploadMemory,
) -> Upload:
    """Stream a recording into an uncompleted multipart upload at its landing key.

    What has landed before is not fetched again. An upload that an earlier try left open is
    dropped first; one that this try cannot finish is dropped before the error leaves.

    :raises RetryableError, PermanentError, NeedsOperatorError: as the source or the store says.
    """
    if landed := find_landed(file, store, ledger):
        log.info("%s has landed before, at %s", printable(file.filename), landed.landed_uri)
        return Upload(landing_uri=landed.landed_uri, upload_id=None, already_landed=True, size=landed.size or 0)
    if left_open := memory.get():
        store.abort_upload(file.landing_uri, left_open)
    source = open_source()
    for attempt in range(1, CORRUPT_FETCHES + 1):
        body = source.open()
        if not body.size:
            body.close()
            return _empty(file, body)
        upload = _fetch(file, source, body, store, memory)
        if upload.source_etag_computed in ("", upload.source_etag) or attempt == CORRUPT_FETCHES:
            break
        log.warning("%s arrived with a wrong byte; fetching it again", printable(file.filename))
        store.abort_upload(file.landing_uri, upload.upload_id or "")
    return upload


def _empty(file: RecordingFile, body: SourceBody) -> Upload:
    md5 = hashlib.md5(usedforsecurity=False).hexdigest()
    return Upload(
        landing_uri=file.landing_uri,
        upload_id=None,
        sha256=hashlib.sha256().hexdigest(),
        etag=md5,
        source_etag=body.etag,
        source_etag_computed=md5 if body.etag == md5 else "",
    )


def _fetch(file: RecordingFile, source: Source, body: SourceBody, store: ObjectStore, memory: UploadMemory) -> Upload:
    try:
        upload_id = store.create_upload(
            file.landing_uri, content_type=content_type(file.filename), metadata=_provenance(file)
        )
    except BaseException:
        body.close()
        raise
    try:
        memory.set(upload_id)
        progress = ProgressLog(log, printable(file.filename), body.size, file.deadline)
        digests = Transfer(source, body, progress).run(
            lambda number, part, md5: store.upload_part(file.landing_uri, upload_id, number, part, md5)
        )
        progress.end()
    except BaseException:
        store.abort_upload(file.landing_uri, upload_id)
        raise
    return _upload(file, upload_id, body, digests)


def _upload(file: RecordingFile, upload_id: str, body: SourceBody, digests: Digests) -> Upload:
    return Upload(
        landing_uri=file.landing_uri,
        upload_id=upload_id,
        size=digests.size,
        part_size=digests.part_size,
        sha256=digests.sha256,
        etag=digests.etag,
        announced_size=body.size,
        source_etag=body.etag,
        source_etag_computed=digests.source_etag_computed,
    )


def _provenance(file: RecordingFile) -> dict[str, str]:
    """Object metadata must be ASCII, so names are percent-encoded."""
    return {
        "livekit-egress-id": file.egress_id,
        "livekit-run": str(file.run),
        "livekit-room": quote(file.room_name)[:512],
        "livekit-filename": quote(file.filename, errors="replace")[:512],
    }


def find_landed(file: RecordingFile, store: ObjectStore, ledger: Ledger) -> LedgerEntry | None:
    """Return the ledger's entry of a file that is in the warehouse as the ledger says, or None."""
    entry = ledger.read(file)
    if entry is None or entry.outcome not in IN_WAREHOUSE:
        return None
    head = store.head(entry.landed_uri)
    if head is None or head.size != entry.size or head.etag != entry.etag:
        log.warning(
            "the ledger says that %s landed, but it is not there as it was: recovering it again",
            entry.landed_uri,
        )
        return None
    return entry


def land(file: RecordingFile, upload: Upload, store: ObjectStore, ledger: Ledger, attempt: Attempt) -> LedgerEntry:
    """Verify an upload and complete it, which makes it visible; then write it down.

    Run again after it succeeded, it finds the landed object and says so.

    :raises CorruptError: the bytes are not the recording's; the upload is dropped.
    :raises LandingConflictError: the key holds other content; the upload is dropped.
    :raises NeedsOperatorError: the upload is gone and nothing has landed: download has to run again.
    """
    if landed := find_landed(file, store, ledger):
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
    for other in store.list_uploads(upload.landing_uri):
        # Whatever else is open here can only end in a conflict with what has just landed.
        store.abort_upload(upload.landing_uri, other)
    return ledger.record(_landed_entry(file, upload, head, checks, attempt))


def _complete(file: RecordingFile, upload: Upload, store: ObjectStore, checks: Checks) -> ObjectHead:
    if not upload.size:
        completed = store.put_new(
            upload.landing_uri, b"", content_type=content_type(file.filename), metadata=_provenance(file)
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


def entry_for(file: RecordingFile, outcome: Outcome, reason: str, attempt: Attempt) -> LedgerEntry:
    """Return a ledger entry of a file as of now."""
    return LedgerEntry(
        egress_id=file.egress_id,
        run=file.run,
        filename=file.filename,
        kind=file.kind,
        room_name=file.room_name,
        room_id=file.room_id,
        started=file.started,
        deadline=file.deadline,
        outcome=outcome,
        reason=reason,
        size=file.size,
        recorded_at=datetime.now(UTC),
        attempt=attempt,
    )


def drop_open_uploads(files: Sequence[RecordingFile], store: ObjectStore) -> int:
    """Abort every open upload at the landing keys of files that did not land; return how many there were."""
    dropped = 0
    for file in files:
        for upload_id in store.list_uploads(file.landing_uri) if file.landing_uri else ():
            store.abort_upload(file.landing_uri, upload_id)
            dropped += 1
    return dropped
