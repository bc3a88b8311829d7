"""LiveKit's EgressInfo and the webhook event that carries it.

Source: livekit/protocol ``livekit_egress.proto`` and ``livekit_webhook.proto``. Only what
recovery needs is read; the request part, which can hold storage keys, never is.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints, model_validator

from livekit_backup.models.wire import HintInt64, Int64, Listed, WireModel, enum_name

EGRESS_STATUSES = (
    "EGRESS_STARTING",
    "EGRESS_ACTIVE",
    "EGRESS_ENDING",
    "EGRESS_COMPLETE",
    "EGRESS_FAILED",
    "EGRESS_ABORTED",
    "EGRESS_LIMIT_REACHED",
)
LIVE_STATUSES = frozenset(EGRESS_STATUSES[:3])
FAILED_STATUSES = frozenset({"EGRESS_FAILED", "EGRESS_ABORTED"})

EGRESS_ID = r"^[A-Za-z0-9_-]{1,128}$"
EgressId = Annotated[str, StringConstraints(pattern=EGRESS_ID)]
"""An egress id becomes part of keys, so nothing but LiveKit's own alphabet is taken."""

_NO_LOCATION = SecretStr("")


RoomText = Annotated[str, AfterValidator(lambda text: text.replace("\x00", "\\u0000"))]
"""PostgreSQL keeps no NUL in JSON, and a room's name is part of what tasks hand on."""


class FileResult(WireModel):
    """One recorded file (``FileInfo``)."""

    filename: str = ""
    size: Int64 = 0
    """Bytes; 0 when LiveKit did not say."""
    duration: HintInt64 = 0
    """Nanoseconds; LiveKit was seen to send negative ones."""
    location: SecretStr = _NO_LOCATION


class SegmentResult(WireModel):
    """One HLS output (``SegmentsInfo``)."""

    playlist_name: str = ""
    live_playlist_name: str = ""
    playlist_location: SecretStr = _NO_LOCATION
    live_playlist_location: SecretStr = _NO_LOCATION
    segment_count: Int64 = 0
    size: Int64 = 0
    """Bytes of the segments alone, summed."""
    duration: HintInt64 = 0
    """Nanoseconds."""


class ImageResult(WireModel):
    """One image output (``ImagesInfo``); it has no locations."""

    filename_prefix: str = ""
    image_count: Int64 = 0


class EgressInfo(WireModel):
    """The state of one egress."""

    egress_id: EgressId
    room_id: RoomText = ""
    room_name: RoomText = ""
    status: Annotated[str, BeforeValidator(enum_name(EGRESS_STATUSES))] = EGRESS_STATUSES[0]
    started_at: Int64 = 0
    """Nanoseconds since the epoch. With the egress id it identifies a run: one id was seen for several."""
    ended_at: Int64 = 0
    updated_at: Int64 = 0
    error: str = ""
    error_code: Int64 = 0
    manifest_location: SecretStr = _NO_LOCATION
    backup_storage_used: bool = False
    file_results: Listed[FileResult] = ()
    segment_results: Listed[SegmentResult] = ()
    image_results: Listed[ImageResult] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_deprecated_results(cls, data: Any) -> Any:
        """Some senders fill only the deprecated single ``file`` and ``segments``: read both."""
        if not isinstance(data, dict):
            return data
        read = dict(data)
        for single, snake, camel in (
            ("file", "file_results", "fileResults"),
            ("segments", "segment_results", "segmentResults"),
        ):
            if isinstance(read.get(single), dict) and not read.get(snake) and not read.get(camel):
                read.pop(camel, None)
                read[snake] = [read[single]]
        return read

    @property
    def is_final(self) -> bool:
        """Whether the egress has ended, whatever became of it; a status not known here can only be a newer ending."""
        return self.status not in LIVE_STATUSES


class WebhookEvent(WireModel):
    """One webhook delivery, or a bare EgressInfo from the API read as one."""

    event: str = ""
    """Empty for a bare EgressInfo."""
    id: str = ""
    created_at: Int64 = 0
    """Seconds since the epoch."""
    egress_info: EgressInfo | None = Field(default=None)

    @property
    def egress(self) -> EgressInfo | None:
        """The egress this event finally reports, or None when it is not the end of one."""
        info = self.egress_info
        if info is None:
            return None
        if self.event == "egress_ended" or (not self.event and info.is_final):
            return info
        return None

    @property
    def backup(self) -> EgressInfo | None:
        """The egress whose recording lies in LiveKit's backup, or None.

        The flag decides alone, whatever the status: a manifest location proves nothing.
        """
        egress = self.egress
        return egress if egress is not None and egress.backup_storage_used else None
