"""Whether an upload is the recording: the checks before it is completed, and the one after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from livekit_backup.core.etags import etag_of_parts
from livekit_backup.core.storage import ObjectHead, UploadedPart
from livekit_backup.core.wording import quoted
from livekit_backup.errors import CorruptError, StorageUnavailableError, UnprovenError, UploadLostError
from livekit_backup.models.references import Upload
from livekit_backup.models.store_abilities import StoreAbilities


@dataclass
class Checks:
    """What was checked, and what could not be and why."""

    passed: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)


def known_etags(upload: Upload) -> tuple[str, ...]:
    """Return the ETags that these bytes have, by our own hashes or by the warehouse's."""
    return tuple(etag for etag in (*upload.computed_etags, upload.source_etag_by_warehouse) if etag)


def contradicts_source(upload: Upload) -> bool:
    """Whether bytes and source's ETag could be held against each other, and differ."""
    etags = known_etags(upload)
    return bool(etags) and upload.source_etag not in etags


def check_source(upload: Upload, event_size: int | None) -> Checks:
    """Hold the bytes that were uploaded against what the source and the event say of them.

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
    if not contradicts_source(upload) and upload.source_etag in known_etags(upload):
        checks.passed.append("source_etag")
    elif upload.source_etag_is_certain and contradicts_source(upload):
        raise CorruptError(f"the bytes have ETag {known_etags(upload)[0]}, LiveKit's storage says {upload.source_etag}")
    elif contradicts_source(upload):
        checks.unverified.append(f"source_etag: {upload.source_etag} fits no usual part size, so it proves nothing")
    else:
        checks.unverified.append(
            f"source_etag: {upload.source_etag or 'none sent'} follows no rule that these bytes can be held against"
        )
    return checks


def check_proven(upload: Upload, checks: Checks) -> None:
    """Insist on a checksum of the source's: without one a wrong byte could have come with the bytes unseen.

    :raises UnprovenError: there is none; the text says why.
    """
    if "source_etag" not in checks.passed:
        why = next(gap for gap in checks.unverified if gap.startswith("source_etag: "))
        raise UnprovenError(f"nothing proves the bytes of {quoted(upload.filename)}, and verify is strict: {why}")


def check_parts(upload: Upload, parts: Sequence[UploadedPart]) -> None:
    """Hold the parts that the warehouse stored against what was sent to it.

    :raises StorageUnavailableError: parts do not show (yet).
    :raises UploadLostError: they are not those that were sent.
    """
    stored, count = sum(part.size for part in parts), -(-upload.size // upload.part_size)
    held = f"the warehouse holds {stored} bytes in {len(parts)} parts of {upload.size} bytes in {count} sent to it"
    if stored < upload.size and len(parts) < count:
        # A listing may lag behind what was acknowledged.
        raise StorageUnavailableError(held)
    if stored != upload.size or [part.number for part in parts] != list(range(1, count + 1)):
        raise UploadLostError(f"{held}: clear the download task")
    if upload.etag and etag_of_parts(part.etag for part in parts) != upload.etag:
        raise UploadLostError("the warehouse holds other parts than were sent to it: clear the download task")


def check_landed(upload: Upload, head: ObjectHead, abilities: StoreAbilities, checks: Checks) -> tuple[str, bool]:
    """Hold what HEAD says of the landed object against what was uploaded.

    An ETag that is not the expected one proves nothing: the same bytes have others when they
    were stored in other parts or under SSE-KMS.

    :return: what is wrong, empty if nothing is known to be; and whether every byte is proven.
    """
    if head.size != upload.size:
        return f"has {head.size} bytes instead of {upload.size}", False
    # Only a store that computes its own says more than an echo of what it was sent.
    if head.crc64nvme and upload.crc64nvme and abilities.refuses_wrong_crc64nvme and abilities.gives_crc64nvme:
        if head.crc64nvme != upload.crc64nvme:
            return f"has CRC64NVME {head.crc64nvme} instead of {upload.crc64nvme}", False
        checks.passed.append("destination_crc64nvme")
    if upload.etag and head.etag == upload.etag and _is_independent(upload):
        checks.passed.append("destination_etag")
    return "", bool({"destination_crc64nvme", "destination_etag"} & set(checks.passed))


def _is_independent(upload: Upload) -> bool:
    """Whether the expected ETag stands on more than the warehouse's own word: on our MD5s, or on the source."""
    if upload.etag == upload.own_etag or upload.etag in upload.computed_etags:
        return True
    return bool(upload.source_etag) and upload.source_etag == upload.source_etag_by_warehouse
