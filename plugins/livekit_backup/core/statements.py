"""Makes a run's statement from the ledger, and prints it for a person at 3 a.m."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from livekit_backup.core.landing import drop_open_uploads
from livekit_backup.core.landing_keys import printable
from livekit_backup.core.ledger import Ledger, entry_for, in_parallel
from livekit_backup.core.planning import hours_left, readable_size
from livekit_backup.core.storage import ObjectStore
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.outcome import IN_WAREHOUSE, SAFE, Outcome
from livekit_backup.models.references import Intake, Plan, RecordingFile
from livekit_backup.models.statement import Statement, StatementLine
from livekit_backup.models.window import Window

MAX_NAMED_IN_ASSET = 100
"""An asset event's extra is a database row; the report has every name."""

MAX_NAMED_IN_XCOM = 20
"""Enough for a screen; the report has every name."""

_FAR = datetime.max.replace(tzinfo=UTC)


def make_statement(
    ledger: Ledger,
    warehouse: ObjectStore,
    attempt: Attempt,
    window: Window,
    failed_tasks: Sequence[str],
    now: datetime,
) -> Statement:
    """Return the statement of a run, from what the ledger holds; also drop uploads that were left open.

    A file whose tasks ended without a word is written down as failed.

    :param failed_tasks: tasks of the run, other than a file's own, that did not succeed.
    """
    intake = ledger.read_intake(attempt.dag_id, attempt.run_id)
    plan = ledger.read_plan(attempt.dag_id, attempt.run_id)
    gaps = [f"{task} did not succeed: see its log" for task in failed_tasks]
    if intake is None and not gaps:
        gaps.append("nothing is known of this window: no task read it")
    lines: list[StatementLine] = []
    if intake and intake.backups and plan is None:
        gaps.append("the run ended before the files of its backups were known")
        lines = [_whole_backup(intake, index) for index in range(len(intake.backups))]
    elif plan:
        lines = _lines(plan, ledger, attempt, now)
        landed = {(line.egress_id, line.run, line.filename) for line in lines if line.outcome in IN_WAREHOUSE}
        drop_open_uploads(
            [file for file in plan.to_recover if (file.egress_id, file.run, file.filename) not in landed],
            warehouse,
        )
    return Statement(
        dag_id=attempt.dag_id,
        run_id=attempt.run_id,
        window=window,
        written_at=now,
        lines=tuple(sorted(lines, key=_urgency)),
        unreadable=intake.unreadable if intake else (),
        failed_without_backup=intake.failed_without_backup if intake else (),
        objects=intake.objects if intake else 0,
        events=intake.events if intake else 0,
        gaps=tuple(gaps),
    )


def _urgency(line: StatementLine) -> tuple[bool, datetime, str, str]:
    return (line.outcome in SAFE, line.deadline or _FAR, line.egress_id, line.filename)


def _whole_backup(intake: Intake, index: int) -> StatementLine:
    backup = intake.backups[index]
    return StatementLine(
        egress_id=backup.egress_id,
        run=backup.run,
        filename="(all files)",
        room_name=backup.room_name,
        outcome=Outcome.FAILED,
        reason="resolve_manifests did not end, so its files are not known: clear that task",
    )


def _lines(plan: Plan, ledger: Ledger, attempt: Attempt, now: datetime) -> list[StatementLine]:
    lost = {
        (known.file.egress_id, known.file.run, known.file.filename)
        for known in plan.accounted
        if known.outcome is Outcome.EXPIRED
    }
    files = [*plan.to_recover, *(known.file for known in plan.accounted)]

    def line(file: RecordingFile) -> StatementLine:
        was_lost = (file.egress_id, file.run, file.filename) in lost
        return _line(file, _outcome(file, ledger, attempt), was_lost=was_lost, now=now)

    return in_parallel(line, files)


def _outcome(file: RecordingFile, ledger: Ledger, attempt: Attempt) -> LedgerEntry:
    """Return a file's entry as it counts for this run."""
    entry = ledger.read(file)
    if entry and (entry.attempt.dag_id, entry.attempt.run_id) == (attempt.dag_id, attempt.run_id):
        return entry
    if entry and entry.outcome in IN_WAREHOUSE:
        return entry.model_copy(update={"outcome": Outcome.ALREADY_LANDED})
    if entry and entry.outcome is Outcome.IN_PRIMARY:
        return entry
    reason = "its tasks ended without an outcome (killed, or never started): clear its download task"
    return ledger.record(entry_for(file, Outcome.FAILED, reason, attempt))


def _line(file: RecordingFile, entry: LedgerEntry, *, was_lost: bool, now: datetime) -> StatementLine:
    safe = entry.outcome in SAFE
    return StatementLine(
        egress_id=file.egress_id,
        run=file.run,
        filename=file.filename,
        room_name=file.room_name,
        outcome=entry.outcome,
        reason=entry.reason,
        size=entry.size if entry.size is not None else file.size,
        sha256=entry.sha256,
        landed_uri=entry.landed_uri,
        deadline=file.deadline,
        hours_left=None if safe else hours_left(file.deadline, now),
        was_lost=was_lost and not safe,
    )


