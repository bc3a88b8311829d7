"""Splits bytes into JSON documents where nothing is taken for granted, in bounded memory.

Documents may be pretty-printed, one a line, in a JSON array, or without anything between them
(Kinesis Firehose's default). A document that cannot be read costs itself and no other.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from livekit_backup.core.strict_json import MAX_DEPTH, RefusedJsonError, parse_json

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
"""LiveKit's largest events are some tens of KiB; what is larger is not one."""

_OUTSIDE_STRING = re.compile(rb'["\[\]{}]')
_INSIDE_STRING = re.compile(rb'["\\\n]')
_BOM = b"\xef\xbb\xbf"
BETWEEN = b" \t\r\n,"
"""What may stand between two documents."""


@dataclass(frozen=True)
class Document:
    """One document of an object: its value, or the reason why there is none."""

    position: int
    """Which document of the object, from 0."""
    raw: bytes
    """Its bytes; empty where they could not be kept."""
    value: Any = None
    error: str = ""
    offset: int = 0
    """Where its bytes begin, after decompression."""


def read_document(raw: bytes, offset: int, position: int = 0) -> Document:
    """Return what bytes say that are taken for one document."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        return _too_long(offset, position)
    try:
        return Document(position, raw, parse_json(raw), offset=offset)
    except RefusedJsonError as error:
        return Document(position, raw, error=str(error), offset=offset)


def _too_long(offset: int, position: int = 0) -> Document:
    return Document(position, b"", error=f"a document of over {MAX_DOCUMENT_BYTES} bytes", offset=offset)


class Splitter:
    """Finds where documents begin and end, looking at each byte once.

    It notices at once that a document is broken, and takes up the next, where JSON allows
    no other reading: at a line's end inside a string, and at a bracket where none can stand.
    Positions are left to its user.
    """

    def __init__(self) -> None:
        self._open = bytearray()
        self._start = 0
        self._scanned = 0
        self._brackets = bytearray()
        self._in_string = False
        self._skipping = False

    @property
    def is_between(self) -> bool:
        """Whether what comes next begins a document."""
        return not self._open and not self._skipping

    @property
    def offset(self) -> int:
        """Where what has not been given yet begins, after decompression."""
        return self._start

    def pass_over(self, count: int) -> None:
        """Be told of bytes that another has read."""
        self._start += count

    def feed(self, data: bytes) -> Iterator[Document]:
        """Take in lines; the last may be a piece of one that is very long."""
        for line in io.BytesIO(data):
            yield from self._feed_line(line)

    def _feed_line(self, line: bytes) -> Iterator[Document]:
        if self._skipping:
            self._skipping = not line.endswith(b"\n")
            self._start += len(line)
            return
        if not self._open and line.startswith(b"{"):
            whole = read_document(line.rstrip(BETWEEN), self._start)
            if not whole.error:
                self._start += len(line)
                yield whole
                return
        if not self._open and line.startswith(_BOM):
            self._start += len(_BOM)
            line = line.removeprefix(_BOM)
        self._open += line
        yield from self._take_complete()
        if not self._brackets and not self._in_string and line.endswith(b"\n"):
            yield from self.finish()
        elif len(self._open) > MAX_DOCUMENT_BYTES:
            offset = self._start
            self._take_up(len(self._open))
            self._skipping = not line.endswith(b"\n")
            yield _too_long(offset)

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
        if len(self._brackets) > MAX_DEPTH:
            # It is refused anyway; a million of brackets need not be looked at one by one.
            return True
        before = bytes(self._open[max(0, start - 256) : start]).rstrip()[-1:]
        return not before or before in (b":" if inside == b"{" else b"[,")

    def _take(self, end: int) -> Iterator[Document]:
        taken, start = bytes(self._open[:end]), self._start
        self._take_up(end)
        raw = taken.strip(BETWEEN)
        if not raw:
            return
        document = read_document(raw, start + taken.index(raw))
        if document.error and b"\n{" in raw:
            yield from _salvage(document)
        else:
            yield document

    def _take_up(self, start: int) -> None:
        """Drop what is before, and begin anew behind it."""
        del self._open[:start]
        self._start += start
        self._scanned = 0
        self._brackets.clear()
        self._in_string = False


def _salvage(document: Document) -> Iterator[Document]:
    """Give the lines of a broken document that are whole documents, and what is between them as unreadable."""
    broken, offset = bytearray(), document.offset
    for line in document.raw.splitlines(keepends=True):
        whole = None
        if line.startswith(b"{") and line.rstrip().endswith(b"}"):
            whole = read_document(line.rstrip(), offset)
        if whole is None or whole.error:
            broken += line
        else:
            if broken:
                yield read_document(bytes(broken), offset - len(broken))
                broken.clear()
            yield whole
        offset += len(line)
    if broken:
        yield read_document(bytes(broken), offset - len(broken))
