"""Compares what LiveKit's API lists with what the inbox holds, and files what nobody has taken care of.

Webhooks get lost; LiveKit's API does not send, it is asked. What it lists and no webhook brought
becomes an event in the inbox like any other, so that there is one way to recover a recording, and one
place that holds the links. What is in the inbox and came to nothing is filed anew in the same way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from livekit_backup.core.backup_accounts import BackupAccount, backup_accounts, ended_of
from livekit_backup.core.evidence import evidence_uri, keep
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.livekit_api import ListedEgress
from livekit_backup.core.redaction import without_query
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.stored_events import raw_event
from livekit_backup.core.upload_failures import failed_to_upload
from livekit_backup.core.wording import escaped
from livekit_backup.errors import LivekitBackupError, RetryableError, UnreadableEventError
from livekit_backup.models.egress import FAILED_STATUSES, EgressInfo
from livekit_backup.models.reconciliation import Comparison, FailedUpload, KnownBackup
from livekit_backup.models.references import BackupRef, EventRef, Intake, UnreadableDocument
from livekit_backup.models.settings import Settings
from livekit_backup.models.stored_webhook import EventSource, StoredWebhook
from livekit_backup.models.window import Window

log = logging.getLogger(__name__)

RUN_TIME = timedelta(hours=1)
"""What a recovery run may take before its backups count as forgotten."""
ON_ITS_WAY = timedelta(minutes=10)
"""LiveKit's queue, its retries and a token's life are over by then: no webhook comes later."""
BATCH = 256
"""Backups that are settled at a time."""
MAX_NAMED = 1000
"""Failed uploads and unreadable items that are kept by name; the log has the rest."""

_Backup = tuple[KnownBackup, dict[str, Any] | None]
"""A backup, and the API's document of it where that says so."""


def is_due(ended: datetime | None, grace: timedelta, now: datetime) -> bool:
    """Whether the scheduled run over the hour in which an egress ended may still be to come, or at work."""
    if ended is None:
        return False
    hour = ended.replace(minute=0, second=0, microsecond=0)
    return now < hour + timedelta(hours=1) + grace + RUN_TIME


@dataclass(frozen=True)
class Reconciler:
    """One comparison over a window.

    :param files: put events into the inbox; without it nothing is written.
    :param patient: another try will follow, so an API that does not answer is waited for; else it is a gap.
    """

    settings: Settings
    inbox: ObjectStore
    ledger: Ledger
    window: Window
    now: datetime
    files: bool
    patient: bool = False

    def compare(self, listed: Iterable[ListedEgress], intake: Intake) -> Comparison:
        """Return what both sides hold, with every backup that had to be filed in the inbox.

        An API that cannot be asked is a gap in what is returned: what the inbox knows is taken care of all the same.

        :param listed: what LiveKit's API lists; its errors are raised while it is read.
        :raises StorageUnavailableError, AccessDeniedError: the inbox or the ledger.
        :raises SourceUnavailableError: with ``patient``, LiveKit's API.
        """
        in_inbox = {(ref.egress_id, ref.run): ref for ref in intake.backups if self._is_inside(ended_of(ref))}
        listing = _Listing(intake.failed_uploads)
        backups: dict[tuple[str, int], KnownBackup] = {}
        from_api = self._from_api(self._without_error(listed, listing), in_inbox, listing)
        while batch := list(islice(from_api, BATCH)):
            backups |= {known.key: known for known in self._settle(batch)}
        rest = (KnownBackup(ref=ref, in_inbox=True, in_api=False) for ref in in_inbox.values())
        unlisted: Iterator[_Backup] = ((known, None) for known in rest if known.key not in backups)
        while batch := list(islice(unlisted, BATCH)):
            backups |= {known.key: known for known in self._settle(batch)}
        only_in_inbox = [FailedUpload(egress_id=egress_id) for egress_id in listing.unlisted_failures]
        return Comparison(
            window=self.window,
            compared_at=self.now,
            backups=tuple(backups.values()),
            failed_uploads=tuple([*listing.failed_uploads, *only_in_inbox][:MAX_NAMED]),
            failed_otherwise=listing.failed_otherwise,
            unreadable=(*intake.unreadable, *listing.unreadable[:MAX_NAMED]),
            gaps=tuple(listing.gaps),
            listed=listing.count,
            objects=intake.objects,
            events=intake.events,
        )

    def _without_error(self, listed: Iterable[ListedEgress], listing: _Listing) -> Iterator[ListedEgress]:
        try:
            yield from listed
        except LivekitBackupError as error:
            if self.patient and isinstance(error, RetryableError):
                raise
            log.error("LiveKit's API: %s", error)  # noqa: TRY400 - the text says it all
            listing.gaps.append(f"LiveKit's API was not read to its end, so a backup may be missing here: {error}")

    def _is_inside(self, moment: datetime | None) -> bool:
        return moment is None or self.window.start <= moment < self.window.end

    def _from_api(
        self, listed: Iterable[ListedEgress], in_inbox: dict[tuple[str, int], BackupRef], listing: _Listing
    ) -> Iterator[_Backup]:
        for item in listed:
            listing.count += 1
            info = item.info
            if info is None:
                listing.reject(item)
                continue
            listing.unlisted_failures.pop(info.egress_id, None)
            ref = reference_to(info)
            if not info.is_final or not self._is_inside(ended_of(ref)):
                continue
            known = in_inbox.get((ref.egress_id, ref.run))
            if info.backup_storage_used and known and known.brought_by is EventSource.LINK:
                # A person's link may lead to a part of it; this document leads to all.
                known = known.model_copy(update={"brought_by": EventSource.RECONCILE})
            if info.backup_storage_used or known:
                # Without the flag nothing would be recovered by the document; the stored event has it.
                document = item.document if info.backup_storage_used else None
                yield KnownBackup(ref=known or ref, in_inbox=known is not None, in_api=True), document
            elif info.status in FAILED_STATUSES or failed_to_upload(info):
                listing.note_failure(info, ended_of(ref))

    def _settle(self, batch: list[_Backup]) -> Iterator[KnownBackup]:
        accounts = backup_accounts(self.ledger, (known.ref for known, _ in batch))
        for (known, document), account in zip(batch, accounts, strict=True):
            yield self._file(known, document) if self.files and self._is_forgotten(known, account) else known

    def _is_forgotten(self, known: KnownBackup, account: BackupAccount) -> bool:
        """Whether a run could recover it, and none will unless an event is filed."""
        if account.is_safe or not account.can_be_tried(self.now):
            return False
        ended = ended_of(known.ref)
        if known.in_inbox:
            return not is_due(ended, self.settings.grace, self.now)
        return ended is None or self.now >= ended + ON_ITS_WAY

    def _file(self, known: KnownBackup, document: dict[str, Any] | None) -> KnownBackup:
        """Put an event into the current hour of the inbox: the API's answer, or else the newest stored event."""
        try:
            body = raw_event(self.inbox, known.ref).decode() if document is None else as_event(document)
        except UnreadableEventError as error:
            log.warning("%s cannot be filed anew: %s", known.ref.egress_id, error)
            return known
        ref = file_event(self.inbox, self.settings, known.ref, EventSource.RECONCILE, body, self.now)
        log.info(
            "filed %s, run %d: %s", ref.egress_id, ref.run, "it came to nothing" if known.in_inbox else "no webhook"
        )
        return known.model_copy(update={"ref": ref, "filed": True})


