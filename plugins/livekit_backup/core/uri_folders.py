"""The folder that objects have in common."""

from __future__ import annotations

from collections.abc import Iterable

from livekit_backup.core.storage import split_uri


def common_folder(uris: Iterable[str]) -> tuple[str, str]:
    """Return the bucket of these objects, and the longest prefix up to a slash that all their keys share."""
    places = [split_uri(uri) for uri in uris]
    folders = [key.split("/")[:-1] for _, key in places]
    # What the first and the last in order share, all between them share too.
    first, last = min(folders), max(folders)
    depth = next((level for level, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return places[0][0], "".join(f"{name}/" for name in first[:depth])
