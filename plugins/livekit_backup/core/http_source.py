"""Reads a recording over HTTP: urllib3 asks, and the body goes from the socket straight into the caller's buffer.

CPU seconds a GiB from a local nginx, plain / TLS, medians: so 0.18 / 0.70; urllib3's read1 with 1 MiB 0.29 / 2.80,
at its best size 0.22 / 0.84; requests 0.20 / 0.69, but it waits for a full buffer; aiohttp 0.50 / 0.77; httpx
0.49 / 1.32; pycurl 0.23 / 0.49, by the newer OpenSSL in its wheel, but it pushes. A new connection per 5 MiB: + 0.6.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import urllib3

from livekit_backup.core.checked_connections import answer_of
from livekit_backup.core.http_connections import refused_by_proxy
from livekit_backup.core.locations import Location, Resolver, system_resolver
from livekit_backup.core.recording_home import RecordingHome
from livekit_backup.core.redaction import redact_http_logs
from livekit_backup.core.source_answers import error_for_answer
from livekit_backup.errors import (
    RefusedError,
    SourceChangedError,
    SourceUnavailableError,
    TransferInterruptedError,
)

CHUNK = 1024 * 1024
"""Bytes that one call gathers at most: over TLS the socket gives 16 KiB at a time."""
PATIENCE_SECONDS = 0.25
"""After this a call returns what it has: a drip must show, and not wait for a full buffer."""
MAX_SIZE = 50 * 1024**4
"""S3's own limit is 48.8 TiB."""
RATE_WINDOW_SECONDS = 60.0
"""Seconds spent waiting for the source; what the caller does between two reads is not counted."""
MINIMUM_RATE = 16 * 1024
"""Bytes/s over the window. A read time-out never fires on a drip, and at this rate a GiB takes 18 hours."""
DATED = "date:"
"""Before the date that names a version where no ETag does."""

_TIMEOUT = urllib3.Timeout(connect=10.0, read=30.0)
_ERROR_BODY_BYTES = 4096
_ERROR_BODY_SECONDS = 5.0
_LENGTH = re.compile(r"^[0-9]{1,18}$")
_CONTENT_RANGE = re.compile(r"^bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})$")
_UNPROVABLE = frozenset({"aws:kms", "aws:kms:dsse"})


