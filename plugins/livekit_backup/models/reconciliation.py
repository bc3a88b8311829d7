"""What LiveKit, the inbox and the ledger together say of a window: every backup in exactly one state."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime

from livekit_backup.models.references import BackupRef, UnreadableDocument
from livekit_backup.models.window import Window
from livekit_backup.models.wire import FrozenModel


class BackupState(StrEnum):
    """How safe one backup is, all its files together; the gravest of them counts."""

    LOST = "lost"
    """A file is not safe and its link has died, or nothing is behind it."""
    UNACCOUNTED = "unaccounted"
    """The ledger has no outcome for a file, and no run is due that would bring one."""
    AT_RISK = "at_risk"
    """A file ended without being safe, while its link still lives."""
    PENDING = "pending"
    """A run that will recover it is due or under way."""
    SAFE = "safe"
    """Every file is in the warehouse, or in the customer's own bucket."""


class KnownBackup(FrozenModel):
    """One backup of the window, and who knows of it. References only: no link is in it."""

    ref: BackupRef
    in_inbox: bool
    in_api: bool
    filed: bool = False
    """This run put an event of it into the inbox."""

    @property
    def key(self) -> tuple[str, int]:
        """What a backup is known by: egress and run."""
        return self.ref.egress_id, self.ref.run


class FailedUpload(FrozenModel):
    """An egress that failed and that no backup stands behind: its recording is nowhere."""

    egress_id: str
    room_name: str = ""
    ended: AwareDatetime | None = None
    reason: str = ""
    """As LiveKit says it, without query strings; empty where only an event in the inbox says so."""


class SideBySide(FrozenModel):
    """What was found in a window, beside its backups."""

    window: Window
    failed_uploads: tuple[FailedUpload, ...] = ()
    failed_otherwise: int = 0
    """Egresses that failed for reasons that no backup is for: nothing was recorded, or nothing was to upload."""
    unreadable: tuple[UnreadableDocument, ...] = ()
    gaps: tuple[str, ...] = ()
    """What could not be compared, each in a sentence."""
    listed: int = 0
    """Egresses that LiveKit's API listed."""
    objects: int = 0
    events: int = 0

    def beside(self) -> dict[str, Any]:
        """These fields alone, for another model of the same window."""
        return {name: getattr(self, name) for name in SideBySide.model_fields}


class Comparison(SideBySide):
    """What the inbox and LiveKit's API hold of a window, side by side."""

    compared_at: AwareDatetime
    backups: tuple[KnownBackup, ...] = ()


class ReconciledBackup(FrozenModel):
    """One backup in the statement."""

    egress_id: str
    run: int
    room_name: str = ""
    state: BackupState
    reason: str = ""
    files: int | None = None
    """None where its files are not known yet."""
    safe_files: int = 0
    suspects: tuple[str, ...] = ()
    """Files that landed and seem damaged, each in a sentence; at most 20."""
    found_by_reconcile: bool = False
    """No webhook brought it."""
    ended: AwareDatetime | None = None
    deadline: AwareDatetime | None = None
    """The nearest of its files that are not safe."""
    hours_left: float | None = None


class Reconciliation(SideBySide):
    """The statement over a window: N backups, N safe, 0 unaccounted, and by name what is not so."""

    dag_id: str = ""
    run_id: str = ""
    written_at: AwareDatetime
    backups: tuple[ReconciledBackup, ...] = ()
    """What is not safe first, the oldest at the top."""

    @property
    def totals(self) -> dict[str, int]:
        """Backups by state, every state, the gravest first."""
        counted = dict.fromkeys((state.value for state in BackupState), 0)
        for backup in self.backups:
            counted[backup.state.value] += 1
        return counted

    @property
    def not_safe(self) -> tuple[ReconciledBackup, ...]:
        """Backups that are not safe, those that are only pending included."""
        return tuple(backup for backup in self.backups if backup.state is not BackupState.SAFE)

    @property
    def unreadable_backups(self) -> tuple[UnreadableDocument, ...]:
        """Unreadable documents that a recording may depend on."""
        return tuple(document for document in self.unreadable if document.may_be_backup)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is lost, at risk or unaccounted for, and nothing could not be compared."""
        calm = {BackupState.SAFE, BackupState.PENDING}
        return not self.gaps and not self.unreadable_backups and all(backup.state in calm for backup in self.backups)
