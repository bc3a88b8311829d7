"""Reads a landed object again, from the store and not from memory: what it gives back is what counts."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass

from livekit_backup.core.etags import RunningEtag
from livekit_backup.core.primary_copy import StoreSource
from livekit_backup.core.resuming_reader import ResumingReader
from livekit_backup.core.storage import ObjectHead, ObjectStore
from livekit_backup.errors import MissingError, StorageUnavailableError

CHUNK = 1024 * 1024
"""Bytes in memory at a time."""


@dataclass(frozen=True)
class ReadBack:
    """What the bytes of an object are by their own word."""

    sha256: str
    """Hexadecimal."""
    etag: str
    """That they must have if they were stored in the part size that was asked about; empty if none was."""


def read_back(store: ObjectStore, uri: str, head: ObjectHead, *, part_size: int | None = None) -> ReadBack:
    """Read the version that was looked at, once and to its end; a connection that breaks is gone on with.

    :param part_size: bytes of its parts, where its ETag is wanted too.
    :raises SourceChangedError: another version is there by now.
    :raises StorageUnavailableError: it is gone, or the store gave up.
    """
    sha256 = hashlib.sha256()
    etag = None if part_size is None else RunningEtag(part_size)
    buffer = memoryview(bytearray(min(CHUNK, head.size)))
    reader = ResumingReader(StoreSource(store, uri), head.size, head.etag)
    going_on = threading.Event()
    left = head.size
    try:
        while left:
            chunk = buffer[: min(CHUNK, left)]
            reader.fill(chunk, going_on)
            sha256.update(chunk)
            if etag:
                etag.update(chunk)
            left -= len(chunk)
    except MissingError:
        raise StorageUnavailableError(f"{uri} is gone while it is read back") from None
    finally:
        reader.close()
    return ReadBack(sha256.hexdigest(), etag.value() if etag else "")
