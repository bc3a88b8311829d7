"""Where an event that LiveKit signed is filed in the inbox: by what it says, never by when it came.

LiveKit's retries carry the same body and the same token, so a repeated delivery leads to the same object, also
when the hour has turned in between.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from livekit_backup.core.evidence import evidence_uri
from livekit_backup.core.webhook_tokens import LEEWAY, LIFETIME, WebhookToken
from livekit_backup.errors import UnreadableEventError
from livekit_backup.models.receiver_settings import ReceiverSettings
from livekit_backup.models.stored_webhook import EventSource, StoredWebhook
from livekit_backup.models.wire import parse_int64

_SAFE = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True)
class ReceivedEvent:
    """A body that LiveKit signed, and the little that has to be known of it."""

    text: str
    kind: str
    """Its ``event``."""
    egress_id: str
    created_at: datetime | None

    @property
    def is_of_an_egress(self) -> bool:
        """Whether it can lead to a backup."""
        return self.kind.startswith("egress_")

    @property
    def name(self) -> str:
        """What a person recognises in an object's key."""
        kind = self.kind if _SAFE.fullmatch(self.kind) else "event"
        return f"{self.egress_id}-{kind}" if _SAFE.fullmatch(self.egress_id) else kind


def read_event(body: bytes) -> ReceivedEvent:
    """Read a body as far as filing needs it; whatever else it holds is kept as it is.

    :raises UnreadableEventError: it is no UTF-8, no JSON object, or has no ``event``.
    """
    try:
        text = body.decode()
        # Python reads no integer of over 4300 digits, and none is needed here.
        event = json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise UnreadableEventError(f"not JSON: {type(error).__name__}") from None
    if not isinstance(event, dict) or not isinstance(kind := event.get("event"), str):
        raise UnreadableEventError("no JSON object with an 'event'")
    egress = event.get("egressInfo", event.get("egress_info"))
    egress_id = egress.get("egressId", egress.get("egress_id")) if isinstance(egress, dict) else None
    return ReceivedEvent(
        text=text,
        kind=kind,
        egress_id=egress_id if isinstance(egress_id, str) else "",
        created_at=_created_at(event.get("createdAt", event.get("created_at"))),
    )


def file_event(
    settings: ReceiverSettings, event: ReceivedEvent, token: WebhookToken, authorization: str, received_at: datetime
) -> tuple[str, StoredWebhook]:
    """Return where an event is kept, and as what."""
    stored = StoredWebhook(
        source=EventSource.WEBHOOK,
        received_at=received_at,
        signed_with=token.api_key,
        authorization=authorization,
        body=event.text,
    )
    hour = filing_hour(event.created_at, token, received_at)
    return evidence_uri(settings.inbox, settings.inbox_layout, hour, event.name, stored), stored


def filing_hour(created_at: datetime | None, token: WebhookToken, received_at: datetime) -> datetime:
    """Return a moment of the hour that an event is filed in.

    It is the event's own where its token bears it out, else the token's. LiveKit's tokens always say when they were
    made, within the minutes in which they are accepted at all. Other signers' may not (``livekit-server-sdk`` writes
    ``nbf`` 0): then the receipt stands in, since no run would ever look into 1970.
    """
    earliest, latest = received_at - LIFETIME - LEEWAY, received_at + LEEWAY
    made = next((moment for moment in token.made_at if earliest <= moment <= latest), received_at)
    return created_at if created_at and abs(created_at - made) <= LIFETIME else made


def _created_at(seconds: Any) -> datetime | None:
    try:
        whole = parse_int64(seconds)
        return datetime.fromtimestamp(whole, UTC) if whole else None
    except (ValueError, OverflowError, OSError):
        return None
