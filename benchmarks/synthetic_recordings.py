"""Recordings that name themselves: from ``1073741824-3.mp4`` any process knows the size and every byte.

The bytes repeat every 5 MiB, LiveKit's part size, so that the digest of a part costs a look into a
cache whatever the part size of the engine. Source and sink would otherwise hash along with the
engine that is measured, on the same processors.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from livekit_backup.testing.synthetic_bytes import MIB, UPLOAD_PART, part_size

_NAME = re.compile(r"^(\d+)-(\d+)\.mp4$")


class PeriodicBytes:
    """Pseudo-random bytes that repeat every 5 MiB."""

    def __init__(self, seed: str, size: int) -> None:
        self.seed = seed
        self.size = size

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``stop``, in views of at most 1 MiB."""
        block = _block(self.seed)
        stop = self.size if stop is None else min(stop, self.size)
        while start < stop:
            phase = start % UPLOAD_PART
            length = min(MIB - phase % MIB, stop - start)
            yield block[phase : phase + length]
            start += length

    def md5(self, start: int, length: int) -> bytes:
        """The MD5 of the bytes from ``start`` on."""
        return _md5(self.seed, start % UPLOAD_PART, length)

    @property
    def etag(self) -> str:
        """The ETag of LiveKit's upload, without quotes (``synthetic_bytes.etag_of``, without reading it all)."""
        if self.size <= UPLOAD_PART:
            return self.md5(0, self.size).hex()
        step = part_size(self.size)
        digests = [self.md5(start, min(step, self.size - start)) for start in range(0, self.size, step)]
        return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def recording_name(size: int, number: int = 0) -> str:
    """The filename of the recording with this size and number."""
    return f"{size}-{number}.mp4"


@lru_cache(maxsize=1024)
def recording_content(path: str) -> PeriodicBytes | None:
    """The content that a path's last component names, or None where it names no recording."""
    name = path.rpartition("/")[2]
    found = _NAME.match(name)
    return PeriodicBytes(name, int(found[1])) if found else None


def write_recording(name: str, folder: Path) -> None:
    """Write a recording as a file."""
    content = recording_content(name)
    assert content, name
    with (folder / name).open("wb") as file:
        file.writelines(content.pieces())


@lru_cache(maxsize=256)
def _block(seed: str) -> memoryview:
    size = recording_content(seed).size if _NAME.match(seed) else UPLOAD_PART
    return memoryview(hashlib.shake_128(seed.encode()).digest(min(size, UPLOAD_PART)))


@lru_cache(maxsize=65536)
def _md5(seed: str, phase: int, length: int) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in PeriodicBytes(seed, phase + length).pieces(phase):
        digest.update(piece)
    return digest.digest()
