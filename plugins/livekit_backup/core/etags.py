"""S3's ETag rules, and the part size of LiveKit's uploader.

Source: livekit/egress uploads with aws-sdk-go-v2's S3 manager, 5 MiB parts; up to one part
it sends one PUT, whose ETag is the MD5. A multipart ETag is the MD5 of the parts' MD5s
and their number. Neither holds under SSE-KMS and SSE-C.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

PART_SIZE = 5 * 1024 * 1024
"""The S3 manager's default, and S3's least part size."""
MAX_PARTS = 10_000

_MD5 = re.compile(r"^[0-9a-f]{32}$")
_MULTIPART = re.compile(r"^[0-9a-f]{32}-([1-9][0-9]{0,4})$")


def livekit_part_size(size: int) -> int:
    """Return the bytes of each part but the last that LiveKit's uploader chooses for an object.

    From 52,428,800,000 bytes on, 5 MiB parts would be too many: the S3 manager takes size/10000+1.
    """
    return PART_SIZE if size // PART_SIZE < MAX_PARTS else size // MAX_PARTS + 1


def multipart_etag(part_md5s: Iterable[bytes]) -> str:
    """Return the ETag of a multipart upload from its parts' binary MD5s."""
    digests = list(part_md5s)
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def is_md5(etag: str) -> bool:
    """Whether an ETag can be the MD5 of the bytes."""
    return bool(_MD5.match(etag))


def part_count(etag: str) -> int | None:
    """Return the number of parts that a multipart ETag names, or None."""
    match = _MULTIPART.match(etag)
    return int(match.group(1)) if match else None


def follows_livekit_rule(etag: str, size: int) -> bool:
    """Whether an ETag names the number of parts that LiveKit's uploader makes of this size."""
    return part_count(etag) == -(-size // livekit_part_size(size))
