"""Deterministic bytes of any size, cut short or flipped on demand, with S3's checksums.

Nothing here is held whole in memory: a recording of 20 GiB costs 2 MiB.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Protocol

MIB = 1024 * 1024

UPLOAD_PART = 5 * MIB
"""LiveKit egress uploads through aws-sdk-go-v2's S3 manager with its default parts of 5 MiB."""

MANY_PARTS = 52_428_800_000
"""From here on the SDK's 10,000 parts of 5 MiB do not suffice, and it uses larger ones."""

_TURN = 648_055
"""Odd, hence coprime to 1 MiB: no two of an object's first 2**20 blocks are turned alike."""


class Content(Protocol):
    """Bytes with random access."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``stop``, in views of at most 1 MiB."""


class SyntheticBytes:
    """Pseudo-random bytes made from a seed alone.

    Each MiB is the same random block, turned by another amount. So a block that is lost,
    swapped or shifted changes the hash, and a piece is a view that costs no copy.
    """

    def __init__(self, seed: str, size: int) -> None:
        self.seed = seed
        self.size = size

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``stop``, in views of at most 1 MiB."""
        block = _random_block(self.seed, min(self.size, MIB), turns=self.size > MIB)
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            index, skipped = divmod(start, MIB)
            length = min(MIB - skipped, stop - start)
            first = index * _TURN % MIB + skipped
            yield block[first : first + length]
            start += length


@lru_cache(maxsize=256)
def _random_block(seed: str, length: int, *, turns: bool) -> memoryview:
    block = hashlib.shake_128(seed.encode()).digest(length)
    # Twice in a row, so that a block turned by any amount is one unbroken view.
    return memoryview(block * 2 if turns else block)


class LiteralBytes:
    """Bytes given as they are: a manifest, a playlist."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``stop``, in views of at most 1 MiB."""
        view = memoryview(self.data)[start:stop]
        for first in range(0, len(view), MIB):
            yield view[first : first + MIB]


class Shortened:
    """The first bytes of something longer."""

    def __init__(self, content: Content, size: int) -> None:
        self.size = min(size, content.size)
        self._content = content

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``stop``, in views of at most 1 MiB."""
        return self._content.pieces(start, self.size if stop is None else min(stop, self.size))


class Flipped:
    """The same bytes but for one, in which every bit is wrong."""

    def __init__(self, content: Content, offset: int) -> None:
        self._content = content
        self._offset = offset

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._content.size

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``stop``, in views of at most 1 MiB."""
        for piece in self._content.pieces(start, stop):
            within = self._offset - start
            start += len(piece)
            if 0 <= within < len(piece):
                wrong = bytearray(piece)
                wrong[within] ^= 0xFF
                yield memoryview(wrong)
            else:
                yield piece


def sha256_of(content: Content) -> str:
    """The SHA-256 as hexadecimal text, read in a stream."""
    digest = hashlib.sha256()
    for piece in content.pieces():
        digest.update(piece)
    return digest.hexdigest()


def part_size(size: int) -> int:
    """The part size of LiveKit's uploader for an object of ``size`` bytes (aws-sdk-go-v2, S3 manager)."""
    return UPLOAD_PART if size < MANY_PARTS else size // 10_000 + 1


def etag_of(content: Content, upload_part_size: int | None = None) -> str:
    """The ETag, without quotes, that S3 gives an object in plaintext or under SSE-S3.

    The MD5 after one PUT, ``md5(the parts' MD5s)-N`` after a multipart upload, even of one part.

    Args:
        content: what was uploaded.
        upload_part_size: bytes a part; 0 for one PUT whatever the size. By default as LiveKit's
            uploader does it: one PUT up to 5 MiB, parts of 5 MiB above.
    """
    if upload_part_size is None:
        upload_part_size = 0 if content.size <= UPLOAD_PART else part_size(content.size)
    if not upload_part_size:
        return _md5(content, 0, content.size).hex()
    # A multipart upload has at least one part, if an empty one.
    starts = range(0, max(1, content.size), upload_part_size)
    # MD5 is the slowest hash there is here, and releases the GIL.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(lambda start: _md5(content, start, start + upload_part_size), starts)
        return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(starts)}"


def _md5(content: Content, start: int, stop: int) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in content.pieces(start, stop):
        digest.update(piece)
    return digest.digest()
