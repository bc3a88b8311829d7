"""Recordings: an egress that ended, and the events and manifest in which LiveKit tells of it.

The shapes are those of ``EgressInfo`` and ``WebhookEvent`` (livekit/protocol) as protojson
writes them, and of the manifest (livekit/egress, ``pkg/config/manifest.go``).
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import importlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict
from urllib.parse import quote

from livekit_backup.testing.stored_objects import StoredObject
from livekit_backup.testing.synthetic_bytes import LiteralBytes

Json = dict[str, Any]
Layout = Literal["json", "pretty", "jsonl", "array", "gzip", "zstd"]

SUFFIXES = {"jsonl": ".jsonl", "gzip": ".json.gz", "zstd": ".json.zst"}
"""How the keys of the layouts end that are not simply ``.json``."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)

_ENDINGS: dict[str, tuple[str, int, str]] = {
    "EGRESS_FAILED": ("pipeline frozen", 500, "Failure"),
    "EGRESS_ABORTED": ("Start signal not received", 412, "Failure"),
    "EGRESS_LIMIT_REACHED": ("Session limit reached", 413, "Session limit reached"),
}
"""Error, error code and end reason of the statuses that have them."""

_LOCATIONS = {
    "location": "filename",
    "playlistLocation": "playlistName",
    "livePlaylistLocation": "livePlaylistName",
}


class RecordingOptions(TypedDict, total=False):
    """What every kind of recording can be told; the rest is made up, alike in every run."""

    egress_id: str
    room_name: str
    room_id: str
    started_at: datetime
    ended_at: datetime
    uploaded_at: datetime
    """When the seven days of the last file's URL begin: eight days ago, and it has expired."""


@dataclass(frozen=True, kw_only=True)
class Egress:
    """What all files of one egress have in common."""

    egress_id: str
    room_name: str
    room_id: str
    started_at: datetime
    ended_at: datetime
    uploaded_at: datetime
    primary_url: str = ""

    @property
    def span(self) -> Json:
        """When the output began and ended. It begins a little after the egress itself."""
        started, ended = _ns(self.started_at + 2 * _SECOND), _ns(self.ended_at)
        return {"startedAt": str(started), "endedAt": str(ended), "duration": str(ended - started)}

    def upload_time(self, nth: int, count: int) -> datetime:
        """Segments and images are uploaded as they are made: early URLs end early."""
        return self.started_at + (self.uploaded_at - self.started_at) * (nth + 1) / count


