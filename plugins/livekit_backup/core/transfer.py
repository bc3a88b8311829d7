"""Moves one recording from a source into an open multipart upload, hashing on the way.

One thread reads and hashes in order, a few upload; a fixed number of buffers goes round
between them, so memory is buffers times part size whatever the file's size. A byte counts
once it is hashed; after a fault the source is asked to go on behind the last such byte.
"""

from __future__ import annotations

import hashlib
import logging
import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from livekit_backup.core.etags import follows_livekit_rule, is_md5, livekit_part_size, multipart_etag
from livekit_backup.errors import RetryableError, TransferInterruptedError

BUFFER_BUDGET = 64 * 1024 * 1024
"""Bytes that all buffers of a transfer may take together."""
UPLOAD_WORKERS = 4
"""Two saturate a local store; four hide a distant one's latency."""
FRUITLESS_RESUMES = 4
"""Faults in a row without progress before the try is given up."""
FRUITFUL_BYTES = 1024 * 1024
"""What counts as progress between two faults: a drip always brings a few bytes."""

log = logging.getLogger(__name__)


class SourceBody(Protocol):
    """The bytes of a recording from some offset on."""

    size: int
    etag: str
    etag_is_digest: bool

    def readinto(self, view: memoryview) -> int:
        """Fill a buffer; 0 at the end."""
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

    def open(self, start: int = 0, etag: str = "") -> SourceBody:
        """Ask for the bytes from ``start`` on, of the version with this ETag."""
        ...


UploadPart = Callable[[int, memoryview, bytes], None]
"""Stores part number, body and binary MD5."""


@dataclass(frozen=True)
class Digests:
    """What a transfer knows of the bytes it moved."""

    size: int
    part_size: int
    sha256: str
    etag: str
    """The multipart ETag of the parts as they were uploaded."""
    source_etag_computed: str
    """What the source's ETag must be for these bytes; empty when it follows no rule known here."""


class Transfer:
    """One pass over a recording."""

    def __init__(self, source: Source, body: SourceBody, on_progress: Callable[[int], None] = lambda _: None) -> None:
        self._source = source
        self._body = body
        self._size = body.size
        self._etag = body.etag
        self._etag_is_digest = body.etag_is_digest
        self._on_progress = on_progress
        self._done = 0
        self._fruitless = 0
        self._resumed_at = 0
        self._part_size = livekit_part_size(body.size)
        self._sha256 = hashlib.sha256()
        self._part_md5s: list[bytes] = []
        # A one-PUT source has a plain MD5, whatever its size.
        self._whole_md5 = hashlib.md5(usedforsecurity=False) if is_md5(body.etag) else None

    def run(self, upload_part: UploadPart) -> Digests:
        """Read, hash and upload everything.

        :raises RetryableError: the source or the store gave up; nothing is known of the rest.
        :raises PermanentError, NeedsOperatorError: no resume can help, such as a link that died meanwhile.
        """
        count = max(2, min(UPLOAD_WORKERS + 2, BUFFER_BUDGET // self._part_size))
        free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(count):
            free.put(bytearray(min(self._part_size, self._size)))
        pending: list[Future[None]] = []
        with ThreadPoolExecutor(min(UPLOAD_WORKERS, count - 1), thread_name_prefix="upload") as pool:
            try:
                while self._done < self._size:
                    pending = _raise_failures(pending)
                    buffer = free.get()
                    part, md5 = self._next_part(memoryview(buffer))
                    number = len(self._part_md5s)
                    pending.append(pool.submit(_upload, upload_part, number, part, md5, free, buffer))
                for future in pending:
                    future.result()
            except BaseException:
                for future in pending:
                    future.cancel()
                raise
            finally:
                self._body.close()
        return self._digests()

    def _next_part(self, buffer: memoryview) -> tuple[memoryview, bytes]:
        part = buffer[: min(self._part_size, self._size - self._done)]
        filled = 0
        md5 = hashlib.md5(usedforsecurity=False)
        while filled < len(part):
            count = self._read(part[filled:])
            chunk = part[filled : filled + count]
            self._sha256.update(chunk)
            md5.update(chunk)
            if self._whole_md5:
                self._whole_md5.update(chunk)
            filled += count
            self._done += count
            self._on_progress(self._done)
        self._part_md5s.append(md5.digest())
        return part, md5.digest()

    def _read(self, view: memoryview) -> int:
        while True:
            try:
                count = self._body.readinto(view)
                if count:
                    return count
                raise TransferInterruptedError(f"{self._source.name} ended {self._size - self._done} bytes early")
            except RetryableError as error:
                self._resume(error)

    def _resume(self, error: RetryableError) -> None:
        """Open the source again behind the last hashed byte."""
        if self._done - self._resumed_at >= FRUITFUL_BYTES:
            self._fruitless = 0
        self._resumed_at = self._done
        while True:
            self._body.close()
            self._fruitless += 1
            if self._fruitless > FRUITLESS_RESUMES:
                raise error
            log.warning("%s; going on at byte %d of %d", error, self._done, self._size)
            try:
                self._body = self._source.open(self._done, self._etag)
                if self._body.size != self._size:
                    raise TransferInterruptedError(f"{self._source.name} changed while it was read")
                return
            except RetryableError as again:
                error = again

    def _digests(self) -> Digests:
        etag = multipart_etag(self._part_md5s)
        computed = ""
        if self._etag_is_digest and self._whole_md5:
            computed = self._whole_md5.hexdigest()
        elif self._etag_is_digest and follows_livekit_rule(self._etag, self._size):
            computed = etag
        return Digests(self._done, self._part_size, self._sha256.hexdigest(), etag, computed)


def _raise_failures(pending: list[Future[None]]) -> list[Future[None]]:
    # Looked at once: one that ends between two looks would be dropped unread.
    done = {future for future in pending if future.done()}
    for future in done:
        future.result()
    return [future for future in pending if future not in done]


def _upload(
    upload_part: UploadPart,
    number: int,
    part: memoryview,
    md5: bytes,
    free: queue.SimpleQueue[bytearray],
    buffer: bytearray,
) -> None:
    try:
        upload_part(number, part, md5)
    finally:
        free.put(buffer)
