"""A file's own signed URL: read from the manifest where it is used, and again when it dies in use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from livekit_backup.core.inbox import load_backup_events
from livekit_backup.core.locations import Location
from livekit_backup.core.resolution import FetchManifest, resolve_backup, why_unresolved
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.transfer_protocols import Source, SourceBody
from livekit_backup.core.wording import quoted
from livekit_backup.errors import (
    AccessDeniedError,
    LinkExpiredError,
    LivekitBackupError,
    RetryableError,
    UnresolvedError,
)
from livekit_backup.models.references import BackupRef, RecordingFile

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


class RenewedSource:
    """A source whose link is read where it is first needed, and again when it dies after it has worked.

    Streams that read side by side share it: the first to meet the dead link renews it for all.
    """

    def __init__(self, open_source: Callable[[], Source]) -> None:
        self._open_source = open_source
        self._renewing = threading.Lock()
        self._source: Source | None = None
        self._has_worked = False

    @property
    def name(self) -> str:
        """Safe to show."""
        return self._current().name

    def open(self, start: int = 0, stop: int | None = None, etag: str = "") -> SourceBody:
        """Ask for the bytes from ``start`` to ``stop``. :raises LivekitBackupError: as the source says."""
        source = self._current()
        try:
            body = source.open(start, stop, etag)
        except (LinkExpiredError, AccessDeniedError) as died:
            self._renew(source, died)
            body = self._current().open(start, stop, etag)
        self._has_worked = True
        return body

    def _current(self) -> Source:
        with self._renewing:
            if self._source is None:
                self._source = self._open_source()
            return self._source

    def _renew(self, dead: Source, died: LivekitBackupError) -> None:
        with self._renewing:
            if self._source is not dead:
                return
            if not self._has_worked:
                # It has just been read: a fresh one would be no better.
                raise died
            log.warning("%s; reading its manifest again for a fresh link", died)
            try:
                self._source = self._open_source()
            except RetryableError:
                # The next resume asks again.
                raise
            except LivekitBackupError:
                raise died from None
            self._has_worked = False
