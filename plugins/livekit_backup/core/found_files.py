"""The files of a backup as they are found: each once, under a name that is its own, and none left out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from livekit_backup.core.locations import Location
from livekit_backup.core.wording import FOREVER, quoted
from livekit_backup.errors import LivekitBackupError, RefusedError, UnresolvedError
from livekit_backup.models.references import FileKind

_S3_HOST = re.compile(r"^(.+)\.s3[.-](?:[a-z0-9-]+\.)?amazonaws\.com$")


@dataclass(frozen=True)
class ResolvedFile:
    """One file of a backup: either a location, or the error that stands in its way."""

    filename: str
    kind: FileKind
    location: Location | None = None
    size: int | None = None
    seconds: float | None = None
    error: LivekitBackupError | None = None


class FoundFiles:
    """The files found so far; one per name and object."""

    def __init__(self, sizes: dict[str, int], seconds: dict[str, float]) -> None:
        self._sizes = sizes
        self._seconds = seconds
        self._files: dict[str, ResolvedFile] = {}
        self._nameless = 0

    def __iter__(self) -> Iterator[ResolvedFile]:
        return iter(self._files.values())

    def has(self, filename: str) -> bool:
        """Whether a file of this name was found."""
        return filename in self._files

    def add(self, filename: str, kind: FileKind, link: SecretStr) -> None:
        """Keep what a manifest or an event names, or why it cannot be fetched."""
        try:
            location = Location(link.get_secret_value())
            if not link.get_secret_value():
                raise UnresolvedError("the manifest and the event name this file without a location")
        except LivekitBackupError as error:
            self.put(ResolvedFile(filename or self._without_name("without a name"), kind, error=error))
            return
        name = filename or location.file_name or self._without_name("without a name")
        self.put(ResolvedFile(name, kind, location, self._sizes.get(name), self._seconds.get(name)))

    def _without_name(self, why: str) -> str:
        """Return what a file is called that has no name of its own: nothing that another is called, or it is lost."""
        while True:
            self._nameless += 1
            if (name := f"(file {self._nameless}, {why})") not in self._files:
                return name

    def stand_in(self, filename: str, error: LivekitBackupError) -> None:
        """Account for files that are not known by name."""
        while filename in self._files:
            filename = f"{filename}*"
        self.put(ResolvedFile(filename, FileKind.UNKNOWN, error=error))

    def put(self, file: ResolvedFile) -> None:
        """Keep a file. One name and path is one object: the link that lives longest counts."""
        present = self._files.get(file.filename)
        if present is None or present.location is None:
            self._files[file.filename] = file
        elif file.location is None:
            return
        elif _object(present.location) == _object(file.location):
            if _life(file.location) > _life(present.location):
                self._files[file.filename] = file
        else:
            self._put_beside(file, file.location)

    def _put_beside(self, file: ResolvedFile, location: Location) -> None:
        """Two outputs can write the same name to two places: both are recordings."""
        for marked in _distinct_names(file.filename, location):
            present = self._files.get(marked)
            if present is None or present.location is None or _object(present.location) == _object(location):
                self.put(ResolvedFile(marked, file.kind, location, file.size, file.seconds))
                return
        # Only who knows our marks names files by them. It is not landed as another's, and not left out.
        reason = RefusedError(f"{quoted(file.filename)} and the names that tell it from others are other files'")
        self.put(ResolvedFile(self._without_name("of a name of others"), file.kind, error=reason))


def _object(location: Location) -> tuple[str, str]:
    """Which object a location names: S3 has the same bucket under hosts with and without its region."""
    bucket = _S3_HOST.match(location.host)
    return (bucket.group(1) if bucket else location.host), location.key_path


def _life(location: Location) -> datetime:
    return location.deadline or FOREVER


def _distinct_names(filename: str, location: Location) -> Iterator[str]:
    mark = hashlib.sha256("".join(_object(location)).encode(errors="surrogatepass")).hexdigest()
    stem, dot, ending = filename.rpartition(".")
    for length in (8, 64):
        is_ended = dot and "/" not in ending
        yield f"{stem}~{mark[:length]}.{ending}" if is_ended else f"{filename}~{mark[:length]}"
