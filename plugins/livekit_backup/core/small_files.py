"""Files of one part: read whole, verified in memory, and stored by one request.

An upload in parts takes three requests at the least and leaves something open when it is killed.
What fits into memory needs neither: it is verified before the store hears of it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from livekit_backup.core.checksums import Checksums
from livekit_backup.core.etags import WHOLE, EtagRule
from livekit_backup.core.pacing import Pace
from livekit_backup.core.part_plan import PartPlan
from livekit_backup.core.resuming_reader import ResumingReader
from livekit_backup.core.transfer_protocols import Source, SourceBody
from livekit_backup.models.references import RecordingFile, Upload
from livekit_backup.models.store_abilities import StoreAbilities

SMALL = 8 * 1024 * 1024
"""Bytes up to which a file is held in memory whole."""


@dataclass(frozen=True)
class WholeFile:
    """A file in memory, and what is known of its bytes."""

    upload: Upload
    """Without an upload id: nothing of it is in the store."""
    content: bytes


def read_whole(
    file: RecordingFile,
    source: Source,
    body: SourceBody,
    rule: EtagRule,
    abilities: StoreAbilities,
    pace: Pace | None = None,
    mark: str = "",
) -> WholeFile:
    """Read an open body to its end, through faults.

    :param mark: that the object is to have.

    :raises SourceChangedError: the source is another recording by now.
    :raises RetryableError, PermanentError, NeedsOperatorError: as the source says.
    """
    content = bytearray(body.size)
    reader = ResumingReader(source, body.size, body.version, body=body, pace=pace)
    try:
        reader.fill(memoryview(content), threading.Event())
    finally:
        reader.close()
    sizes = (WHOLE, *(size for size in rule.part_sizes if size != WHOLE))
    checksums = Checksums(
        PartPlan(
            body.size,
            max(1, body.size),
            md5_part_sizes=sizes,
            with_crc64nvme=abilities.accepts_crc64nvme,
        )
    )
    checksums.add(memoryview(content))
    by_size = dict(zip(sizes, checksums.etags(), strict=True))
    upload = Upload(
        egress_id=file.egress_id,
        run=file.run,
        filename=file.filename,
        landing_uri=file.landing_uri,
        upload_id=None,
        size=body.size,
        part_size=body.size,
        sha256=checksums.sha256,
        crc64nvme=checksums.crc64nvme,
        etag=by_size[WHOLE],
        own_etag=by_size[WHOLE],
        computed_etags=tuple(by_size[size] for size in rule.part_sizes),
        announced_size=body.size,
        source_etag=body.etag,
        source_etag_is_certain=rule.is_certain,
        mark=mark,
    )
    return WholeFile(upload, bytes(content))
