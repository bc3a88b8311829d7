"""A file's own signed URL: read from the manifest where it is used, and again when it dies in use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from livekit_backup.core.found_files import ResolvedFile
from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.inbox import load_backup_events
from livekit_backup.core.locations import Location
from livekit_backup.core.resolution import (
    FetchManifest,
    ResolvedBackup,
    resolve_backup,
    why_unresolved,
)
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
    """Read the event and the manifest for one file's own signed URL.

    It is read where it is used, so that it never travels between tasks.

    :raises UnresolvedError: the file is not in them any more.
    :raises PermanentError, RetryableError: as the file's own error says.
    """
    return BackupLinks(inbox, [file], fetch).location(file)


class BackupLinks:
    """The links of a task's files. The event and the manifest of a backup are read once for all of them.

    :param files: those whose links are kept; a manifest of 20,000 segments is not.
    """

    def __init__(self, inbox: ObjectStore, files: Iterable[RecordingFile], fetch: FetchManifest) -> None:
        self._inbox = inbox
        self._fetch = fetch
        self._files: dict[tuple[str, int], list[RecordingFile]] = {}
        for file in files:
            self._files.setdefault((file.egress_id, file.run), []).append(file)
        self._reading = {backup: threading.Lock() for backup in self._files}
        self._found: dict[tuple[str, int], dict[str, Location | LivekitBackupError]] = {}

    def location(self, file: RecordingFile, dead: Location | None = None) -> Location:
        """Return a file's own signed URL.

        :param dead: the one that was returned before and works no more: all are read again.
        :raises UnresolvedError: the file is not in the manifest any more.
        :raises PermanentError, RetryableError: as the file's own error says.
        """
        backup = file.egress_id, file.run
        with self._reading[backup]:
            found = self._found.get(backup)
            if found is None or (dead is not None and found.get(file.filename) is dead):
                found = self._found[backup] = self._read(backup)
        known = found[file.filename]
        if isinstance(known, LivekitBackupError):
            # Anew for each thread: an exception gathers the traceback of whoever raises it.
            raise type(known)(*known.args)
        return known

    def source(self, file: RecordingFile, allowed_hosts: Sequence[str]) -> RenewedSource:
        """Return a file's source, which reads its link when it is first opened, and again when that dies in use."""
        last: list[Location] = []

        def open_link() -> Source:
            last[:] = [self.location(file, last[0] if last else None)]
            return HttpSource(last[0], allowed_hosts)

        return RenewedSource(open_link)

    def _read(self, backup: tuple[str, int]) -> dict[str, Location | LivekitBackupError]:
        files = self._files[backup]
        ref = BackupRef(egress_id=backup[0], run=backup[1], events=files[0].events)
        resolved = resolve_backup(load_backup_events(self._inbox, ref), self._fetch)
        by_name = {found.filename: found for found in resolved.files}
        return {file.filename: _location_or_error(resolved, by_name.get(file.filename), file) for file in files}


def _location_or_error(
    backup: ResolvedBackup, found: ResolvedFile | None, file: RecordingFile
) -> Location | LivekitBackupError:
    if found and found.location:
        return found.location
    if isinstance(backup.manifest_error, RetryableError):
        # A manifest that does not answer now is no proof that the file is not in it.
        return backup.manifest_error
    if found and found.error:
        return found.error
    return why_unresolved(
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
