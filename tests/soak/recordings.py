"""What LiveKit's backup holds in one run, and what must become of each file: chosen by the seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from random import Random
from typing import Any

from livekit_backup.core.etags import WHOLE, multipart_etag

from .simulated_time import BEGIN

PART = 4096
"""Stands for LiveKit's 5 MiB."""
SMALL = 3000
"""Stands for the 8 MiB up to which a file is held in memory."""
HOST, ELSEWHERE, OWN = "backup.example", "elsewhere.example", "acme.s3.amazonaws.com"
TOKEN = "5ec2e7" * 8
"""Stands in every signature: where it shows, a link has leaked."""
SIGNED_BEFORE = timedelta(days=3)
FRESH_UNTIL = BEGIN + timedelta(days=30)

_TIMES = tuple(int((BEGIN - SIGNED_BEFORE - timedelta(hours=hours)).timestamp()) * 10**9 for hours in (1, 0))
"""When each recording began and ended."""

FATES = {
    "fine": 60,
    "gone": 3,
    "dead before": 3,
    "dies": 6,
    "dies, and there is a fresh link": 6,
    "wrong bytes": 5,
    "wrong size": 4,
    "redirects": 2,
    "elsewhere": 2,
    "denied": 3,
    "down": 3,
    "a page": 3,
    "encoded": 3,
    "no length": 3,
}
"""What a file's home does for ever, and how likely."""
STYLES = {"md5": 10, "another writer's": 2, "odd parts": 1, "kms": 2, "dated": 2, "weak": 1, "nothing": 1}
"""What the home says of a version."""


@dataclass(eq=False)
class Truth:
    """A file as it really is."""

    name: str
    data: bytes
    fate: str = "fine"
    style: str = "md5"
    kind: str = "file"
    host: str = HOST
    path: str = ""
    deadline: datetime = BEGIN
    size_in_event: int | None = None
    is_renewed: bool = False
    """Whether the manifest has a fresh link by now."""
    died: bool = False

    @property
    def is_unsigned(self) -> bool:
        return self.host == OWN

    @property
    def proves(self) -> bool:
        """Whether another ETag means wrong bytes, so that no wrong byte of it may ever land."""
        return self.style == "md5"

    @property
    def can_be_proven(self) -> bool:
        """Whether right bytes can be known by the source's ETag."""
        is_one_put = self.style == "odd parts" and len(self.data) <= PART + 100
        return self.style in ("md5", "another writer's") or is_one_put

    def link(self) -> str:
        if self.is_unsigned:
            return f"https://{OWN}/{self.path}"
        fresh = self.is_renewed
        signed = (FRESH_UNTIL if fresh else self.deadline) - timedelta(days=7)
        return (
            f"http://{self.host}/{self.path}?X-Amz-Date={signed:%Y%m%dT%H%M%SZ}&X-Amz-Expires=604800"
            f"&X-Amz-Signature={TOKEN}{'&fresh=1' if fresh else ''}"
        )

    def etag(self) -> str:
        data, parts = self.data, PART
        if self.style == "another writer's":
            parts = 2 * PART
        elif self.style == "odd parts":
            parts = PART + 100
        elif self.style == "kms":
            return hashlib.sha256(data).hexdigest()[:32]
        elif self.style in ("dated", "nothing"):
            return ""
        if len(data) <= parts:
            return hashlib.md5(data).hexdigest()
        pieces = [data[start : start + parts] for start in range(0, len(data), parts)]
        return multipart_etag(hashlib.md5(piece).digest() for piece in pieces)

    def headers(self) -> dict[str, str]:
        """What the home says of the version."""
        etag = self.etag()
        headers = {}
        if etag:
            headers["ETag"] = f'W/"{etag}"' if self.style == "weak" else f'"{etag}"'
        if self.style != "nothing":
            headers["Last-Modified"] = format_datetime(BEGIN - SIGNED_BEFORE, usegmt=True)
        if self.style == "kms":
            headers["x-amz-server-side-encryption"] = "aws:kms"
        return headers

    def other_headers(self) -> dict[str, str]:
        """What it says of a version that is another, once: as of one PUT, so that no byte here is proven by it."""
        other = hashlib.md5(self.data + b"before").hexdigest()
        return {"ETag": f'"{other}"', "Last-Modified": format_datetime(BEGIN - 2 * SIGNED_BEFORE, usegmt=True)}


