"""The statement of a run: every egress and every file of its window, with outcome and reason."""

from __future__ import annotations

from pydantic import AwareDatetime

from livekit_backup.models.outcome import SAFE, Outcome
from livekit_backup.models.references import UnreadableDocument
from livekit_backup.models.window import Window
from livekit_backup.models.wire import FrozenModel


class StatementLine(FrozenModel):
    """One file in a run's statement."""

    egress_id: str
    run: int
    filename: str
    room_name: str = ""
    outcome: Outcome
    reason: str = ""
    size: int | None = None
    sha256: str = ""
    landed_uri: str = ""
    suspect: tuple[str, ...] = ()
    """What seems damaged in it, though it is safe."""
    deadline: AwareDatetime | None = None
    hours_left: float | None = None
    """Until the link dies, for a file that is not safe."""
    was_lost: bool = False
    """Its link was dead before this run began: no run of this window could have recovered it."""
    entry_sha256: str = ""
    """SHA-256 of the file's document in the ledger, by its bytes; empty where it has none."""
    recorded_at: AwareDatetime | None = None
    """When that document was written, by itself."""
    chain_sha256: str = ""
    """SHA-256 over this of the line before and this line: what is changed or taken out later breaks it."""

    @property
    def key(self) -> tuple[str, int, str]:
        """What a file is known by: egress, run and filename."""
        return self.egress_id, self.run, self.filename


class Statement(FrozenModel):
    """What a run can say for itself."""

    dag_id: str
    run_id: str
    window: Window | None = None
    written_at: AwareDatetime
    lines: tuple[StatementLine, ...] = ()
    unreadable: tuple[UnreadableDocument, ...] = ()
    failed_without_backup: tuple[str, ...] = ()
    objects: int = 0
    events: int = 0
    late: int = 0
    """How many of the backups were found by looking back before the window."""
    gaps: tuple[str, ...] = ()
    """What this statement could not find out, because a task before it failed."""

    @property
    def totals(self) -> dict[str, int]:
        """Files by outcome, in the order of the enum; outcomes without files are left out."""
        counted = dict.fromkeys(Outcome, 0)
        for line in self.lines:
            counted[line.outcome] += 1
        return {outcome.value: count for outcome, count in counted.items() if count}

    @property
    def unsafe(self) -> tuple[StatementLine, ...]:
        """Files that are neither in the warehouse nor in the customer's own bucket."""
        return tuple(line for line in self.lines if line.outcome not in SAFE)

    @property
    def recoverable(self) -> tuple[StatementLine, ...]:
        """Files that could be recovered when this run began, and are not safe."""
        return tuple(line for line in self.unsafe if not line.was_lost)

    @property
    def suspects(self) -> tuple[StatementLine, ...]:
        """Files that landed and seem damaged."""
        return tuple(line for line in self.lines if line.suspect)

    @property
    def unreadable_backups(self) -> tuple[UnreadableDocument, ...]:
        """Unreadable documents that a recording may depend on."""
        return tuple(document for document in self.unreadable if document.may_be_backup)
