"""The checksums of a recording, taken as its bytes pass: the hash state is the truth.

SHA-256 of the whole for the ledger, CRC64NVME of each part and the whole for the warehouse
to check (50 GB/s with awscrt, so it costs nothing), and MD5 only where a plan asks for it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from awscrt.checksums import combine_crc64nvme, crc64nvme

from livekit_backup.core.etags import RunningEtag, multipart_etag
from livekit_backup.core.part_plan import PartPlan
from livekit_backup.core.storage import UploadedPart


@dataclass(frozen=True)
class PartChecksums:
    """What the store is to check of one part."""

    crc64nvme: str = ""
    """Base64, as S3 takes it; empty to leave it out."""
    md5: bytes = b""
    """Binary; empty to leave it out."""


class Checksums:
    """All checksums of one transfer, fed part by part in order.

    Those of a whole need every byte. After :meth:`skip` the SHA-256 and the computed ETags stay
    unknown, and the CRC64NVME goes on from what the store says of the parts it holds.
    """

    def __init__(self, plan: PartPlan) -> None:
        self._plan = plan
        self._sha256 = hashlib.sha256()
        self._crc64nvme: int | None = 0
        self._etags = [RunningEtag(part_size) for part_size in plan.md5_part_sizes]
        self._part_md5s: list[bytes] = []
        self._is_whole = True
        self.size = 0
        """Bytes taken in, skipped ones included."""

    def skip(self, parts: Sequence[UploadedPart]) -> None:
        """Begin behind parts that are already up."""
        self._is_whole = not parts
        for part in parts:
            self._add_crc64nvme(_from_base64(part.crc64nvme), part.size)
            self.size += part.size

    def add(self, part: memoryview) -> PartChecksums:
        """Take in the next part and return its own checksums."""
        self.size += len(part)
        if self._is_whole:
            self._sha256.update(part)
            for etag in self._etags:
                etag.update(part)
        md5 = self._md5(part) if self._plan.with_part_md5 else b""
        if not self._plan.with_crc64nvme:
            return PartChecksums(md5=md5)
        crc = crc64nvme(part)
        self._add_crc64nvme(crc, len(part))
        return PartChecksums(_to_base64(crc), md5)

    def _md5(self, part: memoryview) -> bytes:
        md5 = hashlib.md5(part, usedforsecurity=False).digest()
        self._part_md5s.append(md5)
        return md5

    def _add_crc64nvme(self, crc: int | None, size: int) -> None:
        if self._crc64nvme is None or crc is None:
            self._crc64nvme = None
        else:
            self._crc64nvme = combine_crc64nvme(self._crc64nvme, crc, size)

    @property
    def sha256(self) -> str:
        """Of the whole, hexadecimal; empty when a part was skipped."""
        return self._sha256.hexdigest() if self._is_whole else ""

    @property
    def crc64nvme(self) -> str:
        """Of the whole, base64; empty when it is not sent or a skipped part's is unknown."""
        return _to_base64(self._crc64nvme) if self._plan.with_crc64nvme and self._crc64nvme is not None else ""

    def etags(self) -> tuple[str, ...]:
        """Return the ETags for the plan's part sizes, once all bytes are in; none when a part was skipped."""
        return tuple(etag.value() for etag in self._etags) if self._is_whole else ()

    def own_etag(self) -> str:
        """Return the ETag of the parts as they were sent, where their MD5s were taken."""
        return multipart_etag(self._part_md5s) if self._part_md5s and self._is_whole else ""


def _to_base64(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def _from_base64(text: str) -> int | None:
    return int.from_bytes(base64.b64decode(text), "big") if text else None