@dataclass
class Backup:
    """One egress, and all its files."""

    egress_id: str
    started: int
    ended: int
    files: list[Truth]
    manifest: str = "there"
    """there, absent, gone, dead, not a manifest, or another's."""
    shape: str = "file"
    live_playlist: Truth | None = None
    path: str = ""

    @property
    def deadline(self) -> datetime:
        """Of the manifest's own link."""
        return BEGIN - timedelta(days=1) if self.manifest == "dead" else BEGIN - SIGNED_BEFORE + timedelta(days=7)

    @property
    def manifest_link(self) -> str:
        signed = self.deadline - timedelta(days=7)
        return (
            f"http://{HOST}/{self.path}?X-Amz-Date={signed:%Y%m%dT%H%M%SZ}&X-Amz-Expires=604800&X-Amz-Signature={TOKEN}"
        )

    def event(self) -> dict[str, Any]:
        """The webhook that LiveKit sent."""
        info: dict[str, Any] = {
            "egressId": self.egress_id,
            "roomName": f"room {self.egress_id}",
            "status": "EGRESS_COMPLETE",
            "startedAt": str(self.started),
            "endedAt": str(self.ended),
            "backupStorageUsed": True,
        }
        if self.manifest != "absent":
            info["manifestLocation"] = self.manifest_link
        if self.shape == "file":
            info["fileResults"] = [
                {
                    "filename": file.name,
                    "location": file.link(),
                    "size": str(len(file.data) if file.size_in_event is None else file.size_in_event),
                }
                for file in self.files
            ]
        elif self.shape == "hls":
            segments = [file for file in self.files if file.kind == "segment"]
            playlist = next(file for file in self.files if file.kind == "playlist")
            result = {
                "playlistName": playlist.name,
                "playlistLocation": playlist.link(),
                "segmentCount": str(len(segments)),
                "size": str(sum(len(file.data) for file in segments)),
            }
            if self.live_playlist:
                result |= {
                    "livePlaylistName": self.live_playlist.name,
                    "livePlaylistLocation": self.live_playlist.link(),
                }
            info["segmentResults"] = [result]
        else:
            prefix = f"{self.egress_id}/image"
            info["imageResults"] = [{"filenamePrefix": prefix, "imageCount": str(len(self.files))}]
        return {"event": "egress_ended", "id": f"EV_{self.egress_id}", "egressInfo": info}

    def manifest_body(self) -> bytes:
        """The manifest as it lies at the home now."""

        def entry(file: Truth) -> dict[str, str]:
            return {"filename": file.name, "location": file.link()}

        body: dict[str, Any] = {
            "egress_id": "EG_another" if self.manifest == "another's" else self.egress_id,
            "started_at": self.started,
            "ended_at": self.ended,
        }
        if self.shape == "file":
            body["files"] = [entry(file) for file in self.files]
        elif self.shape == "hls":
            playlist = next(file for file in self.files if file.kind == "playlist")
            segments = [entry(file) for file in self.files if file.kind == "segment"]
            body["playlists"] = [{"location": playlist.link(), "segments": segments}]
        else:
            body["images"] = [entry(file) for file in self.files]
        return json.dumps(body).encode()


@dataclass
class World:
    """All that is there before anything runs."""

    backups: list[Backup] = field(default_factory=list)

    def files(self) -> list[tuple[Backup, Truth]]:
        return [(backup, file) for backup in self.backups for file in backup.files]


def make_world(rng: Random, sizes: Sequence[int], styles: Sequence[str]) -> World:
    """Make a backup without a fate, so that there is something to break, and none to three more.

    :param sizes: that its file may have.
    :param styles: of what its home says of it.
    """
    world = World()
    sound = Backup(f"EG_{rng.randrange(10**6):06d}_", *_TIMES, [], path="sound/manifest.json")
    size = rng.choice(sizes)
    name = f"{sound.egress_id}/sound.mp4"
    sound.files = [
        Truth(name, rng.randbytes(size), path=f"kept/{name}", deadline=BEGIN - SIGNED_BEFORE + timedelta(days=7))
    ]
    world.backups.append(sound)
    for number in range(rng.choice((0, 1, 1, 1, 2, 3))):
        world.backups.append(_backup(rng, f"EG_{rng.randrange(10**6):06d}{number}"))
    return world


def _backup(rng: Random, egress_id: str) -> Backup:
    shape = rng.choices(("file", "hls", "images"), (6, 3, 1))[0]
    backup = Backup(
        egress_id,
        *_TIMES,
        [],
        manifest=rng.choices(("there", "absent", "gone", "dead", "not a manifest", "another's"), (80, 5, 3, 3, 3, 2))[
            0
        ],
        shape=shape,
        path=f"{egress_id}/{egress_id}.json",
    )
    if shape == "file":
        backup.files = [_file(rng, f"{egress_id}/{n}.mp4", "file") for n in range(rng.choice((1, 1, 2)))]
    elif shape == "hls":
        count = rng.choice((2, 5, 9))
        backup.files = [_file(rng, f"{egress_id}/s_{n:05d}.ts", "segment") for n in range(count)]
        backup.files.append(_file(rng, f"{egress_id}/index.m3u8", "playlist"))
        if rng.random() < 0.5:
            backup.live_playlist = _file(rng, f"{egress_id}/live.m3u8", "playlist")
            backup.files.append(backup.live_playlist)
    else:
        backup.files = [_file(rng, f"{egress_id}/image_{n}.jpeg", "image") for n in range(rng.choice((1, 4)))]
    return backup


def _file(rng: Random, name: str, kind: str) -> Truth:
    sizes = (0, 1, SMALL, SMALL + 1, PART, PART + 1, 2 * PART, 3 * PART, 5 * PART + 7)
    size = rng.choice(sizes) if rng.random() < 0.6 else rng.randrange(0, 8 * PART)
    if kind != "file" and rng.random() < 0.8:
        size = rng.randrange(0, SMALL)
    truth = Truth(name, rng.randbytes(size), kind=kind, path=f"kept/{name}")
    truth.fate = rng.choices(list(FATES), list(FATES.values()))[0]
    truth.style = rng.choices(list(STYLES), list(STYLES.values()))[0]
    truth.deadline = BEGIN - SIGNED_BEFORE + timedelta(days=7)
    if truth.style == "odd parts" and -(-size // PART) == -(-size // (PART + 100)):
        # As many parts as LiveKit's own would be: that nobody else writes there is what the core goes by.
        truth.style = "md5"
    if truth.fate == "fine" and rng.random() < 0.08:
        truth.host, truth.style = OWN, "md5"
    if truth.fate == "dead before":
        truth.deadline = BEGIN - timedelta(days=1)
    elif truth.fate == "elsewhere":
        truth.host = ELSEWHERE
    elif truth.fate == "wrong bytes":
        truth.style = "md5"
        truth.data = truth.data or b"x"
    elif truth.fate == "wrong size":
        if kind == "file":
            truth.size_in_event = len(truth.data) + 1
        else:
            truth.fate = "fine"
    return truth


__all__ = ["PART", "SMALL", "TOKEN", "WHOLE", "Backup", "Truth", "World", "make_world"]
