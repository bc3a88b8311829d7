"""A landed object's bytes at any place: in blocks, of one version, and never more than a bounded part of it."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from livekit_backup.core.storage import ObjectStore

BLOCK = 256 * 1024
"""Bytes of one request: FFmpeg asks for 32 KiB at a time, mostly for the next."""
MOST_BLOCKS = 16
"""In memory: 4 MiB."""
MOST_REQUESTS = 256
"""Over one file: 64 MiB. The index of a recording of ten hours takes about 20 of them."""
FILE_SECONDS = 60.0
"""For looking into one file, however it is made and however slow the store is."""


class ProbeGivenUpError(Exception):
    """A limit was reached before the file was looked into; the text says which. No file is the worse for it."""


@dataclass
class BoundedReader:
    """Reads one version of an object, or its content where that is in memory already."""

    store: ObjectStore
    uri: str
    size: int
    etag: str
    content: bytes = b""
    """Whole, or empty."""
    ends: float = field(default_factory=lambda: time.monotonic() + FILE_SECONDS)
    """On the monotonic clock."""
    requests: int = 0
    _blocks: OrderedDict[int, bytes] = field(default_factory=OrderedDict)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return the bytes from an offset on: as many as asked for, or as there are.

        :raises ProbeGivenUpError: this is too much of it, or the time is over.
        :raises LivekitBackupError: as the store says.
        """
        stop = min(self.size, offset + count)
        if self.content:
            return self.content[offset:stop]
        data = bytearray()
        while offset + len(data) < stop:
            at = offset + len(data)
            block = self._block(at // BLOCK)
            data += block[at % BLOCK : at % BLOCK + stop - at]
        return bytes(data)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        if self.requests >= MOST_REQUESTS:
            raise ProbeGivenUpError(f"it was not found out within {MOST_REQUESTS * BLOCK // 1024**2} MiB of it")
        self.requests += 1
        start = number * BLOCK
        block = self._fetched(start, min(self.size, start + BLOCK))
        self._blocks[number] = block
        if len(self._blocks) > MOST_BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def _fetched(self, start: int, stop: int) -> bytes:
        body = self.store.open(self.uri, start, stop, self.etag)
        data = bytearray()
        try:
            while len(data) < stop - start:
                if time.monotonic() > self.ends:
                    raise ProbeGivenUpError(f"it was not found out within {FILE_SECONDS:.0f} s")
                chunk = body.read(stop - start - len(data))
                if not chunk:
                    raise ProbeGivenUpError("the store gives fewer bytes than it has")
                data += chunk
        finally:
            body.close()
        return bytes(data)
