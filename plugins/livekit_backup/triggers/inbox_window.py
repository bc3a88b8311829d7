"""Waits for a window to close, without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from livekit_backup.errors import LivekitBackupError

OBJECTS, EMPTY, UNCHECKED = "objects", "empty", "unchecked"
LONGEST_SLEEP_SECONDS = 60.0
"""The wall clock is read again this often, so that a corrected clock is noticed."""


class InboxWindowTrigger(BaseTrigger):
    """Fires once the window is closed, and says whether anything lies in it.

    :param closes_at: ISO 8601, when the window and its grace are over.
    :param prefixes: the inbox prefixes of the window, ``s3://bucket/prefix``.
    :param inbox_conn_id: Airflow connection of the inbox.

    Its event is ``{"status": "objects" | "empty" | "unchecked"}``; unchecked means that the
    inbox did not answer here, and that the worker has to look itself.
    """

    def __init__(self, *, closes_at: str, prefixes: Sequence[str], inbox_conn_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.closes_at = closes_at
        self.prefixes = list(prefixes)
        self.inbox_conn_id = inbox_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and plain arguments."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"closes_at": self.closes_at, "prefixes": self.prefixes, "inbox_conn_id": self.inbox_conn_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep until the window is closed, then look into the inbox once."""
        closes_at = datetime.fromisoformat(self.closes_at)
        while (left := (closes_at - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - no event, a clock
            await asyncio.sleep(min(left, LONGEST_SLEEP_SECONDS))
        yield TriggerEvent({"status": await self._look()})  # type: ignore[no-untyped-call]

    async def _look(self) -> str:
        from livekit_backup.hooks.object_store import holds_any_object

        try:
            return OBJECTS if await holds_any_object(self.inbox_conn_id, self.prefixes) else EMPTY
        except LivekitBackupError as error:
            self.log.warning("%s", error)
            return UNCHECKED
