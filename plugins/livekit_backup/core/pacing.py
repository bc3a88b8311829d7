"""A limit on the bytes that one task takes of the network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 1.0
"""What was not used in this time may be used at once; what is older is over."""
PORTION_SECONDS = 0.25
"""Bytes come in portions of this time: a connection that rests for long is closed, and progress must show."""
SMALLEST_PORTION = 16 * 1024
"""Below that every byte would cost a system call."""


class Pace:
    """Bytes per second that all readers of a task share. Safe to share between threads."""

    def __init__(
        self,
        bytes_per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        """Begin now.

        :param clock: in seconds.
        :param wait: for an event, at most so many seconds.
        """
        self.portion = max(SMALLEST_PORTION, int(bytes_per_second * PORTION_SECONDS))
        """Bytes to read at a time."""
        self._rate = bytes_per_second
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._paid_until = clock()

    def took(self, count: int, stopping: threading.Event) -> None:
        """Wait until the bytes that have come are within the limit, or until the transfer is given up."""
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - BURST_SECONDS) + count / self._rate
            seconds = self._paid_until - now
        if seconds > 0:
            self._wait(stopping, seconds)
