"""What a landed object says of itself: its content type, and where it comes from."""

from __future__ import annotations

import hashlib
import mimetypes
import uuid
from collections.abc import Mapping
from datetime import datetime
from posixpath import splitext
from urllib.parse import quote

from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.references import RecordingFile

SHA256 = "livekit-sha256"
"""Metadata where the bytes are known before the upload is opened, else a tag: S3 lets metadata be set only then."""
MARK = "livekit-upload"
"""Metadata that tells an upload's object from any other's, and which run's it is."""

_LONGEST = 512
"""Of S3's 2 KiB for all metadata."""
_CONTENT_TYPES = {
    ".mp4": "video/mp4",
    ".ogg": "audio/ogg",
    ".mp3": "audio/mpeg",
    ".webm": "video/webm",
    ".ts": "video/mp2t",
    ".m3u8": "application/x-mpegurl",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
}
"""LiveKit's own, by file ending; ``mimetypes`` answers for others."""


def content_type(filename: str) -> str:
    """Return the content type that a name stands for."""
    ending = splitext(filename)[1].lower()
    return _CONTENT_TYPES.get(ending) or mimetypes.guess_type(f"x{ending}")[0] or "application/octet-stream"


def provenance(file: RecordingFile, recovered_at: datetime, sha256: str = "", mark: str = "") -> dict[str, str]:
    """Return the object metadata. It must be ASCII, so names are percent-encoded."""
    metadata = {
        "livekit-egress-id": _ascii(file.egress_id),
        "livekit-run": str(file.run),
        "livekit-room": _ascii(file.room_name),
        "livekit-filename": _ascii(file.filename),
        "livekit-recovered-at": f"{recovered_at:%Y-%m-%dT%H:%M:%SZ}",
    }
    return {**metadata, **{name: value for name, value in ((SHA256, sha256), (MARK, mark)) if value}}


def is_of(file: RecordingFile, metadata: Mapping[str, str]) -> bool:
    """Whether an object says that it is this file of this egress."""
    own = provenance(file, file.started)
    names = ("livekit-egress-id", "livekit-run", "livekit-filename")
    # Of names that are cut off nobody knows whether they are the same.
    return all(metadata.get(name) == own[name] and len(own[name]) < _LONGEST for name in names)


def new_mark(attempt: Attempt) -> str:
    """Return a mark that no other upload has."""
    return f"{_run_mark(attempt)}{uuid.uuid4().hex}"


def is_of_run(mark: str, attempt: Attempt) -> bool:
    """Whether a mark was made by this run, in whichever try."""
    return mark.startswith(_run_mark(attempt))


def _run_mark(attempt: Attempt) -> str:
    return f"{hashlib.sha256(repr((attempt.dag_id, attempt.run_id)).encode()).hexdigest()[:16]}-"


def _ascii(name: str) -> str:
    return quote(name, errors="replace")[:_LONGEST]
