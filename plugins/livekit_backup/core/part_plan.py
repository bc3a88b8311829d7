"""In which parts a recording is uploaded, and what has to be hashed on the way.

The free proof: uploaded in the source's own part size, the warehouse's ETag must come out as
the source's ETag. Two stores then agree on every byte, and no MD5 (610 MiB/s, the dearest
hash of all, against 1,430 for SHA-256) is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livekit_backup.core.etags import MAX_PARTS, MIB, MIN_PART_SIZE, WHOLE, EtagRule, etag_of_parts
from livekit_backup.errors import RefusedError
from livekit_backup.models.store_abilities import StoreAbilities

MAX_PART_SIZE = 5 * 1024 * MIB
"""S3's limit."""
BUFFER_BUDGET = 64 * MIB
"""Bytes that all buffers of a transfer may take together. From parts of over 32 MiB on, two of them need more."""
MOST_BUFFERS = 12
"""With one read and one hashed, ten parts of 5 MiB are in flight, which hides a distant store's latency."""

_TIERS = ((150 * 1024 * MIB, 16 * MIB), (600 * 1024 * MIB, 64 * MIB))
"""Up to this size, parts of that size; above the last, 9,500 parts."""


@dataclass(frozen=True)
class PartPlan:
    """The parts of one upload: numbers from 1, all of one size but the last."""

    size: int
    """Bytes of the whole."""
    part_size: int
    md5_part_sizes: tuple[int, ...] = ()
    """Part sizes whose ETags are computed from the bytes on the way."""
    proves_source: bool = False
    """Whether the warehouse's own ETags of these parts say what the source's must be."""
    is_one_put: bool = False
    """The source was stored in one PUT, so its ETag is that of a single part."""
    with_part_md5: bool = False
    """Send each part's MD5, since this store checks nothing else."""
    with_crc64nvme: bool = True
    """Send each part's CRC64NVME and the whole's."""

    @property
    def count(self) -> int:
        """The number of parts."""
        return max(1, -(-self.size // self.part_size))

    @property
    def buffers(self) -> int:
        """Parts that are held in memory at a time."""
        return max(2, min(MOST_BUFFERS, BUFFER_BUDGET // self.part_size))

    def source_etag(self, part_etags: Sequence[str]) -> str:
        """Return what a store's ETags of all parts say that the source's is; empty where they cannot tell."""
        if not self.proves_source:
            return ""
        return part_etags[0] if self.is_one_put else etag_of_parts(part_etags)

    def span(self, number: int) -> range:
        """Return the offsets of a part's bytes."""
        return range((number - 1) * self.part_size, min(number * self.part_size, self.size))


def plan_parts(size: int, rule: EtagRule, abilities: StoreAbilities, *, thorough: bool = False) -> PartPlan:
    """Choose parts that prove the source's ETag for free where that can be, and the hashes that are needed else.

    :param size: bytes of the recording, at least 1.
    :param thorough: compute every ETag that the source's may stand for, after the free proof has failed.
    :raises RefusedError: no object of S3 can be that large.
    """
    free = _for_free(rule, size, abilities)
    part_size = free or default_part_size(size)
    return PartPlan(
        size,
        part_size,
        proves_source=free is not None,
        is_one_put=rule.part_sizes[:1] == (WHOLE,),
        md5_part_sizes=rule.part_sizes if thorough or not free else (),
        with_part_md5=not abilities.refuses_wrong_crc64nvme,
        with_crc64nvme=abilities.accepts_crc64nvme,
    )


def default_part_size(size: int) -> int:
    """Return the part size for a recording of this many bytes, where the source's own cannot be used.

    :raises RefusedError: no object of S3 can be that large.
    """
    if size > MAX_PARTS * MAX_PART_SIZE:
        raise RefusedError(f"a recording of {size:.3g} bytes is more than S3 stores in an object")
    for most, part_size in _TIERS:
        if size <= most:
            return part_size
    return min(MAX_PART_SIZE, (size // 9_500 // MIB + 1) * MIB)


def _for_free(rule: EtagRule, size: int, abilities: StoreAbilities) -> int | None:
    """Return the part size whose upload proves the likeliest reading of the source's ETag, or None."""
    if not rule.part_sizes or not abilities.etags_are_md5:
        return None
    part_size = size if rule.part_sizes[0] == WHOLE else rule.part_sizes[0]
    # Another writer's huge parts would take memory for nothing but this proof.
    if part_size > max(BUFFER_BUDGET // 2, default_part_size(size)):
        return None
    if part_size >= size:
        # One part's own ETag is its MD5, which is the ETag of an object of one PUT.
        return part_size if size <= default_part_size(size) or rule.part_sizes[0] != WHOLE else None
    return part_size if part_size >= MIN_PART_SIZE and -(-size // part_size) <= MAX_PARTS else None
