"""The first half of a file's recovery: find its link, and stream it into an upload that nobody sees.

Any step may be killed at any instant and run again, also beside itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from livekit_backup.core.inbox import load_backup_events
from livekit_backup.core.landing_keys import content_type
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.locations import Location
from livekit_backup.core.progress import ProgressLog
from livekit_backup.core.resolution import FetchManifest, resolve_backup, why_unresolved
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.transfer import Source, SourceBody, Transfer
from livekit_backup.core.wording import quoted
from livekit_backup.errors import LivekitBackupError, RetryableError, UnresolvedError
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.references import BackupRef, RecordingFile, Upload

CORRUPT_FETCHES = 2
"""A wrong byte on the way is gone at the second fetch; one at the source is not."""

log = logging.getLogger(__name__)


def find_location(inbox: ObjectStore, file: RecordingFile, fetch: FetchManifest) -> Location:
    """Read the event and the manifest again for a file's own signed URL.

    It is read where it is used, so that it never travels between tasks.

    :raises UnresolvedError: the file is not in them any more.
    :raises PermanentError, RetryableError: as the file's own error says.
    """
    ref = BackupRef(egress_id=file.egress_id, run=file.run, events=file.events)
    backup = resolve_backup(load_backup_events(inbox, ref), fetch)
    found = next((found for found in backup.files if found.filename == file.filename), None)
    if found and found.location:
        return found.location
    if isinstance(backup.manifest_error, RetryableError):
        # A manifest that does not answer now is no proof that the file is not in it.
        raise backup.manifest_error
    if found and found.error:
        raise found.error
    raise why_unresolved(
        backup.manifest_error
        or UnresolvedError(f"{quoted(file.filename)} is not in the manifest of {file.egress_id} any more")
    )


def download(
    file: RecordingFile,
    open_source: Callable[[], Source],
    store: ObjectStore,
    ledger: Ledger,
    attempt: Attempt,
) -> Upload:
    """Stream a recording into an uncompleted multipart upload at its landing key.

    What has landed before is not fetched again. An upload that an earlier try left open is
    dropped first; one that this try cannot finish is dropped before the error leaves.

    :raises RetryableError, PermanentError, NeedsOperatorError: as the source or the store says.
    """
    if landed := ledger.find_landed(file):
        log.info("%s has landed before, at %s", quoted(file.filename), landed.landed_uri)
        return _upload(file, None, landing_uri=landed.landed_uri, already_landed=True, size=landed.size or 0)
    if left_open := ledger.open_upload(attempt, file):
        store.abort_upload(file.landing_uri, left_open.upload_id)
    source = open_source()
    for fetch in range(1, CORRUPT_FETCHES + 1):
        body = source.open()
        if not body.size:
            body.close()
            return _empty(file, body)
        upload = _fetch(file, source, body, store, lambda upload_id: ledger.note_upload(attempt, file, upload_id))
        if upload.source_etag_computed in ("", upload.source_etag) or fetch == CORRUPT_FETCHES:
            break
        log.warning("%s arrived with a wrong byte; fetching it again", quoted(file.filename))
        store.abort_upload(file.landing_uri, upload.upload_id or "")
    return upload


def _empty(file: RecordingFile, body: SourceBody) -> Upload:
    md5 = hashlib.md5(usedforsecurity=False).hexdigest()
    return _upload(
        file,
        None,
        sha256=hashlib.sha256().hexdigest(),
        etag=md5,
        source_etag=body.etag,
        source_etag_computed=md5 if body.etag == md5 else "",
    )


def _fetch(
    file: RecordingFile, source: Source, body: SourceBody, store: ObjectStore, note: Callable[[str], None]
) -> Upload:
    try:
        upload_id = store.create_upload(
            file.landing_uri, content_type=content_type(file.filename), metadata=provenance(file)
        )
    except BaseException:
        body.close()
        raise
    try:
        note(upload_id)
        progress = ProgressLog(log, quoted(file.filename), body.size, file.deadline)
        digests = Transfer(source, body, progress).run(
            lambda number, part, md5: store.upload_part(file.landing_uri, upload_id, number, part, md5)
        )
        progress.end()
    except BaseException:
        # If the store is gone too, the next try or the report knows the upload and drops it.
        with contextlib.suppress(LivekitBackupError):
            store.abort_upload(file.landing_uri, upload_id)
        raise
    return _upload(
        file,
        upload_id,
        size=digests.size,
        part_size=digests.part_size,
        sha256=digests.sha256,
        etag=digests.etag,
        announced_size=body.size,
        source_etag=body.etag,
        source_etag_computed=digests.source_etag_computed,
    )


def _upload(file: RecordingFile, upload_id: str | None, **facts: Any) -> Upload:
    egress_id, run, filename = file.key
    return Upload(
        egress_id=egress_id,
        run=run,
        filename=filename,
        upload_id=upload_id,
        **{"landing_uri": file.landing_uri, **facts},
    )


def provenance(file: RecordingFile) -> dict[str, str]:
    """Object metadata must be ASCII, so names are percent-encoded."""
    return {
        "livekit-egress-id": file.egress_id,
        "livekit-run": str(file.run),
        "livekit-room": quote(file.room_name)[:512],
        "livekit-filename": quote(file.filename, errors="replace")[:512],
    }
