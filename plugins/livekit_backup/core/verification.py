"""Whether an upload is the recording: the checks before it is completed, and the one after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from livekit_backup.core.etags import is_md5, multipart_etag
from livekit_backup.core.storage import UploadedPart
from livekit_backup.errors import CorruptError
from livekit_backup.models.references import Upload


@dataclass
class Checks:
    """What was checked, and what could not be and why."""

    passed: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)


def check_source(upload: Upload, event_size: int | None) -> Checks:
    """Hold the bytes that were read against what the source and the event say of them.

    :raises CorruptError: they differ; the text says in what.
    """
    checks = Checks()
    if upload.size != upload.announced_size:
        raise CorruptError(f"{upload.size} bytes were read of {upload.announced_size} announced")
    checks.passed.append("length")
    if event_size is None:
        checks.unverified.append("event_size: the event names no size for this file")
    elif upload.size != event_size:
        raise CorruptError(f"the recording has {upload.size} bytes, LiveKit's event says {event_size}")
    else:
        checks.passed.append("event_size")
    if not upload.source_etag_computed:
        checks.unverified.append(
            f"source_etag: {upload.source_etag or 'none sent'} follows no rule that these bytes can be held against"
        )
    elif upload.source_etag_computed != upload.source_etag:
        raise CorruptError(
            f"the bytes have ETag {upload.source_etag_computed}, LiveKit's storage says {upload.source_etag}"
        )
    else:
        checks.passed.append("source_etag")
    return checks


def check_parts(upload: Upload, parts: Sequence[UploadedPart]) -> bool:
    """Hold the parts that the warehouse stored against what was sent to it.

    :return: whether its ETags prove the bytes; False where they are no MD5s (SSE-KMS), so
        that the landed object has to be read back.
    :raises CorruptError: parts are missing, or too long or short in sum.
    """
    stored = sum(part.size for part in parts)
    if stored != upload.size or [part.number for part in parts] != list(range(1, len(parts) + 1)):
        raise CorruptError(f"the warehouse holds {stored} bytes in {len(parts)} parts of {upload.size} bytes sent")
    if not all(is_md5(part.etag) for part in parts):
        return False
    return multipart_etag(bytes.fromhex(part.etag) for part in parts) == upload.etag
