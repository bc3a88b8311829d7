"""Reads inbox objects, whole or by the places that references give."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from livekit_backup.core.event_selection import DocumentSelection
from livekit_backup.core.event_shapes import StoredEvent, interpret
from livekit_backup.core.json_documents import MAX_DOCUMENT_BYTES, read_document
from livekit_backup.core.storage import ObjectStore, ReadableBody
from livekit_backup.errors import ConfigurationError, SourceChangedError, UnreadableEventError
from livekit_backup.models.egress import WebhookEvent
from livekit_backup.models.references import BackupRef, EventRef, UnreadableDocument

T = TypeVar("T")
_Run = tuple[str, int]
_Apply = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""``map``, or that of a pool."""


MAX_EVENTS_A_RUN = 16
"""LiveKit sends a handful of updates for a run; a flood of them must not grow what is kept of it."""


def keep_newest(events: list[tuple[int, T]], event: tuple[int, T]) -> None:
    """Add an event and its age to those of its run, and drop the oldest of too many."""
    events.append(event)
    if len(events) > MAX_EVENTS_A_RUN:
        events.remove(min(events, key=lambda known: known[0]))


class StoppedError(Exception):
    """Nobody wants the rest any more."""


class InboxObject:
    """The events and unreadable documents of one object that matter, in order.

    :param stopping: once set, reading ends with StoppedError.
    """

    def __init__(self, store: ObjectStore, uri: str, stopping: threading.Event | None = None) -> None:
        self._store = store
        self._uri = uri
        self._stopping = stopping or threading.Event()
        self.documents = 0
        """Of every kind, as far as it was read."""

    def __iter__(self) -> Generator[StoredEvent | UnreadableDocument]:
        """Read the object from its start."""
        with contextlib.closing(_StoppableBody(self._store.open(self._uri), self._stopping)) as body:
            selection = DocumentSelection(body)
            for document in selection:
                self.documents = selection.count
                yield interpret(self._uri, document, is_compressed=selection.is_compressed)
            self.documents = selection.count


class _StoppableBody:
    def __init__(self, body: ReadableBody, stopping: threading.Event) -> None:
        self._body = body
        self._stopping = stopping

    def read(self, size: int = -1, /) -> bytes:
        if self._stopping.is_set():
            raise StoppedError
        return self._body.read(size)

    def close(self) -> None:
        self._body.close()


def load_backup_events(store: ObjectStore, backup: BackupRef) -> list[WebhookEvent]:
    """Read a backup's events again, newest first.

    An event is known by egress and run; its place is only a hint, since whoever writes
    the inbox may rewrite an object.

    :raises UnreadableEventError: none of them is in the inbox any more.
    """
    [events] = load_events(store, [backup])
    if not events:
        raise UnreadableEventError(why_gone(backup))
    return events


def raw_event(store: ObjectStore, backup: BackupRef) -> bytes:
    """Return a backup's newest event as the JSON that LiveKit sent.

    :raises UnreadableEventError: none of them is in the inbox any more.
    """
    [events] = _load(store, [backup], map)
    if not events:
        raise UnreadableEventError(why_gone(backup))
    return events[0].raw


def load_events(store: ObjectStore, backups: Sequence[BackupRef], apply: _Apply = map) -> list[list[WebhookEvent]]:
    """Read the events of many backups again, each object at most once; newest first, none where all are gone.

    :param apply: maps a function over what is to be read; a pool's reads side by side.
    """
    return [[stored.event for stored in events] for events in _load(store, backups, apply)]


def why_gone(backup: BackupRef) -> str:
    """Say that a backup's events are in the inbox no more."""
    places = ", ".join(sorted({ref.uri for ref in backup.events}))
    return f"the event of {backup.egress_id} is not in {places} any more"


@dataclass
class _Wanted:
    """What an object is read for."""

    uri: str
    last: dict[_Run, int] = field(default_factory=dict)
    """Up to which document an event of each run was seen."""


def _load(store: ObjectStore, backups: Sequence[BackupRef], apply: _Apply) -> list[list[StoredEvent]]:
    at_hints = apply(lambda backup: [_at_hint(store, ref, backup) for ref in backup.events], backups)
    found: list[dict[EventRef, StoredEvent]] = []
    objects: dict[str, _Wanted] = {}
    for backup, hits in zip(backups, at_hints, strict=True):
        found.append({})
        for ref, stored in zip(backup.events, hits, strict=True):
            if stored:
                found[-1][stored.ref] = stored
            else:
                last = objects.setdefault(ref.uri, _Wanted(ref.uri)).last
                key = (backup.egress_id, backup.run)
                last[key] = max(ref.position, last.get(key, 0))
    whole = dict(zip(objects, apply(lambda wanted: _read_for(store, wanted), [*objects.values()]), strict=True))
    for backup, events in zip(backups, found, strict=True):
        for uri in dict.fromkeys(ref.uri for ref in backup.events):
            again = whole.get(uri, {}).get((backup.egress_id, backup.run), ())
            events |= {stored.ref: stored for stored in again}
    return [sorted(events.values(), key=lambda stored: -stored.age) for events in found]


def _at_hint(store: ObjectStore, ref: EventRef, backup: BackupRef) -> StoredEvent | None:
    """Read one document where it was, by a range of its object."""
    if ref.offset is None or not 0 < ref.length <= MAX_DOCUMENT_BYTES:
        return None
    try:
        body = store.open(ref.uri, ref.offset, ref.offset + ref.length)
    except (FileNotFoundError, SourceChangedError, ConfigurationError):
        # Another object by now, or a store without ranges: the whole object tells.
        return None
    raw = bytearray()
    with contextlib.closing(body):
        while len(raw) < ref.length and (more := body.read(ref.length - len(raw))):
            raw += more
    stored = interpret(ref.uri, read_document(bytes(raw), ref.offset, ref.position))
    return stored if isinstance(stored, StoredEvent) and stored.is_of(backup) else None


def _read_for(store: ObjectStore, wanted: _Wanted) -> dict[_Run, list[StoredEvent]]:
    """Read one object as far as it takes to find every run's events again."""
    missing = dict(wanted.last)
    found: dict[_Run, list[tuple[int, StoredEvent]]] = {key: [] for key in missing}
    with contextlib.suppress(FileNotFoundError), contextlib.closing(InboxObject(store, wanted.uri).__iter__()) as items:
        for item in items:
            if not isinstance(item, StoredEvent) or item.event.backup is None:
                continue
            key = (item.event.backup.egress_id, item.event.backup.started_at)
            if key in found:
                keep_newest(found[key], (item.age, item))
                if item.ref.position >= missing.get(key, item.ref.position + 1):
                    del missing[key]
                if not missing:
                    break
    return {key: [stored for _, stored in events] for key, events in found.items()}
