"""Which backups that are not safe a person has to be told of now, and was not told of before.

Depends on no run of the recovery: it reads the stored events and the ledger, so that a recovery that is paused,
failing or stuck raises alarms too. What it remembers is one document a task, and an hour of the inbox is
read a few times only.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from livekit_backup.core.backup_accounts import BackupAccount, backup_accounts, ended_of
from livekit_backup.core.inbox import IntakeReader
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.reconciling import is_due
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.windows import HOUR, inbox_prefixes
from livekit_backup.core.wording import FOREVER
from livekit_backup.models.alarm_state import LOST, Alarm, AlarmState, SettledBackup, WatchedBackup
from livekit_backup.models.references import BackupRef
from livekit_backup.models.settings import BACKUP_LIFETIME, LOOKBACK, Settings
from livekit_backup.models.stored_webhook import EventSource
from livekit_backup.models.window import Window

log = logging.getLogger(__name__)

_Key = tuple[str, int]


@dataclass(frozen=True)
class _Part:
    """Of one backup, what can still be saved, or what is lost."""

    deadline: datetime
    reason: str
    files: int | None
    unsafe_files: int | None


@dataclass
class _Sight:
    """One backup as the ledger knows it now."""

    backup: WatchedBackup
    is_known_lost: bool
    """Everybody has been told."""
    savable: _Part | None
    lost: _Part | None


class AlarmWatch:
    """One look at all backups that are not safe.

    A listener is whoever alarms are told, by a name that stays: each level is told each of them once.

    :param inbox: the store with the stored events.
    """

    def __init__(self, state: AlarmState | None, settings: Settings, now: datetime) -> None:
        self._state = state or AlarmState()
        self._settings = settings
        self._now = now
        self._sights: dict[_Key, _Sight] = {}
        self._settled: dict[_Key, SettledBackup] = {known.key: known for known in self._state.settled}

    def look(self, inbox: ObjectStore, ledger: Ledger) -> None:
        """Read what came into the inbox since the last look, and what the ledger says of all that is not safe.

        :raises StorageUnavailableError, AccessDeniedError: of the inbox or the ledger; nothing is forgotten.
        """
        watched = {backup.key: backup for backup in self._state.open}
        for ref in self._new_refs(inbox):
            key = (ref.egress_id, ref.run)
            if key not in self._settled or self._settled[key].is_lost:
                watched[key] = self._joined(watched.get(key), ref)
        accounts = backup_accounts(ledger, (backup.ref for backup in watched.values()))
        for backup, account in zip(watched.values(), accounts, strict=True):
            self._take(backup, account)

    def _new_refs(self, inbox: ObjectStore) -> Iterable[BackupRef]:
        first = self._now - LOOKBACK
        start = max(first, (self._state.read_until or first) - self._settings.lookback)
        if start >= self._now:
            # The clock went back.
            return ()
        reader = IntakeReader()
        window = Window(start=start, end=self._now)
        for prefix in inbox_prefixes(self._settings.inbox, self._settings.inbox_layout, window):
            reader.read(inbox, inbox.list_keys(prefix))
        intake = reader.result()
        log.info(
            "read %d events in %d objects since %s, %d of backups",
            intake.events,
            intake.objects,
            start.isoformat(timespec="seconds"),
            len(intake.backups),
        )
        return intake.backups

    def _joined(self, known: WatchedBackup | None, ref: BackupRef) -> WatchedBackup:
        """Take in what an event says; an hour that is read again may hold an older one than what is known."""
        if known is None:
            return WatchedBackup(
                egress_id=ref.egress_id,
                run=ref.run,
                room_name=ref.room_name,
                ended_at=ref.ended_at,
                brought_by=ref.brought_by,
                seen=self._now,
            )
        return known.model_copy(
            update={
                "room_name": ref.room_name or known.room_name,
                "ended_at": max(ref.ended_at, known.ended_at),
                "brought_by": known.brought_by if ref.brought_by is EventSource.LINK else ref.brought_by,
            }
        )

    def _take(self, backup: WatchedBackup, account: BackupAccount) -> None:
        if account.is_safe:
            # What a person's link brought is whole only until LiveKit's own event tells of more.
            if backup.brought_by is not EventSource.LINK:
                self._settle(backup, is_lost=False)
            return
        known = self._settled.get(backup.key)
        sight = _Sight(backup, known is not None, self._savable(backup, account), self._lost(backup, account))
        if sight.savable:
            # A link that a person brought: it is watched again.
            self._settled.pop(backup.key, None)
        self._sights[backup.key] = sight

    def _savable(self, backup: WatchedBackup, account: BackupAccount) -> _Part | None:
        rest = account.savable(self._now)
        if rest is None:
            return None
        _, reason = rest.verdict(self._now, is_due=is_due(ended_of(backup.ref), self._settings.grace, self._now))
        files = len(account.files) or None
        unsafe = len(rest.files) - rest.safe_files if files else None
        return _Part(_deadline(backup, rest), reason, files, unsafe)

    def _lost(self, backup: WatchedBackup, account: BackupAccount) -> _Part | None:
        count = account.lost_files(self._now)
        if count == 0:
            return None
        _, reason = account.verdict(self._now, is_due=False)
        files = len(account.files) or None
        unsafe = len(account.files) - account.safe_files if count is None else count
        return _Part(_deadline(backup, account), reason, files, unsafe if files else None)

    def due(self, listener: str) -> list[Alarm]:
        """Return what a listener is to be told now."""
        return [alarm for sight in self._sights.values() for alarm in self._due(sight, listener)]

    def _due(self, sight: _Sight, listener: str) -> Iterator[Alarm]:
        raised = sight.backup.raised.get(listener, ())
        if sight.savable:
            left = (sight.savable.deadline - self._now) / HOUR
            crossed = [level for level in self._settings.alarm_hours if left <= level]
            if crossed and min(crossed) not in raised:
                yield _alarm(sight.backup, sight.savable, min(crossed), left)
        if sight.lost and not sight.is_known_lost and LOST not in raised:
            yield _alarm(sight.backup, sight.lost, LOST, None)

    def told(self, listener: str, alarms: Iterable[Alarm]) -> None:
        """Remember that a listener has been told; of what is urgent the earlier levels count as told too."""
        for alarm in alarms:
            sight = self._sights[alarm.egress_id, alarm.run]
            levels = {alarm.level}
            if not alarm.is_lost:
                levels |= {level for level in self._settings.alarm_hours if level >= alarm.level}
            raised = tuple(sorted({*sight.backup.raised.get(listener, ()), *levels}, reverse=True))
            sight.backup = sight.backup.model_copy(update={"raised": {**sight.backup.raised, listener: raised}})

    def others(self, alarms: Iterable[Alarm]) -> int:
        """Count the backups that can still be saved and are not among these."""
        named = {(alarm.egress_id, alarm.run) for alarm in alarms}
        return sum(sight.savable is not None and key not in named for key, sight in self._sights.items())

    @property
    def open_backups(self) -> int:
        """How many are not safe and can still be saved, those with many hours left included."""
        return self.others(())

    @property
    def nearest_hours_left(self) -> float | None:
        """Until the first link of what can still be saved dies."""
        deadlines = [sight.savable.deadline for sight in self._sights.values() if sight.savable]
        return (min(deadlines) - self._now) / HOUR if deadlines else None

    def state(self, listeners: Collection[str]) -> AlarmState:
        """Return what to remember; who is not among the listeners any more is forgotten.

        A backup stays until nothing of it can be saved and every listener has been told that it is lost.
        """
        still_open = []
        for sight in self._sights.values():
            raised = {name: levels for name, levels in sight.backup.raised.items() if name in listeners}
            all_know = sight.is_known_lost or all(LOST in raised.get(name, ()) for name in listeners)
            if sight.savable or not all_know:
                still_open.append(sight.backup.model_copy(update={"raised": raised}))
            else:
                self._settle(sight.backup, is_lost=True)
        return AlarmState(
            read_until=max(self._now, self._state.read_until or self._now),
            open=tuple(still_open),
            settled=tuple(known for known in self._settled.values() if known.at >= self._oldest_of(known)),
        )

    def _settle(self, backup: WatchedBackup, *, is_lost: bool) -> None:
        if backup.key not in self._settled:
            self._settled[backup.key] = SettledBackup(
                egress_id=backup.egress_id, run=backup.run, at=self._now, is_lost=is_lost
            )

    def _oldest_of(self, known: SettledBackup) -> datetime:
        """As long as its event may be read again; of what is lost, as long as anybody may file it anew."""
        return self._now - (LOOKBACK if known.is_lost else self._settings.lookback + timedelta(hours=2))


def _deadline(backup: WatchedBackup, account: BackupAccount) -> datetime:
    """When no event says when it ended, what is known is when it was heard of."""
    deadline = account.deadline() or account.lifetime
    return backup.seen + BACKUP_LIFETIME if deadline == FOREVER else deadline


def _alarm(backup: WatchedBackup, part: _Part, level: float, left: float | None) -> Alarm:
    return Alarm(
        egress_id=backup.egress_id,
        run=backup.run,
        room_name=backup.room_name,
        level=level,
        hours_left=left,
        deadline=part.deadline,
        files=part.files,
        unsafe_files=part.unsafe_files,
        reason=part.reason,
    )
