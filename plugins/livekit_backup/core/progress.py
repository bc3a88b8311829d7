"""The log of a long transfer: one line at its start, one every ten seconds, one at its end."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from livekit_backup.core.wording import hours_left, readable_size

INTERVAL_SECONDS = 10.0


class ProgressLog:
    """Tells how far a transfer is."""

    def __init__(self, log: logging.Logger, name: str, size: int, deadline: datetime | None) -> None:
        self._log = log
        self._name = name
        self._size = size
        self._began = self._last = time.monotonic()
        left = hours_left(deadline, datetime.now(UTC))
        hours = "" if left is None else f", {left:.1f} h until its link dies"
        log.info("downloading %s: %s%s", name, readable_size(size), hours)

    def __call__(self, done: int) -> None:
        """Take note of the bytes done so far."""
        now = time.monotonic()
        if now - self._last < INTERVAL_SECONDS:
            return
        self._last = now
        rate = done / (now - self._began)
        self._log.info(
            "%s: %.0f %%, %s/s, %.0f s to go",
            self._name,
            100 * done / self._size,
            readable_size(int(rate)),
            (self._size - done) / max(rate, 1),
        )

    def end(self) -> None:
        """Say what the whole took."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        self._log.info(
            "downloaded %s: %s in %.1f s, %s/s",
            self._name,
            readable_size(self._size),
            seconds,
            readable_size(int(self._size / seconds)),
        )
