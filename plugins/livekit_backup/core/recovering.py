"""Brings a task's files into the warehouse: each is fetched, verified, landed and accounted for alone."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

from livekit_backup.core.downloading import Download
from livekit_backup.core.file_upload import FileUpload
from livekit_backup.core.landing import land
from livekit_backup.core.landing_keys import beside
from livekit_backup.core.ledger import Ledger, entry_for
from livekit_backup.core.media_probe import MediaProbe
from livekit_backup.core.open_uploads import drop_open_uploads
from livekit_backup.core.pacing import Pace
from livekit_backup.core.small_files import SMALL, WholeFile
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.transfer_protocols import Source
from livekit_backup.core.upload_notes import UploadNotes
from livekit_backup.core.wording import quoted
from livekit_backup.errors import (
    ChecksumMismatchError,
    LandingConflictError,
    LivekitBackupError,
    NeedsOperatorError,
    RetryableError,
    SourceUnavailableError,
    UploadLostError,
)
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import OpenUpload, RecordingFile, Upload
from livekit_backup.models.settings import OnConflict, Verify
from livekit_backup.models.store_abilities import StoreAbilities

WORKERS = 8
"""Files of a bundle that are moved side by side, each in memory whole."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Where the bytes of files come from."""

    open_backup: Callable[[RecordingFile], Source]
    open_primary: Callable[[RecordingFile], Source]
    copy_primary: Callable[[RecordingFile, FileUpload], Upload | None]
    """Lets the warehouse's store copy the file by itself; None when it cannot."""


