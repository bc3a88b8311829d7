"""How the recovery of one file can end."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """Every file of every backup ends in exactly one of these."""

    LANDED = "landed"
    """Verified and visible in the warehouse, by this run."""
    ALREADY_LANDED = "already_landed"
    """Verified and visible in the warehouse before this run."""
    IN_PRIMARY = "in_primary"
    """Never lost: the location is unsigned, in the customer's own bucket."""
    EXPIRED = "expired"
    """The signed URL's time is over."""
    MISSING = "missing"
    """The signed URL works, but nothing is behind it."""
    CORRUPT = "corrupt"
    """The bytes are not the recording's; nothing landed."""
    REFUSED = "refused"
    """A location or name that is not touched."""
    UNRESOLVED = "unresolved"
    """Neither a manifest nor a location leads to the file."""
    FAILED = "failed"
    """Anything else; the reason says what, and a later run tries again."""


SAFE = frozenset({Outcome.LANDED, Outcome.ALREADY_LANDED, Outcome.IN_PRIMARY})
"""The recording is in the customer's hands."""

IN_WAREHOUSE = frozenset({Outcome.LANDED, Outcome.ALREADY_LANDED})
"""The recording is at its landing key, verified."""
