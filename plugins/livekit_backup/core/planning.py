"""What a run does with each file of a resolved backup: recover it, or account for it at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from livekit_backup.core.found_files import ResolvedFile
from livekit_backup.core.landing_keys import landing_uri
from livekit_backup.core.locations import Location
from livekit_backup.core.resolution import ResolvedBackup
from livekit_backup.core.source_answers import has_expired
from livekit_backup.core.wording import FOREVER, hours_left, readable_size
from livekit_backup.errors import LivekitBackupError, RetryableError, UnresolvedError
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import AccountedFile, BackupRef, Plan, RecordingFile
from livekit_backup.models.settings import BACKUP_LIFETIME, Settings
from livekit_backup.models.stored_webhook import EventSource

CheckLocation = Callable[[Location], object]
FindPrimary = Callable[[Location], str | None]
"""Gives the ``s3://`` URI of an unsigned location in the customer's own store, or None when it is not there."""


def plan_backup(
    ref: BackupRef,
    backup: ResolvedBackup,
    settings: Settings,
    check: CheckLocation,
    now: datetime,
    find_primary: FindPrimary = lambda _: None,
) -> Plan:
    """Plan one backup. Every one of its files is in the plan exactly once."""
    to_recover, accounted = [], []
    for resolved in backup.files:
        file = _describe(ref, backup, resolved, now)
        try:
            if resolved.error:
                raise resolved.error
            assert resolved.location is not None
            if resolved.location.is_plain and (primary_uri := find_primary(resolved.location)):
                landing_uri = _land(file, settings)
                if primary_uri != landing_uri:
                    to_recover.append(file.model_copy(update={"landing_uri": landing_uri, "primary_uri": primary_uri}))
                    continue
            # Before the host is looked at: of a dead link nothing is fetched, and its host may never answer again.
            if has_expired(resolved.location, now):
                file = file.model_copy(update={"landing_uri": _land(file, settings)})
                reason = f"its link expired {resolved.location.deadline:%Y-%m-%d %H:%M} UTC, before this run began"
                accounted.append(AccountedFile(file=file, outcome=Outcome.EXPIRED, reason=reason))
                continue
            _check(resolved.location, check)
            if not resolved.location.is_signed and not resolved.location.is_plain:
                raise UnresolvedError(f"{resolved.location.name} carries a query, but no signature that is known here")
            if not resolved.location.is_signed:
                reason = f"unsigned location {resolved.location.name}: it is in your own bucket"
                accounted.append(AccountedFile(file=file, outcome=Outcome.IN_PRIMARY, reason=reason))
                continue
            to_recover.append(file.model_copy(update={"landing_uri": _land(file, settings)}))
        except LivekitBackupError as error:
            accounted.append(AccountedFile(file=file, outcome=error.outcome, reason=str(error)))
    return Plan(to_recover=tuple(to_recover), accounted=tuple(accounted))


def _check(location: Location, check: CheckLocation) -> None:
    # A name that does not resolve now may resolve when the download checks again.
    with contextlib.suppress(RetryableError):
        check(location)


def merge_plans(plans: Iterable[Plan], most: int) -> Plan:
    """Join plans, nearest deadline first, with at most ``most`` files to recover.

    What is over the limit is accounted for as failed, so that the run says so and a rerun goes on with it.
    """
    plans = list(plans)
    files = sorted(
        (file for plan in plans for file in plan.to_recover),
        key=lambda file: (file.deadline or FOREVER, file.egress_id, file.run, file.filename),
    )
    over = tuple(
        AccountedFile(
            file=file,
            outcome=Outcome.FAILED,
            reason=f"more than {most} files in one run ([core] max_map_length times bundle_files); clear "
            "resolve_manifests and what follows it once this run has ended, and it goes on with the rest",
        )
        for file in files[most:]
    )
    return Plan(
        to_recover=tuple(files[:most]),
        accounted=tuple(entry for plan in plans for entry in plan.accounted) + over,
    )


def _describe(ref: BackupRef, backup: ResolvedBackup, resolved: ResolvedFile, now: datetime) -> RecordingFile:
    egress = backup.egress
    deadline = resolved.location.deadline if resolved.location else None
    ended = egress.ended_at or egress.updated_at
    lifetime = (datetime.fromtimestamp(ended // 10**9, UTC) if ended else now) + BACKUP_LIFETIME
    if deadline is None and (resolved.location is None or resolved.location.is_signed):
        deadline = lifetime
    # A link is signed behind the end, and what LiveKit keeps for 7 days may be gone before it; a person's may be newer.
    if deadline and ended and ref.brought_by is not EventSource.LINK:
        deadline = min(deadline, lifetime)
    return RecordingFile(
        egress_id=egress.egress_id,
        run=egress.started_at,
        filename=resolved.filename,
        kind=resolved.kind,
        room_name=egress.room_name,
        room_id=egress.room_id,
        started=backup.started,
        size=resolved.size,
        seconds=resolved.seconds,
        deadline=deadline,
        events=ref.events,
        label=_label(egress.room_name or egress.egress_id, resolved, deadline, now),
    )


def _label(room: str, resolved: ResolvedFile, deadline: datetime | None, now: datetime) -> str:
    parts: Sequence[str] = [room, resolved.filename.rpartition("/")[2] or resolved.filename]
    if resolved.size:
        parts = [*parts, readable_size(resolved.size)]
    left = hours_left(deadline, now)
    if left is not None:
        parts = [*parts, f"{left:.0f} h left"]
    # Airflow keeps 250 characters of a label.
    return " · ".join("".join(char for char in part if char.isprintable())[:80] for part in parts)


def _land(file: RecordingFile, settings: Settings) -> str:
    return landing_uri(
        settings.warehouse,
        settings.ledger,
        settings.landing_key,
        filename=file.filename,
        kind=file.kind,
        egress_id=file.egress_id,
        run=file.run,
        started=file.started,
        room_name=file.room_name,
        room_id=file.room_id,
        inbox=settings.inbox,
    )
