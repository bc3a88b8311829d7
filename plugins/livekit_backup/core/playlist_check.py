"""Whether an HLS playlist is whole and in order, and whether its backup has what it names.

Source: RFC 8216, and what livekit/egress writes (``pkg/pipeline/sink/m3u8``): names of segments relative to the
playlist, numbered or with the time at their end, each with its ``EXTINF``; ``EXT-X-ENDLIST`` when it has ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from livekit_backup.core.wording import quoted

MOST_BYTES = 16 * 1024 * 1024
"""Of a playlist: 100,000 segments take about 10 MiB."""

_NUMBER = re.compile(r"(\d{1,40})\D*$")
_SECONDS = re.compile(r"^#EXTINF:(\d{1,9}(?:\.\d{1,12})?)(?:,|$)")
_SEQUENCE = re.compile(r"^#EXT-X-MEDIA-SEQUENCE:(\d{1,18})$")
_TIME = "#EXT-X-PROGRAM-DATE-TIME:"


@dataclass(frozen=True)
class PlaylistLook:
    """What a playlist says."""

    wrong: tuple[str, ...] = ()
    """Each in half a sentence about the file."""
    seconds: float | None = None
    """All its segments together; None of a live one, which names only the newest."""


def look_at_playlist(text: bytes, beside: Iterable[str] | None = None, *, all_are_its: bool = False) -> PlaylistLook:
    """Look at a playlist.

    :param beside: names of the segments that the backup has in the playlist's folder; None where they are not known.
    :param all_are_its: no other playlist names any of them.
    """
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines()]
    if not lines or lines[0] != "#EXTM3U":
        return PlaylistLook(("it does not begin as a playlist does",))
    segments = [line for line in lines if line and not line.startswith("#")]
    wrong = []
    is_live = any((found := _SEQUENCE.match(line)) and int(found.group(1)) > 0 for line in lines)
    if "#EXT-X-ENDLIST" not in lines and not is_live:
        wrong.append("it was not ended: it has no EXT-X-ENDLIST")
    if not segments:
        wrong.append("it names no segment")
    seconds, untold = _total_seconds(lines)
    if untold:
        wrong.append(f"{untold} of {len(segments)} segments have no EXTINF before them")
    wrong += _out_of_order(segments, lines)
    if beside is not None:
        wrong += _strangers(segments, set(beside), all_are_its=all_are_its and not is_live)
    return PlaylistLook(tuple(wrong), seconds if segments and not is_live else None)


def _total_seconds(lines: Sequence[str]) -> tuple[float, int]:
    """Return the seconds of all segments, and how many have none said before them."""
    total, untold, told = 0.0, 0, False
    for line in lines:
        if found := _SECONDS.match(line):
            total, told = total + float(found.group(1)), True
        elif line and not line.startswith("#"):
            untold, told = untold + (not told), False
    return total, untold


def _out_of_order(segments: Sequence[str], lines: Sequence[str]) -> list[str]:
    wrong = []
    if twice := len(segments) - len(set(segments)):
        wrong.append(f"{twice} segments stand in it twice")
    numbers = [int(found.group(1)) for name in segments if (found := _NUMBER.search(name.rpartition(".")[0]))]
    if len(numbers) == len(segments):
        numbered = pairwise(zip(numbers, segments, strict=True))
        late = next((pair for pair in numbered if pair[1][0] < pair[0][0]), None)
        if late:
            wrong.append(
                f"its segments are out of order: {quoted(late[1][1], 80)} stands behind {quoted(late[0][1], 80)}"
            )
    times = [time for line in lines if line.startswith(_TIME) and (time := _time(line.removeprefix(_TIME)))]
    if any(later < earlier for earlier, later in pairwise(times)):
        wrong.append("its times run backwards")
    return wrong


def _time(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _strangers(segments: Sequence[str], beside: set[str], *, all_are_its: bool) -> list[str]:
    """Hold the names against what the backup has: what a player will look for, and what it will not play."""
    wrong = []
    if absent := [name for name in dict.fromkeys(segments) if name not in beside]:
        wrong.append(f"the backup has not {len(absent)} of the segments it names, such as {quoted(absent[0], 80)}")
    if all_are_its and (unnamed := beside - set(segments)):
        wrong.append(f"it leaves out {len(unnamed)} segments of the backup, such as {quoted(min(unnamed), 80)}")
    return wrong
