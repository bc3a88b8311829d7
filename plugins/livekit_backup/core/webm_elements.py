"""The outermost elements of a WebM or Matroska file: that it is whole, has tracks, and how long it plays."""

from __future__ import annotations

import struct
from collections.abc import Callable

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_INFO, _TRACKS, _CLUSTER = 0x1549A966, 0x1654AE6B, 0x1F43B675
_TIMESTAMP_SCALE, _DURATION = 0x2AD7B1, 0x4489
_MOST_ELEMENTS = 64
"""Before the first cluster there are some six, and in Info a dozen."""
_LONGEST_INFO = 16 * 1024

ReadAt = Callable[[int, int], bytes]


def look_at_webm(size: int, read_at: ReadAt) -> tuple[list[str], float | None]:
    """Return what is wrong with a file's outline, and its seconds where it says so."""
    begin = _element(0, read_at)
    if begin is None or begin[0] != _EBML or begin[2] is None:
        return ["it does not begin as a WebM does"], None
    segment = _element(begin[1] + begin[2], read_at)
    if segment is None or segment[0] != _SEGMENT:
        return ["it has no segment, which holds all of a WebM"], None
    _, at, length = segment
    wrong = []
    # A live writer leaves the length open, and of such a file its outline cannot tell where it should end.
    if length is not None and at + length > size:
        wrong.append(f"it was cut: its segment ends at byte {at + length} of {size}")
    elif length is not None and at + length < size:
        wrong.append(f"{size - at - length} bytes stand behind its segment")
    found, seconds = _outline(at, size, read_at)
    if _TRACKS not in found:
        wrong.append("it has no tracks")
    elif _CLUSTER not in found:
        wrong.append("it has no media behind its tracks")
    return wrong, seconds


def _outline(at: int, size: int, read_at: ReadAt) -> tuple[set[int], float | None]:
    """Return the elements up to the first cluster."""
    found: set[int] = set()
    seconds = None
    for _ in range(_MOST_ELEMENTS):
        element = _element(at, read_at) if at < size else None
        if element is None:
            break
        kind, start, length = element
        found.add(kind)
        if kind == _CLUSTER or length is None:
            break
        if kind == _INFO:
            seconds = _seconds(read_at(start, min(length, _LONGEST_INFO)))
        at = start + length
    return found, seconds


def _seconds(info: bytes) -> float | None:
    def read_at(offset: int, count: int) -> bytes:
        return info[offset : offset + count]

    scale, units, at = 1_000_000, None, 0
    for _ in range(_MOST_ELEMENTS):
        element = _element(at, read_at)
        if element is None:
            break
        kind, start, length = element
        if length is None:
            break
        value = read_at(start, min(length, 8))
        if kind == _TIMESTAMP_SCALE:
            scale = int.from_bytes(value, "big")
        elif kind == _DURATION and length in (4, 8) and len(value) == length:
            (units,) = struct.unpack(">f" if length == 4 else ">d", value)
        at = start + length
    seconds = units * scale / 1e9 if units is not None else 0.0
    return seconds if 0 < seconds < 1e9 else None


def _element(at: int, read_at: ReadAt) -> tuple[int, int, int | None] | None:
    """Return an element's id, where its content begins and its length, None for an open one; None where none begins."""
    header = read_at(at, 12)
    id_length = _width(header[:1], 4)
    if not id_length:
        return None
    length_at = header[id_length:]
    width = _width(length_at[:1], 8)
    if not width or len(length_at) < width:
        return None
    bits = (1 << (7 * width)) - 1
    length = int.from_bytes(length_at[:width], "big") & bits
    return (
        int.from_bytes(header[:id_length], "big"),
        at + id_length + width,
        None if length == bits else length,
    )


def _width(first: bytes, most: int) -> int:
    """Return how many bytes a number takes by its first one, 0 where that says nothing that can be."""
    width = 9 - first[0].bit_length() if first else 0
    return width if width <= most else 0
