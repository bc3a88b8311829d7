"""The first and the last page of an Ogg file: where it begins, that it was ended, and how long it plays."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import islice

LONGEST_PAGE = 27 + 255 + 255 * 255
OPUS_RATE = 48_000
"""Opus counts in this whatever it was recorded at (RFC 7845)."""

_FIRST, _LAST = 0x02, 0x04
_MARK = b"OggS\0"
_MOST_TRIES = 64
"""Marks in the last page's place that begin no page: the bytes of a recording can hold one by chance, not many."""


def look_at_ogg(size: int, read_at: Callable[[int, int], bytes]) -> tuple[list[str], float | None]:
    """Return what is wrong with a file's two ends, and its seconds if it is Opus."""
    head = read_at(0, LONGEST_PAGE)
    if not head.startswith(_MARK) or len(head) < 27 or not head[5] & _FIRST:
        return ["it does not begin as an Ogg file does"], None
    tail = read_at(max(0, size - 2 * LONGEST_PAGE), 2 * LONGEST_PAGE)
    last = _last_page(tail)
    if last is None:
        return ["it was cut: no whole Ogg page is at its end"], None
    page, behind = last
    wrong = []
    if behind:
        wrong.append(f"it was cut, or overwritten: {behind} bytes behind its last Ogg page are none")
    if not page[5] & _LAST:
        wrong.append("it was not ended: its last Ogg page is not marked as the last")
    return wrong, _opus_seconds(head, page)


def _last_page(tail: bytes) -> tuple[bytes, int] | None:
    """Return the last page whose checksum is right, and the bytes behind it."""
    at = len(tail)
    for _ in range(_MOST_TRIES):
        at = tail.rfind(_MARK, 0, at)
        if at < 0:
            return None
        if page := _page(tail[at : at + LONGEST_PAGE]):
            return page, len(tail) - at - len(page)
    return None


def _page(data: bytes) -> bytes | None:
    """Return the page that begins here, or None where it is not whole and as it was written."""
    if len(data) < 27 or len(data) < 27 + data[26]:
        return None
    end = 27 + data[26] + sum(data[27 : 27 + data[26]])
    page = data[:end]
    if len(page) < end:
        return None
    (crc,) = struct.unpack("<I", page[22:26])
    return page if _crc(page[:22] + bytes(4) + page[26:]) == crc else None


def _opus_seconds(head: bytes, last: bytes) -> float | None:
    opus = head[27 + head[26] :]
    if opus[:8] != b"OpusHead" or len(opus) < 12 or last[14:18] != head[14:18]:
        return None
    (samples,) = struct.unpack("<q", last[6:14])
    (skipped,) = struct.unpack("<H", opus[10:12])
    return (samples - skipped) / OPUS_RATE if samples > skipped else None


def _table() -> tuple[int, ...]:
    """Return Ogg's own CRC-32 of each byte: neither reflected nor inverted, unlike zlib's."""

    def entry(byte: int) -> int:
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        return crc & 0xFFFFFFFF

    return tuple(map(entry, range(256)))


_TABLE = _table()


def _crc(data: bytes) -> int:
    crc = 0
    for byte in islice(data, LONGEST_PAGE):
        crc = ((crc << 8) & 0xFFFFFFFF) ^ _TABLE[(crc >> 24) ^ byte]
    return crc