class HttpBody:
    """One open answer: the bytes of a recording, or of a range of it."""

    def __init__(self, location: Location, response: urllib3.BaseHTTPResponse, length: int, size: int) -> None:
        self._location = location
        self._response = response
        self._answer = answer_of(response)
        self._left = length
        # What http.client has read together with the headers comes first, and alone: with room for
        # more, readinto1() would wait for more, and lose it all if that never came.
        self._most = io.DEFAULT_BUFFER_SIZE
        self._fault = ""
        self._waited = 0.0
        self._window_bytes = 0
        self.size = size
        """Bytes of the whole recording."""
        headers = response.headers
        self.etag = _strong_etag(headers.get("etag", ""))
        """Without quotes; empty where it is weak: such a one never matches, and need not change with the bytes."""
        self.date = _date(headers.get("last-modified", ""))
        """When it was last changed, as the source wrote it."""
        self.version = self.etag or (self.date and f"{DATED}{self.date}")
        """What :meth:`HttpSource.open` takes to get the same version again; empty where nothing names it."""
        self.etag_is_digest = bool(self.etag) and not (
            headers.get("x-amz-server-side-encryption", "") in _UNPROVABLE
            or "x-amz-server-side-encryption-customer-algorithm" in headers
            or any(name.lower().startswith("x-goog-") for name in headers)
        )
        """False where the store's ETags are no digest of the bytes."""

    def is_of(self, version: str) -> bool:
        """Whether it is this version. One that was named by its date is known by it, also where an ETag came since."""
        return version == (f"{DATED}{self.date}" if version.startswith(DATED) else self.etag)

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of a buffer with the next bytes; 0 at the end.

        Returns once the buffer is full, or with what has come when a quarter of a second is over.
        What came before a fault is handed over; the fault is raised by the next call.

        :raises TransferInterruptedError: the body ended early, broke off, or drips.
        """
        if self._fault:
            raise TransferInterruptedError(f"{self._location.name} {self._fault}")
        if not self._left or not view:
            return 0
        began = time.monotonic()
        count = self._gather(view[: min(len(view), self._left, CHUNK)], began + PATIENCE_SECONDS)
        self._left -= count
        self._watch_rate(count, time.monotonic() - began)
        return count or self.readinto(view)

    def _gather(self, view: memoryview, until: float) -> int:
        gathered, count = 0, 1
        try:
            while gathered < len(view):
                # At most one read of the socket each: readinto() would wait for all of it.
                count = self._answer.fp.readinto1(view[gathered : gathered + self._most])
                self._most = CHUNK
                gathered += count
                if not count or time.monotonic() > until:
                    break
        except OSError as error:
            self._fault = f"broke off: {type(error).__name__}"
        if not count:
            self._fault = f"ended {self._left - gathered} bytes early"
        return gathered

    def _watch_rate(self, count: int, seconds: float) -> None:
        self._window_bytes += count
        self._waited += seconds
        if self._waited < RATE_WINDOW_SECONDS:
            return
        if self._left and not self._fault and self._window_bytes < MINIMUM_RATE * self._waited:
            self._fault = f"gave {self._window_bytes} bytes in {self._waited:.0f} s, too slow to end"
        self._waited, self._window_bytes = 0.0, 0

    def close(self) -> None:
        """Keep the connection for the next range if this one was read to its end, else drop it."""
        if self._left:
            # Draining the rest would cost more than a new connection.
            self._response.close()
        else:
            self._answer.close()
        self._response.release_conn()


class HttpSource:
    """A recording behind a signed URL. Ranges may be read side by side."""

    def __init__(self, location: Location, allowed_hosts: Sequence[str], resolver: Resolver = system_resolver) -> None:
        redact_http_logs()
        self._location = location
        self._home = RecordingHome(allowed_hosts, resolver)

    @property
    def name(self) -> str:
        """Host and path: safe to show."""
        return self._location.name

    def open(self, start: int = 0, stop: int | None = None, etag: str = "") -> HttpBody:
        """Ask for the bytes from ``start`` to before ``stop``, of this version where one is given.

        :param stop: None for the recording's end. From 0 to the end is a plain request, without a range.
        :param etag: a body's :attr:`HttpBody.version`: its ETag, or its date behind ``date:``.
        :raises RefusedError: the location may not be fetched, or redirects.
        :raises LinkExpiredError, MissingError: no retry can help.
        :raises AccessDeniedError, ConfigurationError: a person has to mend the link, or the way to it.
        :raises SourceUnavailableError: no answer, or 429 or 5xx.
        :raises SourceChangedError: another version, or other bytes than those asked for.
        :raises TransferInterruptedError: an answer that cannot be used; asking again may give a better one.
        """
        headers = {"Accept-Encoding": "identity"}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            if etag.startswith(DATED):
                headers["If-Unmodified-Since"] = etag.removeprefix(DATED)
            elif etag:
                headers["If-Match"] = f'"{etag}"'
        response = self._home.ask(self._location, headers, _TIMEOUT)
        try:
            return self._accept(response, start, stop, etag)
        except BaseException:
            response.close()
            response.release_conn()
            raise

    def _accept(self, response: urllib3.BaseHTTPResponse, start: int, stop: int | None, etag: str) -> HttpBody:
        status, is_ranged = response.status, bool(start) or stop is not None
        self._refuse_error(response, is_ranged=is_ranged)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise TransferInterruptedError(f"{self.name} came with an encoding that was not asked for")
        if response.headers.get("content-type", "").startswith("text/html"):
            raise SourceUnavailableError(f"{self.name} answered with a web page instead of the recording")
        length = _length(response)
        size = length
        if is_ranged:
            first, last, size = self._range(response)
            if (first, last) != (start, size - 1 if stop is None else stop - 1):
                raise SourceChangedError(
                    f"{self.name} sent bytes {first} to {last} of {size}, which were not asked for"
                )
            length = length if length == last - first + 1 else None
        if length is None or size is None or status != (206 if is_ranged else 200):
            raise TransferInterruptedError(f"{self.name} answered {status} without the length that it must have")
        if size > MAX_SIZE:
            raise RefusedError(f"{self.name} announces {size:.3g} bytes, more than S3 stores in an object")
        body = HttpBody(self._location, response, length, size)
        if etag and not body.is_of(etag):
            raise SourceChangedError(f"{self.name} changed while it was read")
        return body

    def _refuse_error(self, response: urllib3.BaseHTTPResponse, *, is_ranged: bool) -> None:
        status = response.status
        if status in (200, 206):
            return
        if status == 412 or (status == 416 and is_ranged):
            raise SourceChangedError(f"{self.name} answered {status}: it changed while it was read")
        if status == 407:
            raise refused_by_proxy(self._location, status)
        error = error_for_answer(self._location, status, response.headers, _error_body(response), datetime.now(UTC))
        if error:
            raise error

    def _range(self, response: urllib3.BaseHTTPResponse) -> tuple[int, int, int]:
        if response.status == 200:
            raise SourceChangedError(f"{self.name} ignored the range that was asked for")
        match = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
        if not match:
            raise SourceChangedError(f"{self.name} does not say which range it sent")
        first, last, size = (int(group) for group in match.groups())
        return first, last, size


def _strong_etag(header: str) -> str:
    header = header.strip()
    # One that looks like our dates could not be told from them.
    return "" if header[:2] in ("W/", "w/") or header.strip('"').startswith(DATED) else header.strip('"')


def _date(header: str) -> str:
    """Return a Last-Modified where it is a date: of other text servers make no condition."""
    try:
        parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return ""
    return " ".join(header.split())


def _length(response: urllib3.BaseHTTPResponse) -> int | None:
    """Return the bytes that the answer announces; in chunks it announces none, whatever else it says."""
    length = response.headers.get("content-length", "")
    return int(length) if _LENGTH.match(length) and "transfer-encoding" not in response.headers else None


def _error_body(response: urllib3.BaseHTTPResponse) -> bytes:
    body = b""
    until = time.monotonic() + _ERROR_BODY_SECONDS
    try:
        while len(body) < _ERROR_BODY_BYTES and time.monotonic() < until:
            more = response.read1(_ERROR_BODY_BYTES - len(body), decode_content=False)
            if not more:
                break
            body += more
    except (urllib3.exceptions.HTTPError, OSError):
        pass
    return body
