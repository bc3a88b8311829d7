"""Makes a run's statement from the ledger, and prints it for a person at 3 a.m."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from livekit_backup.core.adopting import adopt
from livekit_backup.core.ledger import Ledger, entry_for, in_parallel
from livekit_backup.core.open_uploads import drop_left_open
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.wording import FOREVER, escaped, hours_left, quoted, readable_size
from livekit_backup.errors import LivekitBackupError
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.outcome import IN_WAREHOUSE, SAFE, Outcome
from livekit_backup.models.references import Intake, Plan, RecordingFile
from livekit_backup.models.settings import Verify
from livekit_backup.models.statement import Statement, StatementLine
from livekit_backup.models.store_abilities import StoreAbilities
from livekit_backup.models.window import Window

log = logging.getLogger(__name__)

WHAT_TO_DO = {
    Outcome.CORRUPT: "clear its download task; if it stays so, send this line to LiveKit's support",
    Outcome.MISSING: "send this line to LiveKit's support",
    Outcome.EXPIRED: "only LiveKit's support could still have it; see why the run came late",
    Outcome.REFUSED: "if you know the place, add its host to allowed_hosts, then clear resolve_manifests",
    Outcome.UNRESOLVED: "clear resolve_manifests with what follows it, while the links live",
    Outcome.FAILED: "mend what the reason says, then clear its failed task",
}
"""For a person who sees an outcome for the first time."""

MAX_NAMED_IN_XCOM = 20
"""Enough for a screen; the report has every name."""


def make_statement(
    ledger: Ledger,
    warehouse: ObjectStore,
    attempt: Attempt,
    window: Window,
    failed_tasks: Sequence[str],
    now: datetime,
    *,
    verify: Verify = Verify.STANDARD,
) -> Statement:
    """Return the statement of a run, from what the ledger holds; also drop uploads that were left open.

    A file whose tasks ended without a word is written down as failed, unless it has landed all the same.

    :param failed_tasks: tasks of the run, other than a file's own, that did not succeed.
    :param verify: how much has to be proven of what landed and was not written down.
    """
    intake = ledger.read_intake(attempt.dag_id, attempt.run_id)
    plan = ledger.read_plan(attempt.dag_id, attempt.run_id)
    gaps = [f"{task} did not succeed: see its log" for task in failed_tasks]
    if intake is None and not gaps:
        gaps.append("nothing is known of this window: no task read it")
    if intake and intake.backups and plan is None:
        gaps.append("the run ended before the files of its backups were known")
    at_its_word = verify is not Verify.STRICT

    def find(file: RecordingFile) -> LedgerEntry | None:
        return _landed_unheard_of(file, ledger, warehouse, attempt, now, at_its_word=at_its_word)

    lines = [*_lines(plan, ledger, find, attempt, now), *_lines_without_plan(intake, plan)]
    failed = {line.key for line in lines if line.outcome is Outcome.FAILED}
    may_land = {file.landing_uri for file in (plan.to_recover if plan else ()) if file.key in failed}
    drop_left_open(ledger, warehouse, attempt, may_land)
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
        late=intake.late if intake else 0,
        gaps=tuple(gaps),
    )


def _urgency(line: StatementLine) -> tuple[bool, datetime, str, str]:
    return (line.outcome in SAFE, line.deadline or FOREVER, line.egress_id, line.filename)


def _lines_without_plan(intake: Intake | None, plan: Plan | None) -> Iterator[StatementLine]:
    """Backups that came too late for the plan, and egresses that were asked for and not found."""
    if intake is None:
        return
    planned = {(file.egress_id, file.run) for file in plan.files} if plan else set()
    for backup in intake.backups:
        if (backup.egress_id, backup.run) not in planned:
            yield StatementLine(
                egress_id=backup.egress_id,
                run=backup.run,
                filename="(all files)",
                room_name=backup.room_name,
                outcome=Outcome.FAILED,
                reason="its files are not known yet: clear resolve_manifests with what follows it",
            )
    for egress_id in sorted(set(intake.wanted) - {backup.egress_id for backup in intake.backups}):
        yield StatementLine(
            egress_id=escaped(egress_id, 128),
            run=0,
            filename="(all files)",
            outcome=Outcome.UNRESOLVED,
            reason="the window holds no backup event of it: check the id and the window",
        )


_Find = Callable[[RecordingFile], LedgerEntry | None]


def _lines(plan: Plan | None, ledger: Ledger, find: _Find, attempt: Attempt, now: datetime) -> list[StatementLine]:
    if plan is None:
        return []
    dead = {known.file.key for known in plan.accounted if known.outcome is Outcome.EXPIRED}
    read = in_parallel(ledger.read_with_digest, plan.files)
    standing = ledger.standing([entry for entry, _ in read if entry])

    def line(file: RecordingFile, entry: LedgerEntry | None, digest: str) -> StatementLine:
        stands = file.key in standing
        counted = _outcome(entry, attempt, planned_at=plan.made_at, stands=stands)
        found = None if counted and counted.outcome in SAFE else find(file)
        if found or counted is None:
            counted = found or ledger.record(entry_for(file, Outcome.FAILED, _why_failed(entry), attempt))
            digest = ledger.read_with_digest(file)[1]
        return _line(file, counted, digest, was_dead=file.key in dead, now=now)

    return in_parallel(lambda known: line(known[0], *known[1]), zip(plan.files, read, strict=True))


def _landed_unheard_of(
    file: RecordingFile, ledger: Ledger, warehouse: ObjectStore, attempt: Attempt, now: datetime, *, at_its_word: bool
) -> LedgerEntry | None:
    """Return the entry of a file that has landed after all, though nobody could write it down."""
    try:
        # What the store honours is not known here; what counts as absent is made up for by reading the object.
        found = StoreAbilities(checked_at=now)
        if not file.landing_uri:
            return None
        return adopt(file, warehouse, ledger, attempt, found, at_its_word=at_its_word)
    except LivekitBackupError as error:
        log.warning("whether %s has landed unheard of is not known: %s", quoted(file.filename), error)
        return None


def _outcome(
    entry: LedgerEntry | None,
    attempt: Attempt,
    *,
    planned_at: datetime | None,
    stands: bool,
) -> LedgerEntry | None:
    """Return a file's entry as it counts for this run, or None where it has failed without a word.

    What landed counts only while its object is there.

    Of two runs at once over a file the later one's word stands in the ledger, and is as good.
    """
    ours = entry is not None and (entry.attempt.dag_id, entry.attempt.run_id) == (attempt.dag_id, attempt.run_id)
    if entry and entry.outcome in IN_WAREHOUSE:
        if not stands:
            return None
        return entry if ours else entry.model_copy(update={"outcome": Outcome.ALREADY_LANDED})
    return entry if entry and (ours or (planned_at and entry.recorded_at >= planned_at)) else None


def _why_failed(entry: LedgerEntry | None) -> str:
    if entry and entry.outcome in IN_WAREHOUSE:
        return f"it landed at {entry.landed_uri}, but is not there as it was: clear its download task"
    return "its tasks ended without an outcome (killed, or never started): clear its download task"


def _line(file: RecordingFile, entry: LedgerEntry, digest: str, *, was_dead: bool, now: datetime) -> StatementLine:
    safe = entry.outcome in SAFE
    first_seen = entry.first_seen or entry.recorded_at
    # Dead when the run planned it, and nobody here knew of it while it lived.
    was_lost = was_dead and not safe and (file.deadline is None or first_seen > file.deadline)
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
        suspect=entry.suspect if safe else (),
        deadline=file.deadline,
        hours_left=None if safe or entry.outcome is Outcome.EXPIRED else hours_left(file.deadline, now),
        was_lost=was_lost,
        entry_sha256=digest,
        recorded_at=entry.recorded_at,
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
    if statement.suspects:
        parts.append(f"{len(statement.suspects)} SUSPECT")
    if statement.unreadable_backups:
        parts.append(f"{_count(len(statement.unreadable_backups), 'unreadable document')} may be backups")
    parts.extend(statement.gaps)
    return "; ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def not_safe(statement: Statement) -> list[str]:
    """Return a sentence for each of the first files that are not safe, the nearest deadline first."""
    return [
        f"{line.outcome.value}, {_left(line)}{escaped(line.egress_id)} {quoted(line.filename)}: "
        f"{escaped(line.reason, 500)}"
        for line in statement.recoverable[:MAX_NAMED_IN_XCOM]
    ]


def _left(line: StatementLine) -> str:
    return "" if line.hours_left is None else f"{line.hours_left:.1f} h left, "


def render(statement: Statement) -> str:
    """Return the statement as text: what needs a person first, the nearest deadline at the top."""
    return "\n".join(_render(statement)) + "\n"


def _render(statement: Statement) -> Iterator[str]:
    window = statement.window
    hours = f"{window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC" if window else "unknown window"
    yield f"LiveKit backup recovery · {hours} · {statement.dag_id} · {statement.run_id}"
    yield headline(statement)
    if statement.late:
        yield f"{_count(statement.late, 'backup')} of them came late: an event in the hours before this window"
    lost = [line for line in statement.unsafe if line.was_lost]
    yield from _section("NOT SAFE", statement.recoverable)
    yield from _section("LOST", lost)
    yield from _suspects(statement.suspects)
    yield from _section("SAFE", [line for line in statement.lines if line.outcome in SAFE])
    if statement.unreadable:
        yield ""
        yield f"UNREADABLE ({len(statement.unreadable)}; they stay in the inbox)"
        for document in statement.unreadable:
            mark = "  may be a backup" if document.may_be_backup else ""
            yield f"  {quoted(document.uri, 500)} document {document.position}: {escaped(document.reason, 1000)}{mark}"
    if statement.failed_without_backup:
        yield ""
        yield f"FAILED WITHOUT A BACKUP ({len(statement.failed_without_backup)}; nothing to recover)"
        yield f"  {', '.join(map(escaped, statement.failed_without_backup))}"


def _suspects(lines: Sequence[StatementLine]) -> Iterator[str]:
    if not lines:
        return
    yield ""
    yield f"SUSPECT ({len(lines)}; landed as LiveKit has them, and seem damaged)"
    for line in lines:
        yield f"  {line.egress_id} {quoted(line.filename)}: {escaped('; '.join(line.suspect), 1000)}"
    yield "  → play them; while their links live, ask LiveKit's support"


def _section(title: str, lines: Iterable[StatementLine]) -> Iterator[str]:
    lines = list(lines)
    if not lines:
        return
    yield ""
    yield f"{title} ({len(lines)})"
    for line in lines:
        left = "" if line.hours_left is None else f"{line.hours_left:.1f} h left"
        size = "" if line.size is None else readable_size(line.size)
        room = f" · {escaped(line.room_name, 60)}" if line.room_name else ""
        name = escaped(line.filename)
        yield f"  {line.outcome.value:<14} {size:>10} {left:>12}  {escaped(line.egress_id)}{room} · {name}"
        if line.landed_uri:
            yield f"  {'':<14} {'':>10} {'':>12}  {escaped(line.landed_uri, 1100)}  sha256 {escaped(line.sha256)}"
        if line.reason:
            yield f"  {'':<14} {'':>10} {'':>12}  {escaped(line.reason, 1000)}"
        if line.outcome in WHAT_TO_DO:
            yield f"  {'':<14} {'':>10} {'':>12}  → {WHAT_TO_DO[line.outcome]}"