@dataclass(frozen=True)
class FileRecovery:
    """Recovers files into one warehouse, for one task."""

    warehouse: ObjectStore
    ledger: Ledger
    attempt: Attempt
    abilities: Callable[[], StoreAbilities]
    """Of the warehouse's store: asked only where something is moved."""
    sources: Sources
    on_conflict: OnConflict = OnConflict.KEEP_BOTH
    verify: Verify = Verify.STANDARD
    probe: MediaProbe | None = None
    """Looks into what has landed, where that is wanted."""
    streams: int = 1
    small: int = SMALL
    pace: Pace | None = None
    show: Callable[[str], None] = lambda _: None
    on_fetched: Callable[[int, float], None] = lambda *_: None
    """Takes the bytes and the seconds of each download."""
    on_landed: Callable[[LedgerEntry], None] = lambda _: None
    """Takes what this task itself has landed."""
    turn: AbstractContextManager[object] = field(default_factory=nullcontext)
    """Held while an upload in parts is filled."""

    def download(self, files: Sequence[RecordingFile]) -> list[LedgerEntry]:
        """Bring files into the warehouse, or all bytes of a large one into an open upload that :meth:`land` completes.

        A file that is alone is left to :meth:`land` when it is large. Of many, each is landed at once: one that
        fails stops no other.

        :return: the entries of those that have landed, now or before.
        :raises LivekitBackupError: one file's own error; of many, one of a kind that is tried again if that can help
            any of them. Each is written down by then.
        """
        if len(files) > 1:
            return self._each(files, FileRecovery._recover)
        with self._accounting(files[0]):
            landed = self._fetch(files[0])
        return [landed] if landed else []

    def land(self, files: Sequence[RecordingFile]) -> list[LedgerEntry]:
        """Verify and land what :meth:`download` has left open, and look at what it has landed.

        :raises CorruptError: the bytes are not the recording's.
        :raises LandingConflictError: the key holds other content, and ``on_conflict`` says so.
        :raises UploadLostError: nothing is there that could be landed.
        """
        # Of many nearly all have been landed by their download.
        landed = {entry.key: entry for entry in self.ledger.find_all_landed(files) if entry} if len(files) > 1 else {}
        return self._each(files, partial(FileRecovery._land_unless, landed=landed))

    def _each(
        self, files: Sequence[RecordingFile], work: Callable[[FileRecovery, RecordingFile], LedgerEntry]
    ) -> list[LedgerEntry]:
        """Do it for small files side by side and for large ones one after the other."""
        if len(files) == 1:
            with self._accounting(files[0]):
                return [work(self, files[0])]
        # A transfer in parts takes 64 MiB of buffers, so there is one at a time.
        one_of_many = replace(self, show=lambda _: None, turn=threading.Lock())
        failed: list[tuple[RecordingFile, Exception]] = []
        done: list[LedgerEntry] = []

        def try_one(file: RecordingFile) -> None:
            try:
                with self._accounting(file):
                    done.append(work(one_of_many, file))
            except Exception as error:  # noqa: BLE001 - raised again, together with the others
                log.warning("%s did not land: %s", quoted(file.filename), error)
                failed.append((file, error))
            self.show(f"{len(done)} of {len(files)}")

        with ThreadPoolExecutor(min(WORKERS, len(files)), thread_name_prefix="recover") as pool:
            list(pool.map(try_one, files))
        if failed:
            raise _together(failed, len(files))
        return done

    @contextmanager
    def _accounting(self, file: RecordingFile) -> Iterator[None]:
        """Write a failure into the ledger before it leaves: the report needs no log to name the reason."""
        try:
            yield
        except LivekitBackupError as error:
            self.ledger.record(entry_for(file, error.outcome, str(error), self.attempt))
            raise
        except Exception as error:
            # A fault of our own: its text could hold anything, so only its kind is written down.
            reason = f"unexpected {type(error).__name__}: see the log of this task, and report it"
            self.ledger.record(entry_for(file, Outcome.FAILED, reason, self.attempt))
            raise

    @property
    def _notes(self) -> UploadNotes:
        return UploadNotes(self.ledger, self.attempt)

    def _recover(self, file: RecordingFile) -> LedgerEntry:
        return self._fetch(file) or self._land_noted(file)

    def _fetch(self, file: RecordingFile) -> LedgerEntry | None:
        """Land a small file; of a large one bring all bytes into an upload, and return None."""
        known = self.ledger.read(file)
        if known and self.ledger.has_landed(known):
            log.info("%s has landed before, at %s", quoted(file.filename), known.landed_uri)
            return _as_before(known)
        done = self._download(file)
        if isinstance(done, WholeFile):
            return self._land(file, done, is_new=known is None)
        self._notes.put_result(file, done)
        return None

    def _land_unless(self, file: RecordingFile, *, landed: Mapping[tuple[str, int, str], LedgerEntry]) -> LedgerEntry:
        return _as_before(landed[file.key]) if file.key in landed else self._land_noted(file)

    def _land_noted(self, file: RecordingFile) -> LedgerEntry:
        if landed := self.ledger.find_landed(file):
            return _as_before(landed)
        if result := self._notes.result(file):
            return self._land(file, result)
        raise UploadLostError(f"download has left nothing of {quoted(file.filename)}: clear the download task")

    def _download(self, file: RecordingFile, *, anew: bool = False) -> Upload | WholeFile:
        download = Download(
            file,
            self.warehouse,
            self.ledger,
            self.attempt,
            self.abilities(),
            streams=self.streams,
            small=self.small,
            pace=self.pace,
            turn=self.turn,
            # Before a task's first try nothing was left open for it.
            anew=anew or self.attempt.try_number == 1,
            show=self.show,
        )
        began = time.monotonic()
        if file.primary_uri:
            done = download.run(
                lambda: self.sources.open_primary(file), lambda upload: self.sources.copy_primary(file, upload)
            )
        else:
            done = download.run(lambda: self.sources.open_backup(file))
        size = (done.upload if isinstance(done, WholeFile) else done).size
        self.on_fetched(max(0, size - download.kept), time.monotonic() - began)
        return done

    def _land(self, file: RecordingFile, done: Upload | WholeFile, *, is_new: bool = False) -> LedgerEntry:
        try:
            return self._land_at(file, done, is_new=is_new)
        except ChecksumMismatchError as mismatch:
            if isinstance(done, WholeFile):
                # Its task is tried again, and fetches it.
                raise
            log.warning("%s: it is fetched once more", mismatch)
            again = self._download_noted(file, anew=True)
            try:
                return self._land_at(file, again)
            except ChecksumMismatchError as twice:
                raise UploadLostError(f"{twice}, for the second time: clear the download task") from None
        except LandingConflictError as conflict:
            if self.on_conflict is not OnConflict.KEEP_BOTH:
                raise
            log.warning("%s: it lands beside", conflict)
        if isinstance(done, WholeFile):
            other = beside(file, done.upload)
            return self._land_at(
                other, replace(done, upload=done.upload.model_copy(update={"landing_uri": other.landing_uri}))
            )
        # An upload belongs to its key, so the bytes have to come once more; should the link be dead by now, this one
        # is all that there is.
        entry = self._land_beside(beside(file, done))
        drop_open_uploads([OpenUpload(landing_uri=done.landing_uri, upload_id=done.upload_id or "")], self.warehouse)
        return entry

    def _land_beside(self, other: RecordingFile) -> LedgerEntry:
        if result := self._notes.result(other):
            # An earlier try had all bytes here, and may even have landed them.
            with contextlib.suppress(UploadLostError):
                return self._land_at(other, result)
        return self._land_at(other, self._download_noted(other))

    def _download_noted(self, file: RecordingFile, *, anew: bool = False) -> Upload | WholeFile:
        """Download a file once more. Not before all bytes are up does this upload take the place of what was."""
        again = self._download(file, anew=anew)
        if isinstance(again, Upload):
            self._notes.put_result(file, again)
        return again

    def _land_at(self, file: RecordingFile, done: Upload | WholeFile, *, is_new: bool = False) -> LedgerEntry:
        entry = land(
            file,
            done,
            self.warehouse,
            self.ledger,
            self.attempt,
            self.abilities(),
            replace=self.on_conflict is OnConflict.OVERWRITE,
            is_new=is_new,
            verify=self.verify,
        )
        if entry.outcome is Outcome.LANDED:
            if self.probe:
                entry = self.probe.look_at(file, entry, done.content if isinstance(done, WholeFile) else b"")
            self.on_landed(entry)
        return entry


def _as_before(landed: LedgerEntry) -> LedgerEntry:
    return landed.model_copy(update={"outcome": Outcome.ALREADY_LANDED})


def _together(failed: list[tuple[RecordingFile, Exception]], count: int) -> Exception:
    """Return one error for all: of a kind that is tried again if that can help any of the files."""
    order = (RetryableError, NeedsOperatorError, LivekitBackupError, Exception)
    file, worst = min(
        failed, key=lambda one: next(place for place, kind in enumerate(order) if isinstance(one[1], kind))
    )
    if len(failed) == count == 1 or not isinstance(worst, LivekitBackupError):
        return worst
    together = type(worst)(f"{len(failed)} of {count} files did not land, such as {quoted(file.filename)}: {worst}")
    if isinstance(together, SourceUnavailableError):
        together.retry_after = max((getattr(error, "retry_after", None) or 0 for _, error in failed), default=0) or None
    return together
