"""The secrets that LiveKit signs webhooks with, read again so that a rotation needs no restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from livekit_backup.errors import ConfigurationError

log = logging.getLogger(__name__)

REFRESH_SECONDS = 60.0
"""After which keys are read again: a key that was withdrawn is refused after a minute."""
UNKNOWN_SECONDS = 10.0
"""After which an unknown key has them read again: anybody can name one, so this must be bounded."""
STALE_SECONDS = 3600.0
"""For which old keys serve while they cannot be read: a database that is down must not cost events."""
READ_SECONDS = 5.0
_RETRY_SECONDS = 2.0


class SigningKeys:
    """The secret of each API key, read in a thread of its own, by one reader at a time.

    :param read: gives them; may block.
    :param refresh_seconds: after which they are read again.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, str]],
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        unknown_seconds: float = UNKNOWN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._refresh_seconds = refresh_seconds
        self._unknown_seconds = min(unknown_seconds, refresh_seconds)
        self._clock = clock
        self._keys: Mapping[str, str] = {}
        self._read_at: float | None = None
        self._failed_at: float | None = None
        self._reading: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="livekit-keys")

    async def current(self, *, unknown_key: bool = False) -> Mapping[str, str]:
        """Return the keys, read again when that is due.

        :param unknown_key: a token named a key that is not among them, so it is due sooner.
        :raises ConfigurationError: there are none, or none could be read; for an unknown key, not now.
        """
        is_answered = True
        if self._is_due(self._unknown_seconds if unknown_key else self._refresh_seconds):
            is_answered = await self._refresh()
        if not self._keys or self._age() > STALE_SECONDS:
            raise ConfigurationError("LiveKit's API keys could not be read")
        if unknown_key and (self._failed_at is not None or not is_answered):
            # It may be new: to refuse it would lose the event.
            raise ConfigurationError("LiveKit's API keys could not be read again, and the token names no old one")
        return self._keys

    def _age(self) -> float:
        return float("inf") if self._read_at is None else self._clock() - self._read_at

    def _is_due(self, after: float) -> bool:
        if self._failed_at is not None and self._clock() - self._failed_at < _RETRY_SECONDS:
            return False
        return self._age() >= after

    async def _refresh(self) -> bool:
        """Read them, or wait for whoever does already; False when it takes too long."""
        if self._reading is None or self._reading.done():
            self._reading = self._thread.submit(self._read_now)
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._reading)), READ_SECONDS)
        except TimeoutError:
            log.warning("LiveKit's API keys could not be read in %.0f s", READ_SECONDS)
            return False
        return True

    def _read_now(self) -> None:
        try:
            keys = dict(self._read())
        except Exception as error:  # noqa: BLE001 - whatever it is, the old keys serve on, and the log has it
            self._failed_at = self._clock()
            # An Airflow connection's own error can hold more than we know of; ours are safe by construction.
            told = str(error) if isinstance(error, ConfigurationError) else type(error).__name__
            log.warning("LiveKit's API keys could not be read: %s", told)
            return
        self._keys = keys
        self._read_at, self._failed_at = self._clock(), None


def parse_keys(text: str, source: str) -> dict[str, str]:
    """Read keys as livekit-server takes them: a line ``key: secret`` for each.

    :param source: what to name when something is wrong: a variable or a file.
    :raises ConfigurationError: a line is something else; nothing of it is shown.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, colon, secret = (part.strip().strip("\"'") for part in stripped.partition(":"))
        if not colon or not key or not secret:
            raise ConfigurationError(f"{source}, line {number}: must be `key: secret`, as livekit-server takes it")
        keys[key] = secret
    return keys


def read_keys_file(path: Path) -> dict[str, str]:
    """Read a file of keys. :raises ConfigurationError: it cannot be read, or holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = type(error).__name__
        raise ConfigurationError(f"{path}, the file of LiveKit's keys, cannot be read: {what}") from None
    return parse_keys(text, str(path))
