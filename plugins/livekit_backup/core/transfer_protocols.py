"""What a transfer moves bytes between: a source that can be read from any offset, and a sink of parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from livekit_backup.core.checksums import PartChecksums
from livekit_backup.core.storage import UploadedPart


class SourceBody(Protocol):
    """The bytes of a recording from some offset on."""

    size: int
    """Bytes of the whole recording, not only of what this body holds."""
    etag: str
    """Without quotes; empty where the source sends none that names the bytes (a weak one does not)."""
    version: str
    """What a further range has to agree with: the ETag, else the time of the last change; empty without either."""
    etag_is_digest: bool
    """False where the store says that its ETags are no digests of the bytes."""

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of a buffer with what is there; 0 at the end.

        :raises TransferInterruptedError: the body broke off, ended early, or drips.
        """
        ...

    def close(self) -> None:
        """Drop the connection."""
        ...


class Source(Protocol):
    """A recording that can be read from any offset."""

    @property
    def name(self) -> str:
        """Safe to show."""
        ...

    def open(self, start: int = 0, stop: int | None = None, etag: str = "") -> SourceBody:
        """Ask for the bytes from ``start`` to ``stop``, of the version with this ETag (or :attr:`SourceBody.version`).

        :raises SourceChangedError: it is another version, or another range came.
        :raises RetryableError, PermanentError, NeedsOperatorError: as the source says.
        """
        ...


class Sink(Protocol):
    """An upload in parts: nothing of it shows before it is completed. Parts may be put side by side."""

    def put_part(self, number: int, body: memoryview, checksums: PartChecksums) -> str:
        """Store a part, numbered from 1, and return its ETag. :raises UploadGoneError: aborted."""
        ...

    def parts(self) -> list[UploadedPart] | None:
        """List the stored parts in order, or None when the upload is gone."""
        ...

    def complete(self, parts: Sequence[UploadedPart], *, size: int, crc64nvme: str) -> bool:
        """Make the parts the object, where there is none; False when there is one."""
        ...

    def abort(self) -> None:
        """Drop the parts; dropping what is gone is no error."""
        ...
