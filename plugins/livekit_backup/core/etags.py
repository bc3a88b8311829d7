"""S3's ETag rules: what a source's ETag says of its bytes, and what it leaves open.

An object of one PUT has the MD5 of its bytes; a multipart one the MD5 of its parts' MD5s and
their number. Neither holds under SSE-KMS and SSE-C. The part size is not in an ETag, so it
is LiveKit's own where the number of parts agrees with it, and else a guess among usual ones.

Source: livekit/egress uploads with aws-sdk-go-v2's S3 manager, 5 MiB parts; up to one part
it sends one PUT.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

MIB = 1024 * 1024
MIN_PART_SIZE = 5 * MIB
"""S3's least size of a part that is not the last, and the S3 manager's default."""
MAX_PARTS = 10_000
USUAL_PART_SIZES = tuple(MIB * count for count in (5, 8, 16, 32, 64, 128, 256, 512, 10, 15, 20, 25, 50, 100, 200, 500))
"""Defaults of the SDKs and tools that write to S3 first, then round figures that people configure."""
WHOLE = 0
"""The part size of an object that was stored in one PUT."""

_MD5 = re.compile(r"^[0-9a-f]{32}$")
_MULTIPART = re.compile(r"^[0-9a-f]{32}-([1-9][0-9]{0,4})$")


@dataclass(frozen=True)
class EtagRule:
    """How an ETag follows from the bytes, as far as it and the size can tell."""

    part_sizes: tuple[int, ...] = ()
    """That it may stand for, the likeliest first; :data:`WHOLE` for one PUT; empty where it proves nothing."""
    is_certain: bool = False
    """Whether bytes that fit none of them are wrong; if not, the true part size may be another."""


def etag_rule(etag: str, size: int, *, is_digest: bool = True) -> EtagRule:
    """Return the rule of an ETag.

    :param etag: without quotes.
    :param size: bytes of the whole object.
    :param is_digest: False where the store says that its ETags are no digests.
    """
    if not is_digest:
        return EtagRule()
    if is_md5(etag):
        return EtagRule((WHOLE,), is_certain=True)
    count = part_count(etag)
    if count is None or count > size:
        return EtagRule()
    if count == 1:
        return EtagRule((size,), is_certain=True)
    least, most = -(-size // count), (size - 1) // (count - 1)
    possible = [part_size for part_size in USUAL_PART_SIZES if least <= part_size <= most]
    livekits = livekit_part_size(size)
    if least <= livekits <= most:
        return EtagRule((livekits, *(part_size for part_size in possible if part_size != livekits)), is_certain=True)
    return EtagRule(tuple(possible))


def livekit_part_size(size: int) -> int:
    """Return the bytes of each part but the last that LiveKit's uploader chooses for an object.

    From 52,428,800,000 bytes on, 5 MiB parts would be too many: the S3 manager takes size/10000+1.
    """
    return MIN_PART_SIZE if size // MIN_PART_SIZE < MAX_PARTS else size // MAX_PARTS + 1


def multipart_etag(part_md5s: Iterable[bytes]) -> str:
    """Return the ETag of a multipart upload from its parts' binary MD5s."""
    digests = list(part_md5s)
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def etag_of_parts(part_etags: Iterable[str]) -> str:
    """Return the ETag that a store gives an upload of these parts, or "" where theirs are no MD5s."""
    etags = list(part_etags)
    return multipart_etag(map(bytes.fromhex, etags)) if all(map(is_md5, etags)) else ""


def is_md5(etag: str) -> bool:
    """Whether an ETag can be the MD5 of the bytes."""
    return bool(_MD5.match(etag))


def part_count(etag: str) -> int | None:
    """Return the number of parts that a multipart ETag names, or None."""
    match = _MULTIPART.match(etag)
    return int(match.group(1)) if match else None


class RunningEtag:
    """The ETag of bytes that come in order, if they were stored in parts of one size."""

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._part_md5s: list[bytes] = []
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._left = part_size

    def update(self, view: memoryview) -> None:
        """Take in the next bytes."""
        if self._part_size == WHOLE:
            self._md5.update(view)
            return
        while view:
            taken = min(self._left, len(view))
            self._md5.update(view[:taken])
            self._left -= taken
            view = view[taken:]
            if not self._left:
                self._end_part()

    def value(self) -> str:
        """Return the ETag of all bytes; nothing can be taken in afterwards."""
        if self._part_size == WHOLE:
            return self._md5.hexdigest()
        if self._left < self._part_size:
            self._end_part()
        return multipart_etag(self._part_md5s)

    def _end_part(self) -> None:
        self._part_md5s.append(self._md5.digest())
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._left = self._part_size
