"""Reads stored webhook events: from objects to backups.

Takes every shape that LiveKit and its users' receivers store: the raw webhook body, a
``{timestamp, payload}`` wrapper, a bare EgressInfo, camelCase or snake_case. Whatever
cannot be read is listed with object, position and reason, and stays in the inbox.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from livekit_backup.core.json_documents import Document, read_documents
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.wording import describe_validation
from livekit_backup.errors import AccessDeniedError, UnreadableEventError
from livekit_backup.models.egress import FAILED_STATUSES, EgressInfo, WebhookEvent
from livekit_backup.models.references import BackupRef, EventRef, Intake, UnreadableDocument

log = logging.getLogger(__name__)

_EVENTS = frozenset({"", "egress_started", "egress_updated", "egress_ended"})
"""LiveKit's egress events; empty for a bare EgressInfo."""
_FLAGS = (b"backupStorageUsed", b"backup_storage_used")


@dataclass(frozen=True)
class StoredEvent:
    """An event and where it lies."""

    ref: EventRef
    event: WebhookEvent


def parse_event(value: Any) -> WebhookEvent:
    """Read one document in any of the stored shapes.

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


def _age(event: WebhookEvent) -> int:
    """When an event was made, nanoseconds."""
    info = event.egress_info
    return (info.updated_at if info else 0) or event.created_at * 10**9


def read_object(store: ObjectStore, uri: str) -> Iterator[StoredEvent | UnreadableDocument]:
    """Give each document of one inbox object, read or unreadable, in order."""
    body = store.open(uri)
    try:
        for document in read_documents(body):
            yield _read_document(uri, document)
    finally:
        body.close()


def _read_document(uri: str, document: Document) -> StoredEvent | UnreadableDocument:
    mentions = any(flag in document.raw for flag in _FLAGS)
    reason = document.error
    if not reason:
        try:
            event = parse_event(document.value)
            if event.event in _EVENTS or not mentions:
                return StoredEvent(EventRef(uri=uri, position=document.position), event)
            reason = f"{event.event[:80]!r} is no egress event, but mentions the backup flag"
        except UnreadableEventError as error:
            reason = str(error)
    # What is no JSON may be anything: a cut or compressed event does not show its flag.
    may_be_backup = mentions or bool(document.error)
    return UnreadableDocument(uri=uri, position=document.position, reason=reason, may_be_backup=may_be_backup)


@dataclass
class _Found:
    """The events of one run of an egress, while a window is read."""

    newest: int = -1
    room_name: str = ""
    events: list[tuple[int, EventRef]] = field(default_factory=list)


class IntakeReader:
    """Collects what a window holds. Its memory grows with the backups found, not with the events read."""

    MAX_EVENTS_A_RUN = 16
    """LiveKit sends a handful of updates for a run; a flood of them must not grow the references."""

    MAX_UNREADABLE = 1000
    """Listed one by one; the rest of a flood of garbage is counted, and logged."""

    def __init__(self, egress_ids: Collection[str] = ()) -> None:
        self._wanted = frozenset(egress_ids)
        self._backups: dict[tuple[str, int], _Found] = {}
        self._failed: set[tuple[str, int]] = set()
        self._unreadable: list[UnreadableDocument] = []
        self._unlisted: list[int] = [0, 0]
        self._objects = 0
        self._events = 0

    @property
    def has_found(self) -> bool:
        """Whether there is a backup, or something unreadable that may be one."""
        return bool(self._backups) or any(document.may_be_backup for document in self._unreadable)

    def read(self, store: ObjectStore, uris: Iterable[str]) -> None:
        """Take in every object."""
        for uri in uris:
            try:
                for item in read_object(store, uri):
                    self._take(item)
            except FileNotFoundError:
                self._reject_object(uri, "removed while being read")
            except AccessDeniedError as error:
                # One archived or foreign object must not stop the others.
                self._reject_object(uri, str(error))
            self._objects += 1

    def _take(self, item: StoredEvent | UnreadableDocument) -> None:
        if isinstance(item, UnreadableDocument):
            self._reject(item)
            return
        self._events += 1
        egress = item.event.egress
        if egress is None or (self._wanted and egress.egress_id not in self._wanted):
            return
        run = (egress.egress_id, egress.started_at)
        if egress.backup_storage_used:
            self._add(run, egress, item)
        elif egress.status in FAILED_STATUSES:
            self._failed.add(run)

    def _reject_object(self, uri: str, reason: str) -> None:
        self._reject(UnreadableDocument(uri=uri, position=0, reason=reason, may_be_backup=True))

    def _reject(self, document: UnreadableDocument) -> None:
        log.warning("unreadable: %s, document %d: %s", document.uri, document.position, document.reason)
        if len(self._unreadable) < self.MAX_UNREADABLE:
            self._unreadable.append(document)
        else:
            self._unlisted[document.may_be_backup] += 1

    def _all_unreadable(self) -> Iterator[UnreadableDocument]:
        yield from self._unreadable
        for may_be_backup, count in enumerate(self._unlisted):
            if count:
                reason = f"{count} more unreadable documents; the log of this task names each"
                yield UnreadableDocument(uri="", position=0, reason=reason, may_be_backup=bool(may_be_backup))

    def _add(self, run: tuple[str, int], egress: EgressInfo, item: StoredEvent) -> None:
        found = self._backups.setdefault(run, _Found())
        age = _age(item.event)
        if age > found.newest:
            found.newest, found.room_name = age, egress.room_name or found.room_name
        found.events.append((age, item.ref))
        if len(found.events) > self.MAX_EVENTS_A_RUN:
            found.events.remove(min(found.events, key=lambda event: event[0]))

    def result(self) -> Intake:
        """Return what was found. The flag is sticky: a later failure cancels no backup."""
        return Intake(
            backups=tuple(
                BackupRef(
                    egress_id=egress_id,
                    run=run,
                    room_name=found.room_name,
                    events=tuple(ref for _, ref in sorted(found.events, key=lambda event: -event[0])),
                )
                for (egress_id, run), found in self._backups.items()
            ),
            unreadable=tuple(self._all_unreadable()),
            failed_without_backup=tuple(
                sorted({egress_id for egress_id, run in self._failed if (egress_id, run) not in self._backups})
            ),
            wanted=tuple(sorted(self._wanted)),
            objects=self._objects,
            events=self._events,
        )


def load_backup_events(store: ObjectStore, backup: BackupRef) -> list[WebhookEvent]:
    """Read a backup's events again, newest first.

    An event is known by egress and run; its position is only a hint, since whoever writes
    the inbox may rewrite an object.

    :raises UnreadableEventError: none of them is in the inbox any more.
    """
    events = []
    for uri in dict.fromkeys(ref.uri for ref in backup.events):
        last = max(ref.position for ref in backup.events if ref.uri == uri)
        events += _events_of_run(store, uri, backup, last)
    if not events:
        places = ", ".join(sorted({ref.uri for ref in backup.events}))
        raise UnreadableEventError(f"the event of {backup.egress_id} is not in {places} any more")
    return sorted(events, key=lambda event: -_age(event))


def _events_of_run(store: ObjectStore, uri: str, backup: BackupRef, last: int) -> list[WebhookEvent]:
    found = []
    try:
        for item in read_object(store, uri):
            if not isinstance(item, StoredEvent):
                continue
            egress = item.event.backup
            if egress and (egress.egress_id, egress.started_at) == (backup.egress_id, backup.run):
                found.append(item.event)
                if item.ref.position >= last:
                    break
    except FileNotFoundError:
        pass
    return found
