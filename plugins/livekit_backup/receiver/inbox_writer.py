"""Writes events into the inbox: a bounded number at a time, each answered for in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Self

from livekit_backup.core.evidence import keep
from livekit_backup.core.storage import ObjectStore, join_uri
from livekit_backup.errors import NeedsOperatorError, StorageUnavailableError
from livekit_backup.models.stored_webhook import StoredWebhook

log = logging.getLogger(__name__)

THREADS = 32
"""A PUT takes some 30 ms at S3, and about 1 ms of this process: more threads would only wait for the processor."""
MAX_EVENTS = 256
"""At a time; a burst of more is better sent again in a second than kept waiting beyond LiveKit's patience."""
MAX_BYTES = 64 * 1024 * 1024
"""Of all bodies at a time."""
ANSWER_SECONDS = 8.0
"""For one write. The thread may go on: what it stores is found there when LiveKit sends it again."""
TUNING: dict[str, Any] = {
    "connect_timeout": 2,
    "read_timeout": 5,
    "retries": {"mode": "standard", "total_max_attempts": 2},
    "max_pool_connections": THREADS,
}
"""Of boto: LiveKit tries again by itself, and sooner than five attempts of ours would have ended."""
LONGEST_WRITE_SECONDS = 20.0
"""Two attempts with these time-outs and the wait between them."""
REOPEN_SECONDS = 10.0
"""A store that says that rights are missing is opened anew after this time: its keys may have been changed."""
MARKER = "_livekit_backup/receiver.json"
"""Below the inbox, and in no hour of it: what shows that the inbox can be written."""


class FullError(Exception):
    """As much as there is room for is in flight already."""


class InboxWriter:
    """One inbox.

    :param open_store: gives the store, relying on its own condition where nothing is to be replaced; may block.
    """

    def __init__(
        self,
        open_store: Callable[[], ObjectStore],
        *,
        threads: int = THREADS,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        answer_seconds: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_store = open_store
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._events = 0
        self._bytes = 0
        self._store: ObjectStore | None = None
        self._opened_at = 0.0
        self._free_threads = asyncio.Semaphore(threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="livekit-inbox")

    @property
    def in_flight(self) -> int:
        """Events that hold a slot."""
        return self._events

    def slot(self, size: int = 0) -> Slot:
        """Take room for one event, of at least so many bytes. :raises FullError: there is none."""
        with self._lock:
            if self._events >= self._max_events or self._bytes + size > self._max_bytes:
                raise FullError
            self._events += 1
            self._bytes += size
        return Slot(self, size)

    def grow(self, size: int) -> None:
        """Take room for more bytes. :raises FullError: there is none."""
        with self._lock:
            if self._bytes + size > self._max_bytes:
                raise FullError
            self._bytes += size

    def give_back(self, size: int) -> None:
        """Give a slot's room back."""
        with self._lock:
            self._events -= 1
            self._bytes -= size

    async def store(self, slot: Slot, uri: str, stored: StoredWebhook) -> bool:
        """Store an event where none is; False when this very one is there already. Durable once it returns.

        :raises StorageUnavailableError: it took too long; also whatever the store raises.
        """
        return await self._in_thread(partial(self._keep, uri, stored), slot)

    async def check(self, inbox: str) -> None:
        """Prove that the inbox can be written. :raises Exception: it cannot; whatever the store raises."""
        await self._in_thread(partial(self._mark, join_uri(inbox, MARKER)), None)

    def close(self) -> None:
        """Wait for the writes that are under way."""
        self._threads.shutdown(wait=True)

    async def _in_thread(self, call: Callable[[], bool], slot: Slot | None) -> bool:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bool] = loop.create_future()
        try:
            async with asyncio.timeout(self._answer_seconds):
                # Who waits does so here: threads that found their next write in a queue would take it at once, and
                # keep the processor from the event loop, which has answers to send.
                await self._free_threads.acquire()
                self._start(call, slot).add_done_callback(partial(self._ended, loop, answered))
                return await answered
        except TimeoutError:
            raise StorageUnavailableError(f"the inbox did not answer in {self._answer_seconds:.0f} s") from None

    def _start(self, call: Callable[[], bool], slot: Slot | None) -> Future[bool]:
        try:
            future = self._threads.submit(call)
        except RuntimeError:
            self._free_threads.release()
            raise
        if slot:
            # Not when the answer goes out: a write that hangs holds its room for as long as it hangs.
            slot.hand_over(future)
        return future

    def _ended(self, loop: asyncio.AbstractEventLoop, answered: asyncio.Future[bool], future: Future[bool]) -> None:
        """Tell the event loop, unless it has ended before the thread."""
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._pass_on, answered, future)

    def _pass_on(self, answered: asyncio.Future[bool], future: Future[bool]) -> None:
        self._free_threads.release()
        if answered.done():
            return
        if error := future.exception():
            answered.set_exception(error)
        else:
            answered.set_result(future.result())

    def _keep(self, uri: str, stored: StoredWebhook) -> bool:
        return self._with_store(lambda store: keep(store, uri, stored))

    def _mark(self, uri: str) -> bool:
        return self._with_store(lambda store: store.put_new(uri, b"{}\n", content_type="application/json", metadata={}))

    def _with_store(self, call: Callable[[ObjectStore], bool]) -> bool:
        store = self._opened()
        try:
            return call(store)
        except NeedsOperatorError:
            with self._opening:
                if self._store is store and self._clock() - self._opened_at >= REOPEN_SECONDS:
                    self._store = None
            raise

    def _opened(self) -> ObjectStore:
        with self._opening:
            if self._store is None:
                self._store = self._open_store()
                self._opened_at = self._clock()
            return self._store


class Slot:
    """Room for one event; a context manager that gives it back, unless a write does so later."""

    def __init__(self, writer: InboxWriter, size: int) -> None:
        self._writer = writer
        self._size = size
        self._handed_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._handed_over:
            self._writer.give_back(self._size)

    def hold(self, size: int) -> None:
        """Have room for a body of so many bytes. :raises FullError: there is none."""
        if size > self._size:
            self._writer.grow(size - self._size)
            self._size = size

    def hand_over(self, future: Future[bool]) -> None:
        """Give the room back when this has ended."""
        self._handed_over = True
        future.add_done_callback(lambda _: self._writer.give_back(self._size))
