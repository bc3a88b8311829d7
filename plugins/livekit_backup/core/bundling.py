"""Which files share a task: HLS segments and images, and all files once there are more than Airflow maps over."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby

from livekit_backup.core.wording import FOREVER, hours_left, readable_size
from livekit_backup.models.bundle import Bundle
from livekit_backup.models.references import FileKind, RecordingFile
from livekit_backup.models.settings import Settings
from livekit_backup.models.store_abilities import StoreAbilities

UNKNOWN_SIZE = 2 * 1024 * 1024
"""What a file counts for that the event gives no size of: six seconds of video at 3 Mbit/s, LiveKit's default."""

_SMALL = frozenset({FileKind.SEGMENT, FileKind.PLAYLIST, FileKind.IMAGE})


def capacity(settings: Settings, most: int) -> int:
    """Return how many files one run can take, with at most ``most`` tasks."""
    return most * settings.bundle_files


def bundle(
    files: Sequence[RecordingFile],
    settings: Settings,
    most: int,
    now: datetime,
    abilities: StoreAbilities | None = None,
) -> list[Bundle]:
    """Return the bundles of a run, the nearest deadline first.

    Segments, playlists and images are bundled, those of one egress together as far as they fit; any other
    file has a task of its own. With more bundles than ``most``, all kinds are bundled; and with more still,
    by number alone, since tasks are what is scarce.

    :param files: the nearest deadline first, not more than :func:`capacity`.
    :param abilities: the warehouse's.
    """
    if settings.bundle_files == 1:
        packed = [[file] for file in files]
    else:
        packed = [[file] for file in files if file.kind not in _SMALL]
        packed += _pack([file for file in files if file.kind in _SMALL], settings)
    if len(packed) > most:
        packed = list(_pack(files, settings))
    if len(packed) > most:
        count = -(-len(files) // most)
        packed = [list(files[start : start + count]) for start in range(0, len(files), count)]
    return [_bundle(members, now, abilities) for members in sorted(packed, key=_urgency)]


def _pack(files: Iterable[RecordingFile], settings: Settings) -> Iterator[list[RecordingFile]]:
    """Fill bundles one after the other; an egress begins a new one rather than be cut, where it fits into one."""
    packed: list[RecordingFile] = []
    taken = 0
    for members in _of_egresses(files):
        size = sum(map(_size, members))
        fits_alone = len(members) <= settings.bundle_files and size <= settings.bundle_bytes
        fits_here = len(packed) + len(members) <= settings.bundle_files and taken + size <= settings.bundle_bytes
        if packed and not fits_here and fits_alone:
            yield packed
            packed, taken = [], 0
        for file in members:
            is_full = len(packed) == settings.bundle_files or taken + _size(file) > settings.bundle_bytes
            if packed and is_full:
                yield packed
                packed, taken = [], 0
            packed.append(file)
            taken += _size(file)
    if packed:
        yield packed


def _of_egresses(files: Iterable[RecordingFile]) -> list[list[RecordingFile]]:
    """Return the files by egress and run, the egress with the nearest deadline first."""
    by_egress = sorted(files, key=lambda file: (file.egress_id, file.run))
    groups = (list(members) for _, members in groupby(by_egress, key=lambda file: (file.egress_id, file.run)))
    return sorted(groups, key=_urgency)


def _size(file: RecordingFile) -> int:
    return UNKNOWN_SIZE if file.size is None else file.size


def _urgency(files: Sequence[RecordingFile]) -> tuple[datetime, str, int, str]:
    first = min(files, key=lambda file: (file.deadline or FOREVER, file.egress_id, file.run, file.filename))
    return first.deadline or FOREVER, first.egress_id, first.run, first.filename


def _bundle(files: Sequence[RecordingFile], now: datetime, abilities: StoreAbilities | None) -> Bundle:
    digest = hashlib.sha256()
    for file in files:
        digest.update(repr(file.key).encode(errors="backslashreplace"))
    return Bundle(bundle_id=digest.hexdigest()[:16], label=_label(files, now), files=tuple(files), abilities=abilities)


def _label(files: Sequence[RecordingFile], now: datetime) -> str:
    if len(files) == 1:
        return files[0].label
    egresses = {(file.egress_id, file.run) for file in files}
    room = files[0].room_name or files[0].egress_id
    whose = room if len(egresses) == 1 else f"{len(egresses)} recordings"
    parts = ["".join(char for char in whose if char.isprintable())[:80], f"{len(files)} files"]
    if all(file.size for file in files):
        parts.append(readable_size(sum(map(_size, files))))
    left = hours_left(min(file.deadline or FOREVER for file in files), now)
    if any(file.deadline for file in files) and left is not None:
        parts.append(f"{left:.0f} h left")
    return " · ".join(parts)
