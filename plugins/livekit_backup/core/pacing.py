"""A limit on the bytes that one task takes of the network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 1.0
"""What was not used in this time may be used at once; what is older is over."""


class Pace:
    """Bytes per second that all readers of a task share. Safe to share between threads."""

    def __init__(self, bytes_per_second: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_until = clock()

    def took(self, count: int, stopping: threading.Event) -> None:
        """Wait until the bytes that have come are within the limit, or until the transfer is given up."""
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - BURST_SECONDS) + count / self._rate
            wait = self._paid_until - now
        if wait > 0:
            stopping.wait(wait)
