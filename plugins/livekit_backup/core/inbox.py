"""Reads stored webhook events: from objects to backups.

Whatever cannot be read is listed with object, position and reason, and stays in the inbox.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from livekit_backup.core.event_shapes import StoredEvent, parse_event
from livekit_backup.core.read_ahead import in_order
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.stored_events import (
    InboxObject,
    keep_newest,
    load_backup_events,
    load_events,
    raw_event,
    why_gone,
)
from livekit_backup.core.upload_failures import failed_to_upload
from livekit_backup.errors import AccessDeniedError
from livekit_backup.models.egress import FAILED_STATUSES
from livekit_backup.models.references import BackupRef, EventRef, Intake, UnreadableDocument
from livekit_backup.models.stored_webhook import EventSource

__all__ = [
    "IntakeReader",
    "load_backup_events",
    "load_events",
    "parse_event",
    "raw_event",
    "why_gone",
]

WORKERS = 16
"""Objects read side by side: a GET takes 20 to 60 ms in which a processor has nothing to do."""
AHEAD = 64
"""Objects begun and not taken yet. Beyond the workers' own, only what was found in them is held."""
MAX_UNREADABLE = 1000
"""Listed one by one; the rest of a flood of garbage is counted."""
MAX_FAILED = 10_000
"""Failed egresses without a backup, listed by name."""

log = logging.getLogger(__name__)

_Run = tuple[str, int]


@dataclass(slots=True)
class _Found:
    """The events of one run of an egress."""

    newest: int = -1
    room_name: str = ""
    ended_at: int = 0
    source: EventSource = EventSource.WEBHOOK
    """Of the newest event."""
    has_webhook: bool = False
    events: list[tuple[int, EventRef]] = field(default_factory=list)

    def add(self, other: _Found) -> None:
        """Take in what was found later."""
        older, newer = (self, other) if other.newest > self.newest else (other, self)
        merged = replace(newer, room_name=newer.room_name or older.room_name)
        self.newest, self.room_name, self.ended_at = merged.newest, merged.room_name, merged.ended_at
        self.source, self.has_webhook = merged.source, self.has_webhook or other.has_webhook
        for event in other.events:
            keep_newest(self.events, event)


@dataclass(slots=True)
class _Findings:
    """What one object, or all so far, hold. It grows with the backups found, not with the events read."""

    backups: dict[_Run, _Found] = field(default_factory=dict)
    failed: dict[_Run, bool] = field(default_factory=dict)
    """Failed, and no backup known so far; and whether it was the upload that failed."""
    failed_unlisted: int = 0
    unreadable: list[UnreadableDocument] = field(default_factory=list)
    unlisted: list[int] = field(default_factory=lambda: [0, 0])
    """Unreadable beyond the list: those that are no backups, those that may be."""
    events: int = 0

    @property
    def has_found(self) -> bool:
        """Whether there is a backup, or something unreadable that may be one."""
        return bool(self.backups or self.unlisted[1]) or any(document.may_be_backup for document in self.unreadable)

    def take(self, stored: StoredEvent, wanted: frozenset[str]) -> None:
        """Add an event, if it is the end of an egress that is wanted."""
        egress = stored.event.egress
        if egress is None or (wanted and egress.egress_id not in wanted):
            return
        run = (egress.egress_id, egress.started_at)
        if egress.backup_storage_used:
            found = _Found(
                newest=stored.age,
                room_name=egress.room_name,
                ended_at=egress.ended_at or egress.updated_at,
                source=stored.source,
                has_webhook=stored.source is EventSource.WEBHOOK,
                events=[(stored.age, stored.ref)],
            )
            self._add_backup(run, found)
        elif egress.status in FAILED_STATUSES:
            self._add_failed(run, of_upload=failed_to_upload(egress))

    def reject(self, document: UnreadableDocument) -> None:
        """Add what cannot be read."""
        if len(self.unreadable) < MAX_UNREADABLE:
            self.unreadable.append(document)
        else:
            self.unlisted[document.may_be_backup] += 1

    def add(self, later: _Findings) -> None:
        """Take in what a later object holds."""
        for run, found in later.backups.items():
            self._add_backup(run, found)
        for run, of_upload in later.failed.items():
            self._add_failed(run, of_upload=of_upload)
        for document in later.unreadable:
            if len(self.unreadable) < MAX_UNREADABLE:
                log.warning("unreadable: %s, document %d: %s", document.uri, document.position, document.reason)
            self.reject(document)
        self.unlisted = [mine + others for mine, others in zip(self.unlisted, later.unlisted, strict=True)]
        self.failed_unlisted += later.failed_unlisted
        self.events += later.events

    def _add_backup(self, run: _Run, found: _Found) -> None:
        self.failed.pop(run, None)
        self.backups.setdefault(run, _Found()).add(found)

    def _add_failed(self, run: _Run, *, of_upload: bool) -> None:
        if run in self.backups:
            return
        if run in self.failed or len(self.failed) < MAX_FAILED:
            self.failed[run] = of_upload or self.failed.get(run, False)
        else:
            self.failed_unlisted += 1


