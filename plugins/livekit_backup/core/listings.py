"""Many objects looked at by few requests: a listing shows a thousand at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.uri_folders import common_folder
from livekit_backup.errors import AccessDeniedError

FEWEST = 8
"""A listing takes a store longer than a look at one object."""
MOST_STRANGERS = 2
"""Objects in between that nobody asked about, for each that somebody did, before the listing is given up."""
PAGE = 1000
"""S3's limit."""


def listed_among(store: ObjectStore, uris: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return size and ETag of those objects that a listing shows; it is no proof that the others are not there.

    :raises StorageUnavailableError: the store does not answer.
    """
    wanted = sorted(set(uris))
    found: dict[str, tuple[int, str]] = {}
    if len(wanted) < FEWEST:
        return found
    bucket, folder = common_folder(wanted)
    if not bucket:
        return found
    most = (1 + MOST_STRANGERS) * len(wanted)
    asked = set(wanted)
    # Sorts right before the first.
    listing = store.list_objects(f"s3://{bucket}/{folder}", wanted[0][:-1], min(PAGE, most))
    # Objects may be open to those who know their names and listed to nobody.
    with contextlib.suppress(AccessDeniedError):
        for number, item in enumerate(listing, 1):
            if item.uri in asked:
                found[item.uri] = (item.size, item.etag)
            if item.uri >= wanted[-1] or number >= most:
                break
    return found