@dataclass(frozen=True, kw_only=True)
class Recording(Egress):
    """One egress that ended, with all that LiveKit says about it."""

    kind: Literal["file", "segments", "image"]
    files: Mapping[str, StoredObject]
    """By filename, in the order of the manifest."""
    manifest_object: StoredObject
    source_type: str = ""
    _request: Json = field(repr=False)
    _result: Json = field(repr=False)
    _manifest: Json = field(repr=False)

    def sha256(self, filename: str) -> str:
        """The SHA-256 of a file as it should arrive."""
        return self.files[filename].sha256

    def manifest(self) -> Json:
        """The manifest behind ``manifestLocation``."""
        return copy.deepcopy(self._manifest)

    def event(
        self,
        event: str = "egress_ended",
        *,
        status: str = "EGRESS_COMPLETE",
        backup_storage_used: bool = True,
        with_manifest: bool | None = None,
        event_id: str | None = None,
    ) -> Json:
        """A webhook event in protojson: camelCase, int64 as strings, defaults left out.

        Args:
            status: also ``EGRESS_FAILED``, ``EGRESS_LIMIT_REACHED``, ``EGRESS_ABORTED`` or, for
                ``egress_updated``, ``EGRESS_ENDING``.
            backup_storage_used: False for an egress whose upload went well (or, when it failed
                or was aborted, had nothing to upload): its locations are unsigned.
            with_manifest: by default as LiveKit does: none when the egress failed or still runs.
            event_id: LiveKit gives every repetition of an event another one.
        """
        ended = self.ended_at if status != "EGRESS_ENDING" else self.started_at
        body = {
            "event": event,
            "room": without_defaults({"sid": self.room_id, "name": self.room_name}),
            "id": event_id or f"EV_{token_of(f'event/{self.egress_id}')}",
            "createdAt": str(_ns(max(ended, self.uploaded_at) + _SECOND) // 10**9),
            "egressInfo": self._info(status, backed_up=backup_storage_used, with_manifest=with_manifest),
        }
        return without_defaults(copy.deepcopy(body))

    def _info(self, status: str, *, backed_up: bool, with_manifest: bool | None) -> Json:
        unfinished = status in ("EGRESS_FAILED", "EGRESS_ABORTED", "EGRESS_ENDING")
        error, error_code, reason = _ENDINGS.get(
            status, ("", 0, "Source closed" if "track" in self._request else "StopEgress API")
        )
        result = self._result if backed_up else self._result_without_backup(lost=unfinished)
        info = {
            "egressId": self.egress_id,
            "roomId": self.room_id,
            "status": status,
            **self._request,
            "error": error,
            "startedAt": str(_ns(self.started_at)),
            "endedAt": "" if status == "EGRESS_ENDING" else str(_ns(self.ended_at)),
            "roomName": self.room_name,
            "updatedAt": str(_ns(max(self.ended_at, self.uploaded_at)) + 466_498_851),
            f"{self.kind.removesuffix('s')}Results": [result],
            "details": f"End reason: {reason}",
            "errorCode": error_code,
            "backupStorageUsed": backed_up,
            "sourceType": self.source_type,
        }
        if self.kind != "image":
            info[self.kind] = result
        if with_manifest if with_manifest is not None else not unfinished:
            key = self.manifest_object.filename
            info["manifestLocation"] = self.manifest_object.url() if backed_up else self._primary(key)
        return without_defaults(info)

    def _result_without_backup(self, *, lost: bool) -> Json:
        result = dict(self._result)
        if lost:
            result.pop("size", None)
        for location, name in _LOCATIONS.items():
            if result.pop(location, None) and not lost:
                result[location] = self._primary(result[name])
        return result

    def _primary(self, filename: str) -> str:
        return f"{self.primary_url}/{quote(filename)}"


def _ns(moment: datetime) -> int:
    # A real clock's last digits, so that a float on the way shows.
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + 371


def token_of(seed: str) -> str:
    """The random part of an id, alike in every run."""
    return hashlib.sha256(seed.encode()).hexdigest()[:12]


def manifest_of(egress: Egress, listed: Json) -> Json:
    """The manifest of an egress that ``listed`` what it stored."""
    return without_defaults(
        {
            "egress_id": egress.egress_id,
            "room_id": egress.room_id,
            "room_name": egress.room_name,
            "url": listed.pop("url", ""),
            "started_at": _ns(egress.started_at),
            "ended_at": _ns(egress.ended_at),
            **listed,
        }
    )


def entry_of(stored: StoredObject) -> Json:
    """A file as the manifest lists it."""
    return {"filename": stored.filename, "location": stored.url()}


def without_defaults(value: Json) -> Json:
    """What protojson writes: a field with its default value is left out."""
    inner = {key: without_defaults(item) if isinstance(item, dict) else item for key, item in value.items()}
    return {key: item for key, item in inner.items() if item not in ("", "0", 0, False, [], {}, None)}


def upload_order(segments: int, in_primary: int, seed: str) -> list[int]:
    """The segments' numbers as their uploads end: out of order, once they go to backup."""
    late = list(range(in_primary, segments))
    random.Random(seed).shuffle(late)
    if late == sorted(late):
        late.reverse()
    return [*range(in_primary), *late]


def playlist_of(first: int, stop: int) -> LiteralBytes:
    """An HLS playlist of the segments from ``first`` to before ``stop``."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:6", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
    for index in range(first, stop):
        lines += ["#EXTINF:6.000,", f"seg_{index:05d}.ts"]
    return LiteralBytes("\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode())


def laid_out(events: Sequence[Json], format: Layout) -> bytes:
    """Events as the bytes of one object in an inbox."""
    compact = [json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() for event in events]
    match format:
        case "jsonl":
            return b"".join(line + b"\n" for line in compact)
        case "array":
            return b"[" + b",".join(compact) + b"]"
        case "pretty":
            return json.dumps(events[0], ensure_ascii=False, indent=2).encode()
        case "gzip":
            return gzip.compress(compact[0], mtime=0)
        case "zstd":
            return bytes(importlib.import_module("zstandard").ZstdCompressor().compress(compact[0]))
    return compact[0]
