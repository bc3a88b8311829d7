"""Where a file lands. Names come from events and manifests, so they are hostile until checked."""

from __future__ import annotations

import hashlib
import unicodedata
from datetime import datetime

from livekit_backup.core.storage import join_uri, split_uri
from livekit_backup.core.wording import quoted
from livekit_backup.errors import RefusedError
from livekit_backup.models.landing_template import format_landing_key
from livekit_backup.models.references import FileKind, RecordingFile, Upload

MAX_KEY_BYTES = 1024
"""S3's limit for a key, in UTF-8."""

_MISLEADING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = frozenset({"\u200c", "\u200d"})
"""Persian words and many emoji are written with them."""


def clean_filename(filename: str) -> str:
    """Return a filename as it may stand in a key.

    A leading or doubled slash names no other place in a bucket, so it is dropped. What
    could lead elsewhere once the bucket is copied to a disk, or mislead a reader, is refused.

    :raises RefusedError: it climbs, hides, breaks lines or has no end.
    """
    if len(filename) > 4 * MAX_KEY_BYTES:
        # Before each of its characters is looked at: a manifest has room for a name of 64 MiB.
        raise RefusedError(f"{quoted(filename)} makes a key of over {MAX_KEY_BYTES} bytes")
    parts = [part for part in filename.split("/") if part]
    if not parts or filename.endswith("/"):
        raise RefusedError(f"{quoted(filename)} names no file")
    if any(part in (".", "..") for part in filename.replace("\\", "/").split("/")):
        raise RefusedError(f"{quoted(filename)} climbs out of its prefix")
    if any(unicodedata.category(char) in _MISLEADING and char not in _JOINERS for char in filename):
        raise RefusedError(f"{quoted(filename)} contains control or direction characters")
    return "/".join(parts)


def landing_uri(
    warehouse: str,
    ledger: str,
    template: str,
    *,
    filename: str,
    kind: FileKind,
    egress_id: str,
    run: int,
    started: datetime,
    room_name: str,
    room_id: str,
    inbox: str = "",
) -> str:
    """Return ``s3://bucket/key`` of a file in the warehouse.

    :param inbox: nothing lands there either, where it is beside the warehouse or in it: it would be read as an event.
    :raises RefusedError: the name may not be a key, the key is too long, or it is the ledger's or the inbox's.
    """
    key = format_landing_key(
        template,
        {
            "filename": clean_filename(filename),
            "kind": kind.value,
            "egress_id": egress_id,
            "started_at": run,
            "started": started,
            "room_name": _segment(room_name),
            "room_id": _segment(room_id),
        },
    )
    uri = join_uri(warehouse, key)
    if len(split_uri(uri)[1].encode()) > MAX_KEY_BYTES:
        raise RefusedError(f"{quoted(filename)} makes a key of over {MAX_KEY_BYTES} bytes")
    if f"{uri}/".startswith(f"{ledger}/"):
        raise RefusedError(f"{quoted(filename)} would land in the ledger")
    if inbox and not f"{warehouse}/".startswith(f"{inbox}/") and f"{uri}/".startswith(f"{inbox}/"):
        raise RefusedError(f"{quoted(filename)} would land in the inbox")
    return uri


def beside(file: RecordingFile, upload: Upload) -> RecordingFile:
    """Return the file with a landing key of its own, named after its content: the key that it should have is taken."""
    digest = upload.sha256 or (upload.etag or upload.source_etag).partition("-")[0]
    mark = digest[:12] or hashlib.sha256(repr(file.key).encode(errors="backslashreplace")).hexdigest()[:12]
    stem, ending = _parted(file.landing_uri)
    return file.model_copy(update={"landing_uri": f"{stem}~{mark}{ending}", "is_beside": True})


def beside_prefix(uri: str) -> str:
    """Return what the URIs of all objects begin with that landed beside this one."""
    return f"{_parted(uri)[0]}~"


def _parted(uri: str) -> tuple[str, str]:
    folder, slash, name = uri.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    return (f"{folder}{slash}{stem}", f".{ending}") if dot and stem else (uri, "")


def _segment(text: str) -> str:
    """Return a room's name or id as one path segment: what is not a word becomes ``_``."""
    kept = "".join(char if char.isalnum() or char in "-_. " else "_" for char in text.strip())
    return kept if kept.strip(". ") else "_"
