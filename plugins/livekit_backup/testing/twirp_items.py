"""An EgressInfo as Twirp's JSON has it: snake_case, zero values printed, int64 as strings, the request part in it."""

from __future__ import annotations

import copy
import re
from typing import Any

Json = dict[str, Any]

_REQUESTS = ("room_composite", "web", "participant", "track_composite", "track")
_FILE: Json = {"filename": "", "started_at": "0", "ended_at": "0", "duration": "0", "size": "0", "location": ""}
_SEGMENTS: Json = {
    "playlist_name": "",
    "live_playlist_name": "",
    "duration": "0",
    "size": "0",
    "playlist_location": "",
    "live_playlist_location": "",
    "segment_count": "0",
    "started_at": "0",
    "ended_at": "0",
}
_IMAGES: Json = {"filename_prefix": "", "image_count": "0", "started_at": "0", "ended_at": "0"}
_INFO: Json = {
    "egress_id": "",
    "room_id": "",
    "room_name": "",
    "source_type": "EGRESS_SOURCE_TYPE_WEB",
    "status": "EGRESS_STARTING",
    "started_at": "0",
    "ended_at": "0",
    "updated_at": "0",
    "details": "",
    "error": "",
    "error_code": 0,
    "stream_results": [],
    "file_results": [],
    "segment_results": [],
    "image_results": [],
    "manifest_location": "",
    "backup_storage_used": False,
    "retry_count": 0,
}
_RESULTS = {"file_results": _FILE, "segment_results": _SEGMENTS, "image_results": _IMAGES}
_SINGLE = {"file": _FILE, "segments": _SEGMENTS}


def twirp_item(info: Json, storage_secret: str) -> Json:
    """Return an EgressInfo, given in either spelling, as the API lists it.

    Args:
        storage_secret: what the request part has as the secret of the customer's bucket.
    """
    item = {**copy.deepcopy(_INFO), **_snake(info)}
    for name, defaults in _RESULTS.items():
        item[name] = [{**defaults, **result} for result in item[name]]
    for name, defaults in _SINGLE.items():
        if name in item:
            item[name] = {**defaults, **item[name]}
    if not any(name in item for name in _REQUESTS):
        output = {"filepath": "recording.mp4", "s3": {"access_key": "AKIA", "secret": "", "bucket": "acme"}}
        item["room_composite"] = {"room_name": item["room_name"], "file_outputs": [output]}
    for name in _REQUESTS:
        if name in item:
            item[name] = _with_secret(item[name], storage_secret)
    return item


def _snake(value: Any) -> Any:
    if isinstance(value, dict):
        return {re.sub(r"(?<!^)([A-Z])", r"_\1", key).lower(): _snake(inner) for key, inner in value.items()}
    return [_snake(inner) for inner in value] if isinstance(value, list) else value


def _with_secret(value: Any, secret: str) -> Any:
    if isinstance(value, dict):
        return {key: secret if key == "secret" else _with_secret(inner, secret) for key, inner in value.items()}
    return [_with_secret(inner, secret) for inner in value] if isinstance(value, list) else value
