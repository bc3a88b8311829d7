"""The configuration of the webhook receiver, as values. What each means: ``docs/receiver.md``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from livekit_backup.models.settings import Settings, plain_s3_uri
from livekit_backup.models.wire import FrozenModel


class ReceiverSettings(FrozenModel):
    """Where webhooks are kept, and which."""

    inbox: str
    """``s3://bucket[/prefix]`` without a slash at its end."""
    inbox_layout: str = Settings.model_fields["inbox_layout"].default
    webhook_events: Literal["egress", "all"] = "egress"
    """What is stored: ``egress_*``, or every event that LiveKit signed."""
    webhook_max_bytes: int = Field(default=1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    """Of one body; LiveKit's have 1 to 20 KiB."""

    _is_s3_uri = field_validator("inbox")(plain_s3_uri)
