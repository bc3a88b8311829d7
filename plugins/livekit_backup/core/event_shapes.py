"""What one stored document says: every shape that LiveKit, its users' receivers and this package store.

That is the raw webhook body, a ``{timestamp, payload}`` wrapper, a bare EgressInfo, and the evidence that holds a
body as text; camelCase or snake_case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from livekit_backup.core.json_documents import Document
from livekit_backup.core.strict_json import RefusedJsonError, parse_json
from livekit_backup.core.wording import describe_validation
from livekit_backup.errors import UnreadableEventError
from livekit_backup.models.egress import WebhookEvent
from livekit_backup.models.references import BackupRef, EventRef, UnreadableDocument
from livekit_backup.models.stored_webhook import EVIDENCE_MARK, EventSource, StoredWebhook

_EVENTS = frozenset({"", "egress_started", "egress_updated", "egress_ended"})
"""LiveKit's egress events; empty for a bare EgressInfo."""
_FLAGS = (b"backupStorageUsed", b"backup_storage_used")


@dataclass(frozen=True)
class StoredEvent:
    """An event and where it lies."""

    ref: EventRef
    event: WebhookEvent
    source: EventSource
    raw: bytes
    """LiveKit's JSON: the document's own bytes, or the body that an evidence holds."""

    @property
    def age(self) -> int:
        """When the event was made, nanoseconds."""
        info = self.event.egress_info
        return (info.updated_at if info else 0) or self.event.created_at * 10**9

    def is_of(self, backup: BackupRef) -> bool:
        """Whether it says that this run of this egress is in the backup."""
        egress = self.event.backup
        return egress is not None and (egress.egress_id, egress.started_at) == (backup.egress_id, backup.run)


def interpret(uri: str, document: Document, *, is_compressed: bool = False) -> StoredEvent | UnreadableDocument:
    """Read one document of an object, or say why it cannot be read."""
    mentions = any(flag in document.raw for flag in _FLAGS)
    reason = document.error
    if not reason:
        try:
            return _stored_event(uri, document, is_compressed=is_compressed, mentions=mentions)
        except UnreadableEventError as error:
            reason = str(error)
    # What is no JSON may be anything: a cut or compressed event does not show its flag.
    may_be_backup = mentions or bool(document.error)
    return UnreadableDocument(uri=uri, position=document.position, reason=reason, may_be_backup=may_be_backup)


def _stored_event(uri: str, document: Document, *, is_compressed: bool, mentions: bool) -> StoredEvent:
    evidence = _evidence(document.value)
    raw = _body_of(evidence) if evidence else document.raw
    event = parse_event(_value_of(raw) if evidence else document.value)
    if mentions and event.event not in _EVENTS:
        raise UnreadableEventError(f"{event.event[:80]!r} is no egress event, but mentions the backup flag")
    return StoredEvent(
        ref=EventRef(
            uri=uri,
            position=document.position,
            offset=None if is_compressed else document.offset,
            length=0 if is_compressed else len(document.raw),
        ),
        event=event,
        source=evidence.source if evidence else EventSource.WEBHOOK,
        raw=raw,
    )


def _evidence(value: Any) -> StoredWebhook | None:
    if not isinstance(value, Mapping) or EVIDENCE_MARK not in value:
        return None
    try:
        return StoredWebhook.model_validate(value)
    except ValidationError as error:
        raise UnreadableEventError(f"an evidence, but {describe_validation(error)}") from None


def _body_of(evidence: StoredWebhook) -> bytes:
    try:
        return evidence.body.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can escape and no request's body can hold.
        raise UnreadableEventError("an evidence, but its body is no text") from None


def _value_of(body: bytes) -> Any:
    try:
        return parse_json(body)
    except RefusedJsonError as error:
        raise UnreadableEventError(f"the evidence's body: {error}") from None


def parse_event(value: Any) -> WebhookEvent:
    """Read one document in any of the shapes in which others store events.

    :raises UnreadableEventError: it is not a LiveKit event; the text says why.
    """
    if not isinstance(value, Mapping):
        raise UnreadableEventError(f"a JSON {type(value).__name__}, not a LiveKit event")
    body = value
    if isinstance(payload := value.get("payload"), Mapping):
        # What stands beside the payload counts where the payload is silent.
        beside = (
            ("id", "createdAt", "created_at") if _is_egress(payload) else ("id", "createdAt", "created_at", "event")
        )
        body = {**{key: value[key] for key in beside if key in value}, **payload}
    if not body.get("event") and _is_egress(body):
        body = {"egress_info": body}
    elif not isinstance(body.get("event"), str) or not body["event"]:
        raise UnreadableEventError("a JSON object without 'event' or 'egress_id': not a LiveKit event")
    elif not body["event"].startswith("egress"):
        # Rooms, tracks and ingresses are none of our business, whatever is in them.
        return WebhookEvent(event=body["event"])
    try:
        event = WebhookEvent.model_validate(body)
    except ValidationError as error:
        raise UnreadableEventError(describe_validation(error)) from None
    if event.event == "egress_ended" and event.egress_info is None:
        raise UnreadableEventError("an egress_ended event without egressInfo")
    return event


def _is_egress(value: Mapping[str, Any]) -> bool:
    return bool(value.get("egress_id") or value.get("egressId"))
