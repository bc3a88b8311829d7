"""What is told of backups that are not safe, and what is remembered so that it is told once."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from livekit_backup.models.references import BackupRef
from livekit_backup.models.stored_webhook import EventSource
from livekit_backup.models.wire import FrozenModel

LOST = 0.0
"""The level of what no hours are left for."""


class Alarm(FrozenModel):
    """One backup in a digest. References only: no link is in it."""

    egress_id: str
    run: int
    room_name: str = ""
    level: float
    """Hours left at which this alarm was due; 0 for what is lost."""
    hours_left: float | None = None
    """Until the nearest link of what can still be saved dies; None for what is lost."""
    deadline: AwareDatetime
    """When that link dies, or when the last chance was over."""
    files: int | None = None
    """None where its files are not known yet."""
    unsafe_files: int | None = None
    """Those that this alarm is about."""
    reason: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether nobody can do anything about it any more."""
        return self.level == LOST


class WatchedBackup(FrozenModel):
    """A backup that is not safe so far."""

    egress_id: str
    run: int
    room_name: str = ""
    ended_at: int = 0
    brought_by: EventSource = EventSource.WEBHOOK
    seen: AwareDatetime
    """When the watch first heard of it."""
    raised: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """By listener, the levels that it need not be told any more."""

    @property
    def key(self) -> tuple[str, int]:
        """What a backup is known by: egress and run."""
        return self.egress_id, self.run

    @property
    def ref(self) -> BackupRef:
        """The reference that the ledger is asked by; where its events lie is of no use here."""
        return BackupRef(
            egress_id=self.egress_id,
            run=self.run,
            room_name=self.room_name,
            events=(),
            ended_at=self.ended_at,
            brought_by=self.brought_by,
        )


class SettledBackup(FrozenModel):
    """A backup that is watched no more, remembered while its event may be read again."""

    egress_id: str
    run: int
    at: AwareDatetime
    is_lost: bool
    """Else it is safe."""

    @property
    def key(self) -> tuple[str, int]:
        """What a backup is known by: egress and run."""
        return self.egress_id, self.run


class AlarmState(FrozenModel):
    """What one task that raises alarms remembers from run to run."""

    read_until: AwareDatetime | None = None
    """Up to when the inbox has been read; None before the first run."""
    open: tuple[WatchedBackup, ...] = ()
    settled: tuple[SettledBackup, ...] = ()