class IntakeReader:
    """Collects what a window holds."""

    def __init__(self, egress_ids: Collection[str] = ()) -> None:
        self._wanted = frozenset(egress_ids)
        self._all = _Findings()
        self._objects = 0

    @property
    def has_found(self) -> bool:
        """Whether there is a backup, or something unreadable that may be one."""
        return self._all.has_found

    def read(self, store: ObjectStore, uris: Iterable[str], *, until_found: bool = False) -> None:
        """Take in every object, a few at a time; what is found does not depend on which of them is read first.

        :param until_found: end behind the first object with a backup, or with something unreadable that may be one.
        :raises StorageUnavailableError: the store does not answer; nothing is left running.
        """
        stopping = threading.Event()
        found_in = in_order(
            lambda uri: _find(store, uri, self._wanted, stopping),
            uris,
            workers=WORKERS,
            ahead=AHEAD,
            stop=stopping.set,
        )
        with contextlib.closing(found_in):
            for findings in found_in:
                self._all.add(findings)
                self._objects += 1
                if until_found and self.has_found:
                    return

    def result(self) -> Intake:
        """Return what was found. The flag is sticky: a later failure cancels no backup."""
        if self._all.failed_unlisted:
            log.warning("%d more events of egresses that failed without a backup", self._all.failed_unlisted)
        return Intake(
            backups=tuple(_ref(run, found) for run, found in self._all.backups.items()),
            unreadable=tuple(self._unreadable()),
            failed_without_backup=tuple(sorted({egress_id for egress_id, _ in self._all.failed})),
            failed_uploads=tuple(sorted({run[0] for run, of_upload in self._all.failed.items() if of_upload})),
            wanted=tuple(sorted(self._wanted)),
            objects=self._objects,
            events=self._all.events,
        )

    def _unreadable(self) -> Iterator[UnreadableDocument]:
        yield from self._all.unreadable
        for may_be_backup, count in enumerate(self._all.unlisted):
            if count:
                reason = f"{count} more unreadable documents"
                yield UnreadableDocument(uri="", position=0, reason=reason, may_be_backup=bool(may_be_backup))


def _find(store: ObjectStore, uri: str, wanted: frozenset[str], stopping: threading.Event) -> _Findings:
    findings, unreadable = _Findings(), 0
    inbox_object = InboxObject(store, uri, stopping)
    try:
        for item in inbox_object:
            if isinstance(item, StoredEvent):
                findings.take(item, wanted)
            else:
                findings.reject(item)
                unreadable += 1
    except FileNotFoundError:
        findings.reject(_unread_object(uri, "removed while being read"))
    except AccessDeniedError as error:
        # One archived or foreign object must not stop the others.
        findings.reject(_unread_object(uri, str(error)))
    findings.events = inbox_object.documents - unreadable
    return findings


def _unread_object(uri: str, reason: str) -> UnreadableDocument:
    return UnreadableDocument(uri=uri, position=0, reason=reason, may_be_backup=True)


def _ref(run: _Run, found: _Found) -> BackupRef:
    return BackupRef(
        egress_id=run[0],
        run=run[1],
        room_name=found.room_name,
        events=tuple(ref for _, ref in sorted(found.events, key=lambda event: -event[0])),
        ended_at=found.ended_at,
        brought_by=EventSource.WEBHOOK if found.has_webhook else found.source,
    )
