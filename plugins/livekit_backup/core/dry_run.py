"""What a run would do, and nothing done: every file with its outcome to be, its size, its deadline and its key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from livekit_backup.core.bundling import bundle, capacity
from livekit_backup.core.ledger import Ledger, in_parallel
from livekit_backup.core.planning import FindPrimary
from livekit_backup.core.resolution import FetchManifest
from livekit_backup.core.run_plan import plan_run
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.wording import FOREVER, escaped, hours_left, readable_size
from livekit_backup.models.outcome import SAFE, Outcome
from livekit_backup.models.references import Intake, Plan, RecordingFile
from livekit_backup.models.settings import OnConflict, Settings
from livekit_backup.models.window import Window

MOST_LINES = 500
"""Files that are named one by one: a task's log with more is read by nobody, and the real run's report has them all."""
RECOVER = "recover"
"""Stands where the outcome is not known before it is tried."""

_TAKEN = {
    OnConflict.KEEP_BOTH: "there is an object at this key: unless it is the same, this one lands beside",
    OnConflict.FAIL: "there is an object at this key: unless it is the same, this one fails",
    OnConflict.OVERWRITE: "there is an object at this key: it is overwritten",
}


class _OnlyRead:
    """A store as a plan needs it: what would be written is dropped, and there is no other way to write."""

    def __init__(self, store: ObjectStore) -> None:
        self.list_keys, self.list_objects = store.list_keys, store.list_objects
        self.open, self.get, self.head = store.open, store.get, store.head

    def put(self, uri: str, body: bytes, *, content_type: str = "application/json") -> None:
        """Drop it."""

    def put_new(self, *_: object, **__: object) -> bool:
        """Drop it."""
        return True


def reading_ledger(store: ObjectStore, base_uri: str) -> Ledger:
    """Return a ledger that writes nothing."""
    return Ledger(cast("ObjectStore", _OnlyRead(store)), base_uri)


@dataclass(frozen=True)
class PlannedFile:
    """One file, and what would become of it."""

    file: RecordingFile
    outcome: str
    """:data:`RECOVER`, or the outcome that is known without a download."""
    where: str
    """Its key, or where it has landed; empty when it cannot land."""
    note: str = ""


@dataclass(frozen=True)
class DryRun:
    """What a run would do."""

    window: Window
    intake: Intake
    files: tuple[PlannedFile, ...]
    """What would be recovered first, then what cannot be, then what is safe; of each the nearest deadline first."""
    tasks: int
    """How many download tasks would share what is to be recovered."""
    now: datetime

    @property
    def totals(self) -> dict[str, int]:
        """Files by what would become of them."""
        return dict(Counter(planned.outcome for planned in self.files))

    @property
    def to_recover(self) -> tuple[PlannedFile, ...]:
        """The files that would be downloaded."""
        return tuple(planned for planned in self.files if planned.outcome == RECOVER)

    def summary(self) -> dict[str, Any]:
        """Return the numbers alone."""
        deadlines = [planned.file.deadline for planned in self.to_recover if planned.file.deadline]
        left = hours_left(min(deadlines), self.now) if deadlines else None
        return {
            "plan_only": True,
            "objects": self.intake.objects,
            "events": self.intake.events,
            "backups": len(self.intake.backups),
            "unreadable": len(self.intake.unreadable),
            "files": len(self.files),
            "totals": self.totals,
            "bytes": sum(planned.file.size or 0 for planned in self.to_recover),
            "tasks": self.tasks,
            "nearest_deadline_hours": None if left is None else round(left, 1),
        }


def plan_dry(
    intake: Intake,
    *,
    window: Window,
    inbox: ObjectStore,
    warehouse: ObjectStore,
    settings: Settings,
    fetch: FetchManifest,
    most: int,
    now: datetime,
    find_primary: FindPrimary,
) -> DryRun:
    """Plan a run and write nothing.

    :param most: how many tasks one run can have.
    :param find_primary: as for :func:`~livekit_backup.core.run_plan.plan_run`.
    :raises StorageUnavailableError, AccessDeniedError: the inbox, the ledger or the warehouse cannot be read.
    """
    ledger = reading_ledger(warehouse, settings.ledger)
    plan = plan_run(
        intake.backups,
        inbox=inbox,
        ledger=ledger,
        settings=settings,
        fetch=fetch,
        most=capacity(settings, most),
        now=now,
        find_primary=find_primary,
    )
    files = _planned(plan, ledger, warehouse, settings)
    bundles = bundle([planned.file for planned in files if planned.outcome == RECOVER], settings, most, now)
    return DryRun(window, intake, tuple(sorted(files, key=_urgency)), len(bundles), now)


def _planned(plan: Plan, ledger: Ledger, warehouse: ObjectStore, settings: Settings) -> list[PlannedFile]:
    accounted = {known.file.key: known for known in plan.accounted}

    def planned(file: RecordingFile) -> PlannedFile:
        if landed := ledger.find_landed(file):
            return PlannedFile(file, Outcome.ALREADY_LANDED.value, landed.landed_uri)
        if known := accounted.get(file.key):
            return PlannedFile(file, known.outcome.value, file.landing_uri, known.reason)
        notes = [f"copied from {escaped(file.primary_uri, 1100)}"] if file.primary_uri else []
        if warehouse.head(file.landing_uri) is not None:
            notes.append(_TAKEN[settings.on_conflict])
        return PlannedFile(file, RECOVER, file.landing_uri, "; ".join(notes))

    return in_parallel(planned, plan.files)


def _urgency(planned: PlannedFile) -> tuple[bool, bool, datetime, str, int, str]:
    file = planned.file
    is_safe = planned.outcome in {outcome.value for outcome in SAFE}
    deadline = file.deadline or FOREVER
    return is_safe, planned.outcome != RECOVER, deadline, file.egress_id, file.run, file.filename


def headline(dry: DryRun) -> str:
    """Return the plan in one sentence."""
    if not dry.files:
        return f"no backup in this window ({dry.intake.objects} objects, {dry.intake.events} events read)"
    counted = ", ".join(f"{count} {outcome}" for outcome, count in dry.totals.items())
    parts = [f"{_count(len(dry.files), 'file')} of {_count(len(dry.intake.backups), 'backup')}: {counted}"]
    if dry.to_recover:
        size = readable_size(sum(planned.file.size or 0 for planned in dry.to_recover))
        unknown = sum(planned.file.size is None for planned in dry.to_recover)
        without = f" and {_count(unknown, 'file')} of unknown size" if unknown else ""
        parts.append(f"{size}{without} to download in {_count(dry.tasks, 'task')}")
        if (left := dry.summary()["nearest_deadline_hours"]) is not None:
            parts.append(f"nearest deadline in {left:.1f} h")
    if may_be := sum(document.may_be_backup for document in dry.intake.unreadable):
        parts.append(f"{_count(may_be, 'unreadable document')} may be backups")
    return "; ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def render(dry: DryRun) -> Iterator[str]:
    """Give the plan's lines for a log: the totals first, then the files, the nearest deadline at the top."""
    hours = f"{dry.window.start:%Y-%m-%d %H:%M} to {dry.window.end:%Y-%m-%d %H:%M} UTC"
    yield f"PLAN ONLY · {hours} · nothing is written"
    yield headline(dry)
    if dry.intake.late:
        yield f"{_count(dry.intake.late, 'backup')} of them came late: an event in the hours before this window"
    yield from _not_found(dry.intake)
    for planned in dry.files[:MOST_LINES]:
        yield _line(planned, dry.now)
    if len(dry.files) > MOST_LINES:
        rest = Counter(planned.outcome for planned in dry.files[MOST_LINES:])
        counted = ", ".join(f"{count} {outcome}" for outcome, count in rest.items())
        yield f"  and {len(dry.files) - MOST_LINES} more: {counted}"


def _not_found(intake: Intake) -> Iterator[str]:
    missing: Sequence[str] = sorted(set(intake.wanted) - {ref.egress_id for ref in intake.backups})
    if missing:
        shown = ", ".join(escaped(egress_id, 128) for egress_id in missing[:20])
        more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
        yield f"no backup event of {shown}{more}: check the id and the window"


def _line(planned: PlannedFile, now: datetime) -> str:
    file = planned.file
    size = "" if file.size is None else readable_size(file.size)
    left = hours_left(file.deadline, now) if planned.outcome == RECOVER else None
    shown = "" if left is None else f"{left:.1f} h left"
    room = f" · {escaped(file.room_name, 60)}" if file.room_name else ""
    where = f" → {escaped(planned.where, 1100)}" if planned.where else ""
    note = f" ({escaped(planned.note, 500)})" if planned.note else ""
    name = f"{file.egress_id}{room} · {escaped(file.filename)}"
    return f"  {planned.outcome:<14} {size:>10} {shown:>12}  {name}{where}{note}"
