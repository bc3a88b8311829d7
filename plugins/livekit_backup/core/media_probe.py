"""Looks into what has landed, and says by name what seems damaged. It holds nothing back, and fails nothing.

A recording can be just what LiveKit stored, checksum and all, and still be of no use: cut when its writer was killed,
empty, or all zero. Then it is better to know while somebody can still ask what happened.
"""

from __future__ import annotations

import logging
from posixpath import dirname, splitext
from typing import Self

from livekit_backup.core.bounded_reader import BoundedReader, ProbeGivenUpError
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.media_process import DEMUXERS, MediaCrashedError, MediaProcess, is_installed
from livekit_backup.core.media_shape import look_at_shape
from livekit_backup.core.playlist_check import MOST_BYTES, look_at_playlist
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.wording import escaped, quoted
from livekit_backup.errors import LivekitBackupError
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.references import FileKind, RecordingFile

NEAR_SECONDS = 5.0
NEAR_SHARE = 0.05
"""How far a recording's duration may be from the event's, whichever is more: the event's is that of the pipeline, which
begins and ends around the media."""
MOST_NAMED = 10
"""Findings of one file that are kept."""

log = logging.getLogger(__name__)


class MediaProbe:
    """Looks into the landed files of one task; a context manager, since it may have a process beside it."""

    def __init__(self, store: ObjectStore, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._process = MediaProcess() if is_installed() else None

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, if one was needed."""
        if self._process:
            self._process.close()

    def look_at(self, file: RecordingFile, landed: LedgerEntry, content: bytes = b"") -> LedgerEntry:
        """Look into a file that has landed, and write down what was found; what goes wrong over it is written down too.

        :param content: of the file, where it is in memory.
        :return: the entry as the ledger has it then.
        """
        reader = BoundedReader(self._store, landed.landed_uri, landed.size or 0, landed.etag, content)
        wrong: list[str] = []
        gap = ""
        try:
            self._look(file, reader, wrong)
        except ProbeGivenUpError as error:
            gap = f"probe: {error}"
        except LivekitBackupError as error:
            gap = f"probe: {error}"
        except Exception as error:
            log.exception("%s could not be looked into", quoted(file.filename))
            gap = f"probe: unexpected {type(error).__name__}: see the log of this task, and report it"
        found = landed.model_copy(
            update={
                "suspect": tuple(dict.fromkeys((*landed.suspect, *(escaped(text, 300) for text in wrong))))[
                    :MOST_NAMED
                ],
                "verified_by": landed.verified_by if gap else (*landed.verified_by, "probe"),
                "unverified": (*landed.unverified, gap) if gap else landed.unverified,
            }
        )
        for text in found.suspect:
            log.warning("SUSPECT: %s: %s", quoted(file.filename), text)
        try:
            # It was written down as landed a moment ago, by this task.
            return self._ledger.record(found, is_new=True)
        except LivekitBackupError as error:
            log.warning(
                "%s is landed; what its probe found could not be written down: %s", quoted(file.filename), error
            )
            return landed

    def _look(self, file: RecordingFile, reader: BoundedReader, wrong: list[str]) -> None:
        ending = splitext(file.filename)[1].lower().removeprefix(".")
        if reader.size and (file.kind is FileKind.PLAYLIST or ending == "m3u8"):
            seconds = self._look_at_playlist(file, reader, wrong)
        else:
            shape = look_at_shape(ending, reader.size, reader.read_at)
            wrong += shape.wrong
            seconds = shape.seconds
            # A file that is known to be cut would only be found so again, in other words.
            if self._process and ending in DEMUXERS and not shape.wrong:
                try:
                    found = self._process.look_into(reader, ending)
                except MediaCrashedError:
                    wrong.append("what looks into media ended over it: it may be made to do harm")
                else:
                    wrong += map(str, found["wrong"])
                    seconds = found["duration"] if found["duration"] is not None else seconds
        if seconds is not None and file.seconds is not None and not _is_near(seconds, file.seconds):
            wrong.append(f"it plays {seconds:.1f} s, LiveKit's event says {file.seconds:.1f} s")

    def _look_at_playlist(self, file: RecordingFile, reader: BoundedReader, wrong: list[str]) -> float | None:
        if reader.size > MOST_BYTES:
            raise ProbeGivenUpError(f"a playlist of over {MOST_BYTES // 1024**2} MiB is not looked into")
        files = self._ledger.read_files(file.egress_id, file.run)
        # Where its name had to be taken from a link, it may lie elsewhere by name than its segments.
        folder = dirname(file.filename)
        beside = [
            other.filename.removeprefix(f"{folder}/" if folder else "")
            for other in files
            if other.kind is FileKind.SEGMENT and dirname(other.filename) == folder
        ]
        playlists = sum(other.kind is FileKind.PLAYLIST for other in files)
        look = look_at_playlist(reader.read_at(0, reader.size), beside or None, all_are_its=playlists == 1)
        wrong += look.wrong
        return look.seconds


def _is_near(seconds: float, told: float) -> bool:
    return abs(seconds - told) <= max(NEAR_SECONDS, NEAR_SHARE * told)
