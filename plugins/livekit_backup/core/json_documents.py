"""Splits a stored object into its JSON documents, in bounded memory.

An object holds one document (pretty-printed or not), JSON Lines, a JSON array, or
documents written without anything between them (Kinesis Firehose's default); plain, gzip
or zstd, told by content and never by name. A document that cannot be read costs itself
and no other.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import zstandard

from livekit_backup.core.storage import ReadableBody

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
"""LiveKit's largest events are some tens of KiB; what is larger is not one."""
MAX_OBJECT_BYTES = 4 * 1024**3
"""After decompression; Firehose writes at most 128 MiB before it. Ends a decompression bomb."""

_READ_SIZE = 1024 * 1024
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]|"', re.DOTALL)
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
_BETWEEN = b" \t\r\n,"


@dataclass(frozen=True)
class Document:
    """One document of an object: its value, or the reason why there is none."""

    position: int
    """Which document of the object, from 0."""
    raw: bytes
    value: Any = None
    error: str = ""


def read_documents(body: ReadableBody) -> Iterator[Document]:
    """Give the documents of an object in order. A broken stream ends with a document that says so."""
    position = 0
    for position, document in enumerate(_documents(_decompressed(body))):
        yield Document(position, document.raw, document.value, document.error)


def _decompressed(body: ReadableBody) -> BinaryIO:
    head = io.BufferedReader(_Raw(body), _READ_SIZE)
    magic = head.peek(4)[:4]
    if magic.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=head))
    if magic.startswith(_ZSTD):
        reader = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(
            head, read_across_frames=True
        )
        return cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", reader), _READ_SIZE))
    return cast("BinaryIO", head)


class _Raw(io.RawIOBase):
    """Lets the standard library's readers read from a storage body."""

    def __init__(self, body: ReadableBody) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _documents(stream: BinaryIO) -> Iterator[Document]:
    splitter = _Splitter()
    read = 0
    try:
        while line := stream.readline(MAX_DOCUMENT_BYTES + 1):
            read += len(line)
            if read > MAX_OBJECT_BYTES:
                yield Document(0, b"", error=f"longer than {MAX_OBJECT_BYTES} bytes once decompressed")
                return
            yield from splitter.feed(line)
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        yield from splitter.finish()
        yield Document(0, b"", error=f"its compressed data is damaged: {error}")
        return
    yield from splitter.finish()


class _Splitter:
    """Finds where documents begin and end, line by line.

    A line that is a whole document by itself is the usual case and the way back into step
    after a document that never ends.
    """

    def __init__(self) -> None:
        self._open = bytearray()
        self._scanned = 0
        self._depth = 0
        self._skipping = False

    def feed(self, line: bytes) -> Iterator[Document]:
        if self._skipping:
            self._skipping = not line.endswith(b"\n")
            return
        if line.startswith(b"{") and (whole := _parse(line)).error == "" and (whole.value or not self._open):
            yield from self.finish()
            yield whole
            return
        self._open += line.removeprefix(_BOM) if not self._open else line
        yield from self._take_complete()
        if len(self._open) > MAX_DOCUMENT_BYTES:
            yield Document(0, bytes(self._open[:200]), error=f"a document of over {MAX_DOCUMENT_BYTES} bytes")
            self._reset()
            self._skipping = not line.endswith(b"\n")

    def finish(self) -> Iterator[Document]:
        """Give what is left over as unreadable, unless it is nothing."""
        yield from self._take(len(self._open))
        self._reset()

    def _reset(self) -> None:
        self._open.clear()
        self._scanned = self._depth = 0

    def _take_complete(self) -> Iterator[Document]:
        while token := _TOKEN.search(self._open, self._scanned):
            mark = token.group()
            if mark == b'"':
                # The string goes on in the next chunk.
                return
            self._scanned = token.end()
            if self._depth == 0 and mark in b"[]":
                # An array at the top only wraps documents.
                yield from self._take(token.start())
                self._discard(1)
            elif mark in b"{[":
                if self._depth == 0:
                    yield from self._take(token.start())
                    self._scanned = 1
                self._depth += 1
            elif mark in b"}]":
                self._depth = max(0, self._depth - 1)
                if self._depth == 0:
                    yield from self._take(token.end())

    def _take(self, end: int) -> Iterator[Document]:
        raw = bytes(self._open[:end]).strip(_BETWEEN)
        self._discard(end)
        if raw:
            yield _parse(raw)

    def _discard(self, end: int) -> None:
        del self._open[:end]
        self._scanned = 0


def _parse(raw: bytes) -> Document:
    try:
        return Document(0, raw, json.loads(raw))
    except RecursionError:
        return Document(0, raw, error="nested too deeply")
    except UnicodeDecodeError:
        return Document(0, raw, error="not UTF-8")
    except json.JSONDecodeError as error:
        return Document(0, raw, error=f"not JSON: {error.msg} at line {error.lineno} column {error.colno}")
    except ValueError as error:
        return Document(0, raw, error=f"not JSON: {error}")
