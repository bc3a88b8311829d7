"""Splits a stored object into its JSON documents, in bounded memory.

An object holds one document (pretty-printed or not), JSON Lines, a JSON array, or
documents written without anything between them (Kinesis Firehose's default); plain, gzip
or zstd, told by content and never by name. A document that cannot be read costs itself and
no other.
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
_OUTSIDE_STRING = re.compile(rb'["\[\]{}]')
_INSIDE_STRING = re.compile(rb'["\\\n]')
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
_BETWEEN = b" \t\r\n,"


@dataclass(frozen=True)
class Document:
    """One document of an object: its value, or the reason why there is none."""

    position: int
    """Which document of the object, from 0."""
    raw: bytes
    """Its bytes; empty where they could not be kept."""
    value: Any = None
    error: str = ""


def read_documents(body: ReadableBody) -> Iterator[Document]:
    """Give the documents of an object in order. A broken stream ends with a document that says so."""
    position = 0
    for position, document in enumerate(_documents(_decompressed(body))):
        yield Document(position, document.raw, document.value, document.error)


def _decompressed(body: ReadableBody) -> BinaryIO:
    magic = b""
    while len(magic) < len(_ZSTD) and (more := body.read(len(_ZSTD) - len(magic))):
        magic += more
    raw = _Raw(body, magic)
    if magic.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=io.BufferedReader(raw, _READ_SIZE)))
    return io.BufferedReader(_Zstd(raw) if magic == _ZSTD else raw, _READ_SIZE)


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
        self._ready = b""
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
            self._ready = self._frame.decompress(chunk)
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


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
    """Finds where documents begin and end, looking at each byte once.

    It notices at once that a document is broken, and takes up the next, where JSON allows
    no other reading: at a line's end inside a string, and at a bracket where none can stand.
    """

    def __init__(self) -> None:
        self._open = bytearray()
        self._scanned = 0
        self._brackets = bytearray()
        self._in_string = False
        self._skipping = False

    def feed(self, line: bytes) -> Iterator[Document]:
        """Take in a line, or a piece of one that is very long."""
        if self._skipping:
            self._skipping = not line.endswith(b"\n")
            return
        if not self._open and line.startswith(b"{") and not (whole := _parse(line)).error:
            yield whole
            return
        self._open += line.removeprefix(_BOM) if not self._open else line
        yield from self._take_complete()
        if not self._brackets and not self._in_string and line.endswith(b"\n"):
            yield from self.finish()
        elif len(self._open) > MAX_DOCUMENT_BYTES:
            self._take_up(len(self._open))
            self._skipping = not line.endswith(b"\n")
            yield Document(0, b"", error=f"a document of over {MAX_DOCUMENT_BYTES} bytes")

    def finish(self) -> Iterator[Document]:
        """Give what is left over as unreadable, unless it is nothing."""
        yield from self._take(len(self._open))

    def _take_complete(self) -> Iterator[Document]:
        while token := self._next_token():
            mark, inside = token.group(), bytes(self._brackets[-1:])
            if mark == b"\n":
                yield from self._take(token.end())
            elif mark in b"[]" and not inside:
                # An array at the top only wraps documents.
                yield from self._take(token.start())
                self._take_up(1)
            elif mark in b"{[":
                if not inside or not self._may_open(token.start(), inside):
                    yield from self._take(token.start())
                    self._scanned = 1
                self._brackets += mark
            else:
                del self._brackets[-1:]
                if not self._brackets:
                    yield from self._take(token.end())

    def _next_token(self) -> re.Match[bytes] | None:
        """Return the next bracket outside a string, or the line's end inside one."""
        while True:
            pattern = _INSIDE_STRING if self._in_string else _OUTSIDE_STRING
            token = pattern.search(self._open, self._scanned)
            if token is None:
                self._scanned = max(self._scanned, len(self._open))
                return None
            self._scanned = token.end()
            if token.group() == b"\\":
                # What is escaped is passed over, but a line's end cannot be escaped.
                self._scanned += self._open[self._scanned : self._scanned + 1] != b"\n"
            elif token.group() == b'"':
                self._in_string = not self._in_string
            else:
                return token

    def _may_open(self, start: int, inside: bytes) -> bool:
        """Whether a bracket may open a value here: behind a colon in an object, behind a comma in an array."""
        before = bytes(self._open[max(0, start - 256) : start]).rstrip()[-1:]
        return not before or before in (b":" if inside == b"{" else b"[,")

    def _take(self, end: int) -> Iterator[Document]:
        raw = bytes(self._open[:end]).strip(_BETWEEN)
        self._take_up(end)
        if not raw:
            return
        document = _parse(raw)
        if document.error and b"\n{" in raw:
            yield from _salvage(raw)
        else:
            yield document

    def _take_up(self, start: int) -> None:
        """Drop what is before, and begin anew behind it."""
        del self._open[:start]
        self._scanned = 0
        self._brackets.clear()
        self._in_string = False


def _salvage(raw: bytes) -> Iterator[Document]:
    """Give the lines of a broken document that are whole documents, and what is between them as unreadable."""
    broken = bytearray()
    for line in raw.splitlines(keepends=True):
        whole = _parse(line) if line.startswith(b"{") and line.rstrip().endswith(b"}") else None
        if whole is None or whole.error:
            broken += line
            continue
        if broken:
            yield _parse(bytes(broken))
            broken.clear()
        yield whole
    if broken:
        yield _parse(bytes(broken))


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
