"""Makes an event of a link that a person has: a manifest's, or a file's as LiveKit's dashboard shows it."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Any

from livekit_backup.core.locations import Location
from livekit_backup.core.resolution import FetchManifest
from livekit_backup.core.source_answers import has_expired
from livekit_backup.core.wording import quoted
from livekit_backup.errors import LinkExpiredError, RefusedError
from livekit_backup.models.egress import EGRESS_ID
from livekit_backup.models.references import BackupRef
from livekit_backup.models.settings import BACKUP_LIFETIME
from livekit_backup.models.stored_webhook import EventSource

_FLOAT_SPACING = 256
"""Nanoseconds; a manifest may hold its times as floats."""
_EGRESS_ID = re.compile(r"EG_[A-Za-z0-9]{1,120}")


def event_of_link(
    link: str, fetch: FetchManifest, *, egress_id: str = "", run: int = 0, filename: str = ""
) -> tuple[BackupRef, str]:
    """Return the backup that a link stands for, and the event that leads to it; only the event holds the link.

    A manifest says itself whose it is. A file's link does not: without an egress id it gets one that is made of
    its path, so that the same link is the same recording.

    :param run: the egress's ``startedAt``, nanoseconds, where it is known.
    :param filename: the file's name, where it shall be another than the link's path.
    :raises RefusedError: it is no signed URL, its host may not be fetched from, or its manifest names no egress.
    :raises LinkExpiredError: its time is over.
    :raises SourceUnavailableError, MissingError, UnresolvedError, AccessDeniedError: of a manifest that cannot be read.
    """
    location = Location(link)
    if not location.is_signed:
        raise RefusedError(
            f"{location.name} is not a signed URL: give the whole link, with all behind its question mark"
        )
    if has_expired(location, datetime.now(UTC)):
        raise LinkExpiredError(f"the link expired {location.deadline:%Y-%m-%d %H:%M} UTC: {location.name}")
    ended = _nanoseconds(location.deadline - BACKUP_LIFETIME) if location.deadline else 0
    info: dict[str, Any] = {"status": "EGRESS_COMPLETE", "backup_storage_used": True}
    if location.path.endswith(".json") and not filename:
        manifest = fetch(location)
        info |= {"manifest_location": location.url, "room_id": manifest.room_id, "room_name": manifest.room_name}
        egress_id = manifest.egress_id or egress_id or _named_in(location)
        if abs(manifest.started_at - run) > _FLOAT_SPACING:
            run = manifest.started_at or run
        ended = manifest.ended_at or ended
    else:
        name = filename or location.file_name
        info["file_results"] = [{"filename": name, "location": location.url}]
        egress_id = egress_id or _made_of(location)
    if not re.fullmatch(EGRESS_ID, egress_id):
        raise RefusedError(f"{location.name} belongs to {quoted(egress_id, 80)}, which is no egress id")
    run = run or ended
    info |= {"egress_id": egress_id, "started_at": str(run), "ended_at": str(ended)}
    ref = BackupRef(
        egress_id=egress_id,
        run=run,
        room_name=str(info.get("room_name", "")),
        events=(),
        ended_at=ended,
        brought_by=EventSource.LINK,
    )
    return ref, json.dumps(info, separators=(",", ":"))


def _named_in(location: Location) -> str:
    """LiveKit stores a manifest as ``<egress id>.json``."""
    found = _EGRESS_ID.fullmatch(location.key_path.rpartition("/")[2].removesuffix(".json"))
    return found.group() if found else _made_of(location)


def _made_of(location: Location) -> str:
    return f"LINK_{hashlib.sha256(location.name.encode()).hexdigest()[:24]}"


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9
