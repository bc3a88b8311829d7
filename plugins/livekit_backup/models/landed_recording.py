"""A recording that landed, as an asset event names it."""

from __future__ import annotations

from livekit_backup.models.wire import FrozenModel


class LandedRecording(FrozenModel):
    """One file that a run has landed: where it is, and whose it is."""

    egress_id: str
    room_name: str = ""
    uri: str
    """``s3://bucket/key``."""
    key: str
    """The key alone, as the bucket knows it."""
    size: int | None = None
    """Bytes."""
    sha256: str = ""
    """Hexadecimal; empty where the store itself made the copy."""
