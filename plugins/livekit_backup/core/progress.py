"""The log of a long transfer: one line at its start, one every ten seconds, one at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from livekit_backup.core.wording import hours_left, readable_size

INTERVAL_SECONDS = 10.0


class ProgressLog:
    """Tells how far a transfer is."""

    def __init__(
        self,
        log: logging.Logger,
        name: str,
        size: int,
        deadline: datetime | None,
        *,
        done: int = 0,
        show: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Begin.

        :param done: bytes that an earlier try has moved.
        :param show: takes a few words for the UI, as often as the log gets a line.
        """
        self._log = log
        self._name = name
        self._size = size
        self._show = show
        self._began_at = done
        self._began = self._last = time.monotonic()
        left = hours_left(deadline, datetime.now(UTC))
        hours = "" if left is None else f", {left:.1f} h until its link dies"
        going_on = f", going on at {100 * done / size:.0f} %" if done else ""
        log.info("downloading %s: %s%s%s", name, readable_size(size), hours, going_on)

    def __call__(self, done: int) -> None:
        """Take note of the bytes done so far."""
        now = time.monotonic()
        if now - self._last < INTERVAL_SECONDS:
            return
        self._last = now
        rate = (done - self._began_at) / (now - self._began)
        percent = f"{100 * done / self._size:.0f} %"
        pace = f"{readable_size(int(rate))}/s"
        self._log.info("%s: %s, %s, %.0f s to go", self._name, percent, pace, (self._size - done) / max(rate, 1))
        self._show(f"{percent}, {pace}")

    def end(self, checked: str) -> None:
        """Say what the whole took, and what was checked on the way."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        moved = self._size - self._began_at
        self._log.info(
            "downloaded %s: %s in %.1f s, %s/s; %s",
            self._name,
            readable_size(moved),
            seconds,
            readable_size(int(moved / seconds)),
            checked,
        )
