"""Stored objects: what LiveKit uploaded, and how its download breaks on demand."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from livekit_backup.testing.synthetic_bytes import (
    Content,
    Flipped,
    LiteralBytes,
    Shortened,
    etag_of,
    sha256_of,
)

CONTENT_TYPES = {
    "mp4": "video/mp4",
    "ogg": "audio/ogg",
    "mp3": "audio/mpeg",
    "webm": "video/webm",
    "ts": "video/mp2t",
    "m3u8": "application/x-mpegurl",
    "jpeg": "image/jpeg",
    "json": "application/json",
}
"""The types with which LiveKit egress uploads (livekit/egress, ``pkg/types``)."""


class Fault(StrEnum):
    """What can be wrong with a stored object."""

    EXPIRED = "expired"
    """403 AccessDenied, "Request has expired"."""
    NOT_FOUND = "not_found"
    """404 NoSuchKey: the URL is right, but nothing is behind it."""
    SERVER_ERROR = "server_error"
    """500 InternalError, or 503 SlowDown with ``status=503``."""
    TOO_MANY_REQUESTS = "too_many_requests"
    """429 with ``Retry-After: retry_after``: not S3's, but that of stores and proxies like it."""
    SLOW = "slow"
    """The body drips with ``bytes_per_second``: no read time-out ever fires."""
    STALL = "stall"
    """Sends up to ``at``, then nothing until the client leaves or the server stops."""
    CUT_SHORT = "cut_short"
    """Closes the connection at ``at`` in spite of the Content-Length."""
    RESET = "reset"
    """Resets the connection (TCP RST) at ``at``."""
    WRONG_BYTES = "wrong_bytes"
    """One byte of the object, at ``at``, is flipped; length and ETag are the right ones."""
    NO_LENGTH = "no_length"
    """No Content-Length: the closed connection ends the body, or chunks with ``chunked=True``.
    With ``at`` it ends there: without chunks, no client can tell."""
    CHANGED_ETAG = "changed_etag"
    """Another ETag over the same bytes, as if the object had been written anew."""
    IGNORE_RANGE = "ignore_range"
    """200 and the whole object, whatever range was asked for."""
    WRONG_RANGE = "wrong_range"
    """206 with another range than was asked for, a byte beside it; its headers are the right ones for it."""
    LONGER = "longer"
    """1 KiB more than the Content-Length announces, and the connection stays open."""
    HTML_ERROR = "html_error"
    """200 with an HTML page, as captive portals and proxies answer."""
    REDIRECT = "redirect"
    """302 to ``location``."""
    GZIP = "gzip"
    """The body compressed, with Content-Encoding: gzip, even where identity was asked for.
    Made in memory: for small objects."""
    NOT_JSON = "not_json"
    """200 with something that ends like a broken JSON document: for manifests."""
    TRUNCATED = "truncated"
    """The object really ends at ``at``: its length and ETag agree, only the event says more."""


@dataclass(kw_only=True)
class Breakage:
    """A fault, how often it shows, and its details."""

    fault: Fault
    times: int | None = None
    """How many requests it spoils; ``None``: all."""
    after: int = 0
    """How many requests it lets pass first."""
    at: float | None = None
    """Where it happens: a fraction if a float, bytes if an int. Counted in the object for
    WRONG_BYTES and TRUNCATED, else in the body of the answer."""
    status: int = 500
    retry_after: int = 1
    bytes_per_second: int = 1024
    location: str = "http://127.0.0.1:9/elsewhere"
    chunked: bool = False

    def position(self, length: int, default: float | None = 0.5) -> int:
        """``at`` in bytes of something ``length`` bytes long."""
        at = default if self.at is None else self.at
        if at is None:
            return length
        return min(length, int(length * at) if isinstance(at, float) else int(at))


@dataclass(eq=False, kw_only=True)
class StoredObject:
    """One uploaded file."""

    filename: str
    """The storage path that the customer asked for."""
    path: str
    """``/bucket/key`` in plain text, as in the log of requests."""
    content: Content = field(repr=False)
    uploaded_at: datetime
    """When the URL's seven days begin."""
    sign: Callable[[StoredObject, str], str] = field(repr=False)
    upload_part_size: int | None = None
    """Bytes a part that it was uploaded in: ``None`` as LiveKit's uploader does it, 0 for one PUT."""
    in_primary: bool = False
    """It reached the customer's own bucket: its URL is unsigned, and this server has it not."""
    _breakages: deque[Breakage] = field(default_factory=deque, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def size(self) -> int:
        """The length in bytes."""
        return self.content.size

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 in hexadecimal. The first use reads it all: about 0.7 s a GiB."""
        return sha256_of(self.content)

    @cached_property
    def etag(self) -> str:
        """The ETag without quotes. The first use, or the first answer, reads it all: 1 to 2 s a GiB."""
        return etag_of(self.content, self.upload_part_size)

    @property
    def content_type(self) -> str:
        """The type that LiveKit's uploader gives it."""
        return CONTENT_TYPES.get(self.path.rpartition(".")[2], "application/octet-stream")

    @property
    def fault(self) -> Fault | None:
        """What the next request will meet."""
        return self._breakages[0].fault if self._breakages and not self._breakages[0].after else None

    def url(self, method: str = "GET") -> str:
        """The signed URL (unsigned where ``in_primary``); S3 allows each for one method only."""
        return self.sign(self, method)

    def break_(self, breakage: Breakage) -> None:
        """Append a fault: it begins when those before it are used up."""
        self._breakages.append(breakage)

    def mend(self) -> None:
        """Forget all faults."""
        self._breakages.clear()

    def next_breakage(self) -> Breakage | None:
        """The fault of the current request, which thereby is used up once."""
        with self._lock:
            if not self._breakages:
                return None
            first = self._breakages[0]
            if first.after > 0:
                first.after -= 1
                return None
            if first.times is not None:
                first.times -= 1
                if first.times <= 0:
                    self._breakages.popleft()
            return first

    def as_served(self, breakage: Breakage | None) -> tuple[Content, str]:
        """The content and ETag that a fault makes of this object."""
        match breakage:
            case Breakage(fault=Fault.TRUNCATED):
                shortened = Shortened(self.content, breakage.position(self.size))
                return shortened, etag_of(shortened, self.upload_part_size)
            case Breakage(fault=Fault.WRONG_BYTES):
                offset = min(breakage.position(self.size), self.size - 1)
                return Flipped(self.content, offset), self.etag
            case Breakage(fault=Fault.CHANGED_ETAG):
                return self.content, hashlib.md5(self.etag.encode(), usedforsecurity=False).hexdigest()
            case Breakage(fault=Fault.GZIP):
                return LiteralBytes(gzip.compress(b"".join(self.content.pieces()), 1)), self.etag
        return self.content, self.etag
