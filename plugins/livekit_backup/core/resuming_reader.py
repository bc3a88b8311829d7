"""Reads a stretch of a recording through faults: behind each it goes on where it stopped."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from livekit_backup.core.pacing import Pace
from livekit_backup.core.transfer_protocols import Source, SourceBody
from livekit_backup.errors import (
    RetryableError,
    SourceChangedError,
    SourceUnavailableError,
    TransferInterruptedError,
)

FRUITLESS_RESUMES = 4
"""Faults in a row without progress before the try is given up."""
FRUITFUL_BYTES = 1024 * 1024
"""What counts as progress between two faults: a drip always brings a few bytes."""
FIRST_WAIT_SECONDS = 1.0
"""At most, before a source that refused is asked again; doubled with every fault in a row."""
LONGEST_WAIT_SECONDS = 60.0
"""Who asks for more gets it between two tries, where no worker is held meanwhile."""

log = logging.getLogger(__name__)


class ResumingReader:
    """The bytes of one version of a recording, in order."""

    def __init__(
        self,
        source: Source,
        size: int,
        version: str,
        *,
        start: int = 0,
        stop: int | None = None,
        body: SourceBody | None = None,
        on_read: Callable[[int], None] = lambda _: None,
        pace: Pace | None = None,
    ) -> None:
        """Begin at ``start``.

        :param size: bytes of the whole recording.
        :param version: of the recording; without one nothing can be gone on with.
        :param stop: where this reader is to end; None for the end of the recording.
        :param body: an answer that is open at ``start`` already; by default one is asked for at the first byte.
        :param on_read: told how many bytes have come, each time that some do.
        :param pace: that reading keeps to.
        """
        self._source = source
        self._size = size
        self._version = version
        self._at = start
        self._stop = stop
        self._body = body
        self._on_read = on_read
        self._pace = pace
        self._fruitless = 0
        self._resumed_at = start

    def fill(self, view: memoryview, stopping: threading.Event) -> None:
        """Fill a whole buffer.

        :raises SourceChangedError: the recording is another by now: all has to be read anew.
        :raises RetryableError: the source gave up; nothing is known of the rest.
        :raises PermanentError, NeedsOperatorError: no resume can help, such as a link that died meanwhile.
        """
        filled = 0
        while filled < len(view):
            self._check(stopping)
            filled += self._read(view[filled:], stopping)

    def close(self) -> None:
        """Drop the connection."""
        if self._body:
            self._body.close()
            self._body = None

    def _check(self, stopping: threading.Event) -> None:
        if stopping.is_set():
            raise TransferInterruptedError("the transfer was given up")

    def _read(self, view: memoryview, stopping: threading.Event) -> int:
        while True:
            try:
                body = self._body = self._body or self._open()
                count = body.readinto(view[: self._pace.portion] if self._pace else view)
                if not count:
                    raise TransferInterruptedError(f"{self._source.name} ended {self._size - self._at} bytes early")
                self._at += count
                self._on_read(count)
                if self._pace:
                    self._pace.took(count, stopping)
                return count
            except SourceChangedError:
                raise
            except RetryableError as error:
                self._give_up_or_wait(error, stopping)
                self._check(stopping)

    def _open(self) -> SourceBody:
        if self._at and not self._version:
            raise SourceChangedError(f"{self._source.name} names no version, so its bytes can only be read in one go")
        body = self._source.open(self._at, self._stop, self._version)
        if body.size != self._size:
            body.close()
            raise SourceChangedError(f"{self._source.name} has {body.size} bytes now, and had {self._size}")
        return body

    def _give_up_or_wait(self, error: RetryableError, stopping: threading.Event) -> None:
        self.close()
        if self._at - self._resumed_at >= FRUITFUL_BYTES:
            self._fruitless = 0
        self._resumed_at = self._at
        self._fruitless += 1
        seconds = _wait_seconds(error, self._fruitless)
        if self._fruitless > FRUITLESS_RESUMES or seconds > LONGEST_WAIT_SECONDS:
            raise error
        log.warning("%s; going on at byte %d of %d in %.1f s", error, self._at, self._size, seconds)
        if seconds:
            stopping.wait(seconds)


def _wait_seconds(error: RetryableError, faults: int) -> float:
    """Return how long to leave a source alone. One connection that broke says nothing: the next may hold."""
    asked_for, doublings = 0.0, faults - 2
    if isinstance(error, SourceUnavailableError):
        asked_for, doublings = error.retry_after or 0.0, faults - 1
    most = FIRST_WAIT_SECONDS * 2**doublings if doublings >= 0 else 0.0
    # From half of it on, at random: the tasks of a flood were refused together.
    return asked_for + most * (1 + random.random()) / 2  # noqa: S311 - no secret