def file_event(
    inbox: ObjectStore, settings: Settings, ref: BackupRef, source: EventSource, body: str, now: datetime
) -> BackupRef:
    """Store an event in the inbox's current hour, and return the backup's reference with it first."""
    stored = StoredWebhook(source=source, received_at=now, body=body)
    uri = evidence_uri(settings.inbox, settings.inbox_layout, now, ref.egress_id, stored)
    keep(inbox, uri, stored)
    return ref.model_copy(update={"events": (EventRef(uri=uri, position=0), *ref.events)})


def hour_conf(now: datetime, grace: timedelta) -> dict[str, str]:
    """Return the params of a recovery run that reads the hour in which events were filed, before that hour is over."""
    start = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    end = max(start + timedelta(seconds=1), now - grace)
    return {"start": start.isoformat(), "end": end.isoformat()}


def reference_to(info: EgressInfo) -> BackupRef:
    """Return the reference to a backup that LiveKit lists, without an event yet."""
    return BackupRef(
        egress_id=info.egress_id,
        run=info.started_at,
        room_name=info.room_name,
        events=(),
        ended_at=info.ended_at or info.updated_at,
        brought_by=EventSource.RECONCILE,
    )


def as_event(document: dict[str, Any]) -> str:
    """Return an item of LiveKit's answer as the body of an event."""
    # In ASCII, since JSON can escape half a surrogate pair, which no encoding can hold.
    return json.dumps(document, separators=(",", ":"))


class _Listing:
    """What else the API lists, while it is read."""

    def __init__(self, failed_uploads: Iterable[str]) -> None:
        self.unlisted_failures = dict.fromkeys(failed_uploads)
        """Failed uploads of the inbox that the API does not list; of what it lists it knows better."""
        self.count = 0
        self.gaps: list[str] = []
        self.failed_uploads: list[FailedUpload] = []
        self.failed_otherwise = 0
        self.unreadable: list[UnreadableDocument] = []

    def reject(self, item: ListedEgress) -> None:
        flag = item.document.get("backup_storage_used", item.document.get("backupStorageUsed"))
        log.warning("ListEgress, item %d: %s", self.count, item.error)
        self.unreadable.append(
            UnreadableDocument(
                uri="ListEgress", position=self.count - 1, reason=item.error, may_be_backup=flag not in (None, False)
            )
        )

    def note_failure(self, info: EgressInfo, ended: datetime | None) -> None:
        if not failed_to_upload(info):
            self.failed_otherwise += 1
            return
        reason = escaped(without_query(info.error), 300)
        log.warning("%s failed to upload, and no backup stands behind it: %s", info.egress_id, reason)
        if len(self.failed_uploads) < MAX_NAMED:
            self.failed_uploads.append(
                FailedUpload(egress_id=info.egress_id, room_name=info.room_name, ended=ended, reason=reason)
            )
