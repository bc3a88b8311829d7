"""What a media file's own bytes say at its two ends: whether it begins and ends as its kind does.

No decoder is needed, and nothing here believes a number of the file: each place is checked against the file's size,
and what is read is bounded by the reader.

Sources: ISO/IEC 14496-12 (MP4), RFC 3533 and 7845 (Ogg, Opus in it), RFC 8794 and 9559 (EBML, Matroska), ISO/IEC
13818-1 (transport stream), ITU-T T.81 (JPEG).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from livekit_backup.core.bounded_reader import ProbeGivenUpError
from livekit_backup.core.ogg_pages import look_at_ogg
from livekit_backup.core.webm_elements import look_at_webm

ReadAt = Callable[[int, int], bytes]
"""Gives the bytes from an offset on, as many as asked for or as there are."""

END = 4096
"""Bytes of an end that are all zero in no media file of these kinds."""
MOST_BOXES = 4096
"""Of one MP4; one that is not fragmented has four or five."""
TS_PACKET = 188
MOST_SECONDS = 1e9
"""More than that no file plays, whatever it says."""

_FIRST_BOXES = frozenset({"ftyp", "styp", "moov", "mdat", "free", "skip", "wide"})


@dataclass(frozen=True)
class Shape:
    """What the bytes say."""

    wrong: tuple[str, ...] = ()
    """Each in half a sentence about the file."""
    seconds: float | None = None
    """Of the recording, where its container says so."""


def look_at_shape(ending: str, size: int, read_at: ReadAt) -> Shape:
    """Look at a file's two ends.

    :param ending: of its name, lower case, without the dot; of one that is not known only zeros are looked for.
    :param size: bytes.
    """
    if not size:
        return Shape(("it is empty",))
    head, tail = read_at(0, END), read_at(max(0, size - END), END)
    blank = [where for where, data in (("beginning", head), ("end", tail)) if not any(data)]
    if size <= END and blank:
        return Shape(("it is all zero",))
    if len(blank) == 2:
        return Shape((f"its first and last {END} bytes are all zero",))
    if blank:
        return Shape((f"the {END} bytes at its {blank[0]} are all zero",))
    if ending not in _LOOKS:
        return Shape()
    wrong, seconds = _LOOKS[ending](size, read_at)
    return Shape(tuple(wrong), seconds)


def _mp4(size: int, read_at: ReadAt) -> tuple[list[str], float | None]:
    """Walk over the outermost boxes, which must fill the file, and have an index among them."""
    at, seconds = 0, None
    kinds: set[str] = set()
    for _ in range(MOST_BOXES):
        box = _box(at, size, read_at)
        if box is None:
            return [*_no_index(kinds), f"no MP4 box begins at byte {at} of {size}"], seconds
        kind, content, stop = box
        if not at and kind not in _FIRST_BOXES:
            return [f"it begins with {kind!r}, as no MP4 does"], None
        kinds.add(kind)
        if stop > size:
            return [*_no_index(kinds), f"it was cut: its {kind} box ends at byte {stop} of {size}"], seconds
        if kind == "moov":
            seconds = _movie_seconds(read_at(content, 40))
        at = stop
        if at == size:
            return _no_index(kinds), seconds
    raise ProbeGivenUpError(f"it was not found out within {MOST_BOXES} boxes of it")


def _box(at: int, size: int, read_at: ReadAt) -> tuple[str, int, int] | None:
    """Return a box's type, where its content begins and where it ends; None where none begins."""
    header = read_at(at, 16)
    if len(header) < 8:
        return None
    length, kind = int.from_bytes(header[:4], "big"), header[4:8]
    content = 8
    if length == 1 and len(header) == 16:
        length, content = int.from_bytes(header[8:], "big"), 16
    elif length == 0:
        # The last box may leave it open.
        length = size - at
    if length < content or not all(0x20 <= byte < 0x7F for byte in kind):
        return None
    return kind.decode(), at + content, at + length


def _no_index(kinds: set[str]) -> list[str]:
    return [] if "moov" in kinds else ["it has no moov box, without which no player opens it"]


def _movie_seconds(box: bytes) -> float | None:
    """Return the duration by a moov's first box, which is mvhd; a fragmented one says 0."""
    if len(box) < 40 or box[4:8] != b"mvhd":
        return None
    scale, units = struct.unpack(">IQ", box[28:40]) if box[8] == 1 else struct.unpack(">II", box[20:28])
    seconds = units / scale if scale else 0.0
    return seconds if 0 < seconds < MOST_SECONDS else None


def _transport_stream(size: int, read_at: ReadAt) -> tuple[list[str], float | None]:
    wrong = []
    if size % TS_PACKET:
        wrong.append(f"it was cut: its {size} bytes are no whole number of packets of {TS_PACKET}")
    count = size // TS_PACKET
    spans = ((0, min(count, 300)), (max(0, count - 300), count))
    for where, (first, stop) in zip(("beginning", "end"), spans, strict=True):
        data = read_at(first * TS_PACKET, (stop - first) * TS_PACKET)
        lost = sum(byte != 0x47 for byte in data[::TS_PACKET])
        if lost:
            wrong.append(f"{lost} of {stop - first} packets at its {where} are none")
    return wrong, None


def _mp3(_: int, read_at: ReadAt) -> tuple[list[str], float | None]:
    head = read_at(0, 3)
    frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return ([] if head == b"ID3" or frame else ["it does not begin as an MP3 does"]), None


def _jpeg(size: int, read_at: ReadAt) -> tuple[list[str], float | None]:
    wrong = []
    if read_at(0, 3) != b"\xff\xd8\xff":
        wrong.append("it does not begin as a JPEG does")
    elif not _has_frame(read_at):
        wrong.append("it has no picture in it")
    if read_at(max(0, size - 2), 2) != b"\xff\xd9":
        wrong.append("it was cut: it does not end as a JPEG does")
    return wrong, None


def _has_frame(read_at: ReadAt) -> bool:
    """Whether a frame header with a width and a height stands among the segments; there are at most a few dozen."""
    at = 2
    for _ in range(256):
        segment = read_at(at, 9)
        if len(segment) < 9 or segment[0] != 0xFF:
            return False
        if 0xC0 <= segment[1] <= 0xCF and segment[1] not in (0xC4, 0xC8, 0xCC):
            # A height of 0 is told behind the picture.
            return any(segment[7:9])
        if segment[1] == 0xDA:
            return False
        at += 2 + struct.unpack(">H", segment[2:4])[0]
    return False


def _png(size: int, read_at: ReadAt) -> tuple[list[str], float | None]:
    wrong = [] if read_at(0, 8) == b"\x89PNG\r\n\x1a\n" else ["it does not begin as a PNG does"]
    if read_at(max(0, size - 8), 8)[:4] != b"IEND":
        wrong.append("it was cut: it does not end as a PNG does")
    return wrong, None


_LOOKS: dict[str, Callable[[int, ReadAt], tuple[list[str], float | None]]] = {
    **dict.fromkeys(("mp4", "m4a", "mov"), _mp4),
    **dict.fromkeys(("ogg", "opus", "oga"), look_at_ogg),
    **dict.fromkeys(("webm", "mkv"), look_at_webm),
    **dict.fromkeys(("jpg", "jpeg"), _jpeg),
    "ts": _transport_stream,
    "mp3": _mp3,
    "png": _png,
}
