"""Uploads that are open and will not be completed: dropped, since a store bills their parts and shows them nowhere."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterable

from livekit_backup.core.ledger import Ledger
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.upload_notes import UploadNotes
from livekit_backup.errors import LivekitBackupError
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.references import OpenUpload

log = logging.getLogger(__name__)


def drop_left_open(ledger: Ledger, store: ObjectStore, attempt: Attempt, may_land: Collection[str]) -> None:
    """Drop what a run has left open, but for whole recordings that can still land: their links may be dead by now.

    What is left of its checks of the store goes as well.

    :param may_land: URIs where a recording may still land when its task is cleared.
    """
    noted, unheard_of = UploadNotes(ledger, attempt).all()
    for upload in noted:
        if upload.landing_uri in may_land and _is_whole(upload, store):
            log.warning("all bytes of %s are up in an open upload: clear its failed task", upload.landing_uri)
        else:
            drop_open_uploads([upload], store)
    for uri in sorted(unheard_of):
        _drop_empty(uri, store)
    for uri in (uri for probe in ledger.probes(attempt) for uri in probe.uris):
        drop_rivals(uri, store)
        with contextlib.suppress(LivekitBackupError):
            store.delete(uri)


def _drop_empty(landing_uri: str, store: ObjectStore) -> None:
    """Drop what holds nothing at a key where this run has opened an upload and never heard its id.

    It may also hit one that another run has opened in this very moment, which loses no byte by it and opens another.
    """
    try:
        open_ids = store.list_uploads(landing_uri)
        empty = [upload_id for upload_id in open_ids if store.list_parts(landing_uri, upload_id) == []]
    except LivekitBackupError as error:
        log.warning("open uploads were not looked for: %s", error)
        return
    drop_open_uploads([OpenUpload(landing_uri=landing_uri, upload_id=upload_id) for upload_id in empty], store)


def drop_rivals(landing_uri: str, store: ObjectStore) -> None:
    """Drop uploads that are open where they can only end in a conflict, since something has just landed there."""
    try:
        open_ids = store.list_uploads(landing_uri)
    except LivekitBackupError as error:
        log.warning("open uploads were not looked for: %s", error)
        return
    drop_open_uploads([OpenUpload(landing_uri=landing_uri, upload_id=upload_id) for upload_id in open_ids], store)


def drop_open_uploads(uploads: Iterable[OpenUpload], store: ObjectStore) -> None:
    """Abort uploads. What cannot be dropped costs storage and no recording, so it is only logged."""
    for upload in uploads:
        try:
            store.abort_upload(upload.landing_uri, upload.upload_id)
        except LivekitBackupError as error:
            log.warning("an open upload was not dropped: %s", error)


def _is_whole(upload: OpenUpload, store: ObjectStore) -> bool:
    if not upload.size:
        return False
    try:
        parts = store.list_parts(upload.landing_uri, upload.upload_id)
    except LivekitBackupError as error:
        # Whole or not, it cannot be dropped either.
        log.warning("an open upload was not looked at: %s", error)
        return True
    if parts is None:
        return False
    # Each part was acknowledged to a download that came to its end; a listing may lag behind that.
    return upload.result is not None or sum(part.size for part in parts) == upload.size
