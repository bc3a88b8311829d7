"""Backups whose event came late: into an hour of the inbox whose run had read it by then."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from livekit_backup.core.inbox import IntakeReader
from livekit_backup.core.ledger import Ledger, in_parallel
from livekit_backup.core.storage import ObjectStore
from livekit_backup.models.references import BackupRef, Intake


def find_late(
    store: ObjectStore, uris: Iterable[str], ledger: Ledger, *, wanted: Collection[str], own: Intake | None
) -> tuple[BackupRef, ...]:
    """Return the backups in these objects that no other run knows of.

    :param wanted: egress ids that count; empty means all.
    :param own: what an earlier try of this run took up: its own tasks have written of that since.
    """
    reader = IntakeReader(wanted)
    reader.read(store, uris)
    found = reader.result().backups
    ours = {(ref.egress_id, ref.run) for ref in (own.came_late if own else ())}

    def is_late(ref: BackupRef) -> bool:
        return (ref.egress_id, ref.run) in ours or not ledger.knows(ref.egress_id, ref.run)

    return tuple(ref for ref, late in zip(found, in_parallel(is_late, found), strict=True) if late)


def with_late(intake: Intake, late: Iterable[BackupRef]) -> Intake:
    """Add to what a window holds the backups that came late, but for those that are in it again."""
    present = {(ref.egress_id, ref.run) for ref in intake.backups}
    added = tuple(ref for ref in late if (ref.egress_id, ref.run) not in present)
    return intake.model_copy(update={"backups": intake.backups + added, "late": len(added)})
