"""An event as this package stores it in the inbox: evidence that stands by itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime

from livekit_backup.models.wire import FrozenModel

EVIDENCE_MARK = "livekit_backup_event"
"""The key that tells this form from LiveKit's own and from what users' receivers store."""


class EventSource(StrEnum):
    """Who brought an event into the inbox."""

    WEBHOOK = "webhook"
    """LiveKit sent it, to the receiver here or to a user's own."""
    RECONCILE = "reconcile"
    """It was found by ListEgress, or was in the inbox and had come to nothing."""
    LINK = "link"
    """A person gave the link."""


class StoredWebhook(FrozenModel):
    """One event with all that is needed to judge it again years later."""

    livekit_backup_event: Literal[1] = 1
    """Version of this form; also what it is known by."""
    source: EventSource
    received_at: AwareDatetime
    """The moment at which the token's times were judged."""
    signed_with: str = ""
    """The API key whose secret the signature held for when it was received; empty where nothing was signed."""
    authorization: str = ""
    """The header as it came. Its token dies five minutes after it was made, and signs this body alone."""
    body: str
    """The request's body; UTF-8, so that encoding it gives the very bytes that were signed."""