def is_safe(statement: Statement) -> bool:
    """Whether nothing that could be recovered is left, and nothing remained unknown."""
    return not (statement.recoverable or statement.gaps or statement.unreadable_backups)


def headline(statement: Statement) -> str:
    """Return the statement in one sentence."""
    if not statement.lines and not statement.gaps and not statement.unreadable_backups:
        return f"no backup in this window ({statement.objects} objects, {statement.events} events read)"
    counted = ", ".join(f"{count} {outcome}" for outcome, count in statement.totals.items()) or "no files"
    backups = len({(line.egress_id, line.run) for line in statement.lines})
    parts = [f"{_count(len(statement.lines), 'file')} of {_count(backups, 'backup')}: {counted}"]
    nearest = min((line.hours_left for line in statement.recoverable if line.hours_left is not None), default=None)
    if statement.recoverable:
        left = "" if nearest is None else f", nearest deadline in {nearest:.1f} h"
        parts.append(f"{len(statement.recoverable)} NOT SAFE{left}")
    lost = len(statement.unsafe) - len(statement.recoverable)
    if lost:
        parts.append(f"{lost} LOST before this run")
    if statement.unreadable_backups:
        parts.append(f"{_count(len(statement.unreadable_backups), 'unreadable document')} may be backups")
    parts.extend(statement.gaps)
    return "; ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def not_safe(statement: Statement) -> list[str]:
    """Return a sentence for each of the first files that are not safe, the nearest deadline first."""
    return [
        f"{line.outcome.value}, {_left(line)}{line.egress_id} {printable(line.filename)}: "
        f"{printable(line.reason, 500)[1:-1]}"
        for line in statement.recoverable[:MAX_NAMED_IN_XCOM]
    ]


def _left(line: StatementLine) -> str:
    return "" if line.hours_left is None else f"{line.hours_left:.1f} h left, "


def landed_extra(statement: Statement) -> dict[str, Any]:
    """Return an asset event's extra: what landed in this run, by name; empty when nothing did."""
    landed = [line for line in statement.lines if line.outcome is Outcome.LANDED]
    if not landed:
        return {}
    return {
        "run_id": statement.run_id,
        "files": len(landed),
        "landed": [
            {
                "egress_id": line.egress_id,
                "room_name": line.room_name,
                "uri": line.landed_uri,
                "sha256": line.sha256,
            }
            for line in landed[:MAX_NAMED_IN_ASSET]
        ],
    }


def render(statement: Statement) -> str:
    """Return the statement as text: what needs a person first, the nearest deadline at the top."""
    return "\n".join(_render(statement)) + "\n"


def _render(statement: Statement) -> Iterator[str]:
    window = statement.window
    hours = f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC" if window else "unknown window"
    yield f"LiveKit backup recovery · {hours} · {statement.dag_id} · {statement.run_id}"
    yield headline(statement)
    lost = [line for line in statement.unsafe if line.was_lost]
    yield from _section("NOT SAFE", statement.recoverable)
    yield from _section("LOST", lost)
    yield from _section("SAFE", [line for line in statement.lines if line.outcome in SAFE])
    if statement.unreadable:
        yield ""
        yield f"UNREADABLE ({len(statement.unreadable)}; they stay in the inbox)"
        for document in statement.unreadable:
            mark = "  may be a backup" if document.may_be_backup else ""
            yield f"  {printable(document.uri, 500)} document {document.position}: {document.reason}{mark}"
    if statement.failed_without_backup:
        yield ""
        yield f"FAILED WITHOUT A BACKUP ({len(statement.failed_without_backup)}; nothing to recover)"
        yield f"  {', '.join(statement.failed_without_backup)}"


def _section(title: str, lines: Iterable[StatementLine]) -> Iterator[str]:
    lines = list(lines)
    if not lines:
        return
    yield ""
    yield f"{title} ({len(lines)})"
    for line in lines:
        left = "" if line.hours_left is None else f"{line.hours_left:.1f} h left"
        size = "" if line.size is None else readable_size(line.size)
        room = f" · {printable(line.room_name, 60)[1:-1]}" if line.room_name else ""
        name = printable(line.filename)[1:-1]
        yield f"  {line.outcome.value:<14} {size:>10} {left:>12}  {line.egress_id}{room} · {name}"
        if line.landed_uri:
            yield f"  {'':<14} {'':>10} {'':>12}  {printable(line.landed_uri, 1100)[1:-1]}  sha256 {line.sha256}"
        if line.reason:
            yield f"  {'':<14} {'':>10} {'':>12}  {printable(line.reason, 1000)[1:-1]}"
