"""Moves one recording from a source into a sink: read, hash and upload side by side.

A fixed number of buffers, each of one part, goes round: readers fill them, one thread hashes
them in the order of the parts, uploaders send them and hand them back. So memory is buffers
times part size whatever the recording's size, and a byte counts once it is hashed in order.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from livekit_backup.core.checksums import Checksums, PartChecksums
from livekit_backup.core.pacing import Pace
from livekit_backup.core.part_plan import PartPlan
from livekit_backup.core.resuming_reader import ResumingReader
from livekit_backup.core.transfer_protocols import Sink, Source, SourceBody

PROGRESS_SECONDS = 1.0
"""How often progress is told while nothing ends."""

OpenSink = Callable[[Checksums], Sink]
"""Opens the sink once the first part is hashed: for a recording of one part, all is known by then."""


class Transfer:
    """One pass over a recording, or over what an earlier pass has left of it."""

    def __init__(
        self,
        source: Source,
        body: SourceBody,
        plan: PartPlan,
        checksums: Checksums,
        *,
        first: int = 1,
        streams: int = 1,
        pace: Pace | None = None,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Take an open answer.

        :param body: open at the first byte of part ``first``.
        :param checksums: fed with the parts before ``first``.
        :param streams: ranges that are read side by side.
        :param pace: that they all keep to.
        :param on_progress: told now and then the bytes that have come so far, in the thread that runs the transfer.
        """
        self._source = source
        self._body = body
        self._plan = plan
        self._checksums = checksums
        self._first = first
        # Ranges of a recording without a version could be of two.
        self._streams = streams if body.version else 1
        self._pace = pace
        self._on_progress = on_progress
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._read_bytes = plan.span(first).start
        self._counting = threading.Lock()
        self._in_order = self._reader(self._read_bytes, body=body)

    def run(self, open_sink: OpenSink) -> list[str]:
        """Read, hash and upload everything, and return the ETags of the parts from ``first`` on.

        :raises SourceChangedError: the source is another recording by now: begin anew at byte 0.
        :raises RetryableError: the source or the sink gave up; what is up stays up.
        :raises PermanentError, NeedsOperatorError: no resume can help, such as a link that died meanwhile.
        """
        uploads: list[Future[str]] = []
        sink: Sink | None = None
        free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        with self._threads() as (readers, uploaders):
            for part, buffer in self._filled(readers, free, uploads):
                checksums = self._checksums.add(part)
                sink = sink or open_sink(self._checksums)
                number = self._first + len(uploads)
                uploads.append(uploaders.submit(_upload, sink, number, part, checksums, free, buffer))
            etags = [upload.result() for upload in uploads]
            self._on_progress(self._read_bytes)
            return etags

    @contextmanager
    def _threads(self) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
        readers = ThreadPoolExecutor(self._streams, thread_name_prefix="read")
        uploaders = ThreadPoolExecutor(self._buffer_count - 1, thread_name_prefix="upload")
        try:
            yield readers, uploaders
        finally:
            # What runs ends by its own time-outs. Parts that wait for their upload are good when only the
            # source has failed: the next try need not read them again.
            self._stopping.set()
            readers.shutdown(cancel_futures=True)
            uploaders.shutdown(cancel_futures=self._failure is None)
            self._in_order.close()

    @property
    def _buffer_count(self) -> int:
        parts_left = self._plan.count - self._first + 1
        # Every stream holds one; without more of them nothing would be uploaded meanwhile.
        return max(2, min(self._plan.buffers + self._streams - 1, parts_left + 1))

    def _filled(
        self, readers: ThreadPoolExecutor, free: queue.SimpleQueue[bytearray], uploads: list[Future[str]]
    ) -> Iterator[tuple[memoryview, bytearray]]:
        """Give the parts in order, each with the buffer that holds it."""
        numbers = iter(range(self._first, self._plan.count + 1))
        for _ in range(self._buffer_count):
            free.put(bytearray(min(self._plan.part_size, self._plan.size)))
        reads: deque[tuple[Future[memoryview | None], bytearray]] = deque()
        looked_at = 0
        for left in range(self._plan.count - self._first + 1, 0, -1):
            # With no read under way an upload is, and it hands its buffer back when it ends or fails.
            while len(reads) < left and (not reads or not free.empty()):
                buffer = free.get()
                reads.append((readers.submit(self._read, next(numbers), memoryview(buffer)), buffer))
            looked_at = _raise_failure(uploads, looked_at)
            read, buffer = reads.popleft()
            yield self._await(read), buffer

    def _await(self, read: Future[memoryview | None]) -> memoryview:
        """Wait for a part, and tell meanwhile how it grows: one of a slow source can take minutes."""
        while True:
            self._on_progress(self._read_bytes)
            try:
                part = read.result(PROGRESS_SECONDS)
            except TimeoutError:
                continue
            if part is None:
                assert self._failure
                raise self._failure
            return part

    def _read(self, number: int, buffer: memoryview) -> memoryview | None:
        """Fill a buffer with a part, or return None once any read has failed: the first error is what counts."""
        try:
            return self._fill(number, buffer)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that runs the transfer
            self._failure = self._failure or error
            self._stopping.set()
            return None

    def _fill(self, number: int, buffer: memoryview) -> memoryview:
        span = self._plan.span(number)
        part = buffer[: len(span)]
        if self._streams == 1:
            self._in_order.fill(part, self._stopping)
            return part
        reader = self._in_order if number == self._first else self._reader(span.start, stop=span.stop)
        try:
            reader.fill(part, self._stopping)
        finally:
            reader.close()
        return part

    def _reader(self, start: int, stop: int | None = None, body: SourceBody | None = None) -> ResumingReader:
        size, version = self._body.size, self._body.version
        return ResumingReader(
            self._source, size, version, start=start, stop=stop, body=body, on_read=self._count, pace=self._pace
        )

    def _count(self, count: int) -> None:
        with self._counting:
            self._read_bytes += count


def _raise_failure(uploads: list[Future[str]], looked_at: int) -> int:
    """Raise the first failure, and return how many uploads from the beginning have ended well."""
    while looked_at < len(uploads) and uploads[looked_at].done():
        uploads[looked_at].result()
        looked_at += 1
    for upload in uploads[looked_at:]:
        if upload.done():
            upload.result()
    return looked_at


def _upload(
    sink: Sink,
    number: int,
    part: memoryview,
    checksums: PartChecksums,
    free: queue.SimpleQueue[bytearray],
    buffer: bytearray,
) -> str:
    try:
        return sink.put_part(number, part, checksums)
    finally:
        free.put(buffer)
