"""A busy project's day of webhooks: its sizes and kinds are those of LiveKit's events, its ids are made up.

A round of 1,000 events has one backup and one egress that failed without; the rest are rooms, participants and
tracks, and egresses that went well. Rounds repeat with other ids of the same length.
"""

from __future__ import annotations

import json
import random
import string
from functools import cache
from typing import Any

ROUND = 1000
BACKUPS_A_ROUND = 1
_ROUND_MARK = b"ROUNDMARK0"
_CODECS = [{"mime": mime} for mime in ("video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red")]


@cache
def _template() -> tuple[bytes, ...]:
    """Return the lines of one round."""
    rng = random.Random(4)
    lines = []
    for number in range(ROUND):
        event = _egress(rng, number) if number % 50 == 7 else _room_event(rng)
        lines.append(json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return tuple(lines)


@cache
def _between_marks() -> list[bytes]:
    return b"".join(_template()).split(_ROUND_MARK)


def lines_of_round(number: int) -> bytes:
    """Return 1,000 events as JSON Lines."""
    return (b"%010d" % number).join(_between_marks())


def event_line(number: int) -> bytes:
    """Return one event of the day."""
    return _template()[number % ROUND].replace(_ROUND_MARK, b"%010d" % (number // ROUND))


def _room_event(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(
        ["participant_joined", "participant_left", "track_published", "track_unpublished", "room_started"]
    )
    event: dict[str, Any] = {"event": kind, "room": _room(rng)}
    if kind != "room_started":
        event["participant"] = _participant(rng)
    if kind.startswith("track"):
        event["track"] = {
            "sid": _id(rng, "TR_"), "type": "VIDEO", "name": "camera", "width": 1280, "height": 720, "simulcast": True,
            "source": "CAMERA", "mimeType": "video/VP8", "mid": "1", "stream": "camera",
            "layers": [{"quality": "LOW", "width": 320, "height": 180, "bitrate": 120000, "ssrc": 1862}],
        }  # fmt: skip
    return {**event, "id": _id(rng, "EV_"), "createdAt": str(rng.randrange(1_795_000_000, 1_796_000_000))}


def _room(rng: random.Random) -> dict[str, Any]:
    return {
        "sid": _id(rng, "RM_"), "name": f"consultation-{rng.randrange(10**6)}", "emptyTimeout": 300,
        "departureTimeout": 20, "creationTime": "1795200000", "creationTimeMs": "1795200000123",
        "enabledCodecs": _CODECS, "numParticipants": 2, "numPublishers": 1,
        "metadata": json.dumps({"tenant": _id(rng, "t"), "plan": "pro"}),
    }  # fmt: skip


def _participant(rng: random.Random) -> dict[str, Any]:
    return {
        "sid": _id(rng, "PA_"), "identity": _id(rng, "user-"), "state": "ACTIVE", "joinedAt": "1795200001",
        "joinedAtMs": "1795200001456", "name": rng.choice(["Zoë Müller", "John Smith", "José", "Ana"]), "version": 7,
        "permission": {"canSubscribe": True, "canPublish": True, "canPublishData": True}, "region": "eu-central",
        "isPublisher": True, "metadata": json.dumps({"role": "guest"}), "attributes": {"lang": "de"},
    }  # fmt: skip


def _egress(rng: random.Random, number: int) -> dict[str, Any]:
    egress_id = f"EG_{_ROUND_MARK.decode()}{number}"
    location = f"https://livekit-egress.s3.amazonaws.com/{egress_id}.mp4?X-Amz-Signature={rng.randbytes(32).hex()}"
    file = {
        "filename": f"{egress_id}.mp4",
        "startedAt": "1795200000000000000",
        "size": "61941096",
        "location": location,
    }
    info: dict[str, Any] = {
        "egressId": egress_id, "roomId": _id(rng, "RM_"), "roomName": f"consultation-{number}",
        "status": "EGRESS_FAILED" if number == 57 else "EGRESS_COMPLETE", "startedAt": "1795200000000000000",
        "endedAt": "1795200600000000000", "updatedAt": "1795200601000000000", "fileResults": [file], "file": file,
    }  # fmt: skip
    if number == 7:
        info |= {"backupStorageUsed": True, "manifestLocation": location}
    return {"event": "egress_ended", "egressInfo": info, "id": _id(rng, "EV_"), "createdAt": "1795200601"}


def _id(rng: random.Random, prefix: str) -> str:
    return prefix + "".join(rng.choices(string.ascii_letters + string.digits, k=12))
