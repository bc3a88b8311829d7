"""A stored object's bytes, decompressed if they are gzip or zstd: told by content, never by name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import zstandard

from livekit_backup.core.storage import ReadableBody

MAX_OBJECT_BYTES = 4 * 1024**3
"""After decompression; Firehose writes at most 128 MiB before it. Ends a decompression bomb."""
BLOCK_BYTES = 64 * 1024
"""It fits a processor's own cache, and holds nothing that matters more often: 256 KiB took half as long again."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


class UnreadableRestError(Exception):
    """Nothing more can be had of an object; the text says why."""


@dataclass(frozen=True)
class Unpacked:
    """An object's bytes as they were before somebody compressed them."""

    is_compressed: bool
    blocks: Iterator[bytes]
    """Of about ``BLOCK_BYTES``. All that could be read comes before an UnreadableRestError is raised."""


def unpack(body: ReadableBody) -> Unpacked:
    """Begin to read a body."""
    magic = b""
    while len(magic) < len(_ZSTD) and (more := body.read(len(_ZSTD) - len(magic))):
        magic += more
    raw = _Raw(body, magic)
    if magic.startswith(_GZIP):
        return Unpacked(True, _blocks(cast("BinaryIO", gzip.GzipFile(fileobj=io.BufferedReader(raw, BLOCK_BYTES)))))
    is_zstd = magic == _ZSTD
    return Unpacked(is_zstd, _blocks(io.BufferedReader(_Zstd(raw) if is_zstd else raw, BLOCK_BYTES)))


def _blocks(stream: Any) -> Iterator[bytes]:
    read, failure = 0, ""
    more = True
    while more:
        block = bytearray()
        while more and len(block) < BLOCK_BYTES:
            try:
                # A plain read() would lose what came before an error.
                piece = stream.read1(BLOCK_BYTES)
            except _DAMAGED as error:
                failure, piece = f"its compressed data is damaged: {error}", b""
            more = bool(piece)
            block += piece
        read += len(block)
        if read > MAX_OBJECT_BYTES:
            raise UnreadableRestError(f"longer than {MAX_OBJECT_BYTES} bytes once decompressed")
        if block:
            yield bytes(block)
    if failure:
        raise UnreadableRestError(failure)


class _Raw(io.RawIOBase):
    """Lets the standard library's readers read from a storage body of which the first bytes are read already."""

    def __init__(self, body: ReadableBody, first: bytes) -> None:
        self._body = body
        self._first = first

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, self._first = self._first[: len(buffer)], self._first[len(buffer) :]
        data = data or self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Zstd(io.RawIOBase):
    """Reads zstd frames; unlike the library's own reader it notices a frame that is cut short."""

    CHUNK = 512
    """Bytes fed at a time: four can stand for 128 KiB, so that this makes 16 MiB at the most."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._rest = b""
        self._ready = memoryview(b"")
        self._frame: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = self._rest or self._raw.read(self.CHUNK) or b""
            self._rest = b""
            if not chunk:
                if self._frame is not None:
                    raise EOFError("Compressed file ended before the end of its last frame")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
            self._ready = memoryview(self._frame.decompress(chunk))
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count
