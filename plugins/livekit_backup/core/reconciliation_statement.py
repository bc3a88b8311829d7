"""The statement over a window: N backups, N safe, 0 unaccounted; and by name what is not so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from livekit_backup.core.backup_accounts import BackupAccount, backup_accounts, ended_of
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.reconciling import ON_ITS_WAY, RUN_TIME, is_due
from livekit_backup.core.wording import escaped, hours_left, quoted
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.reconciliation import (
    BackupState,
    Comparison,
    FailedUpload,
    KnownBackup,
    ReconciledBackup,
    Reconciliation,
)
from livekit_backup.models.settings import Settings
from livekit_backup.models.stored_webhook import EventSource

WHAT_TO_DO = {
    BackupState.LOST: "only LiveKit's support could still have it",
    BackupState.UNACCOUNTED: "airflow livekit-backup recover {egress_id}",
    BackupState.AT_RISK: "mend what the reason says, then: airflow livekit-backup recover {egress_id}",
    BackupState.PENDING: "wait for the run; the next statement says how it ended",
}
ASK_LIVEKIT = (
    "LiveKit enables backup storage per Cloud project, and nothing says that it is off: "
    "ask LiveKit's support to enable it"
)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def reconciled(
    comparison: Comparison,
    ledger: Ledger,
    settings: Settings,
    now: datetime,
    attempt: Attempt | None = None,
    *,
    recovered: bool = False,
) -> Reconciliation:
    """Return the statement of a comparison, by what the ledger says now.

    :param recovered: the run that was to take up what was filed has ended, or was not started: nothing of it is
        pending any more.
    """
    attempt = attempt or Attempt()
    accounts = backup_accounts(ledger, (known.ref for known in comparison.backups))
    lines = [
        _line(known, account, comparison, settings, now, recovered=recovered)
        for known, account in zip(comparison.backups, accounts, strict=True)
    ]
    return Reconciliation(
        dag_id=attempt.dag_id,
        run_id=attempt.run_id,
        written_at=now,
        backups=tuple(sorted(lines, key=_oldest_first)),
        **comparison.beside(),
    )


def _oldest_first(line: ReconciledBackup) -> tuple[bool, datetime, str, int]:
    return (line.state is BackupState.SAFE, line.ended or _LONG_AGO, line.egress_id, line.run)


def _line(
    known: KnownBackup,
    account: BackupAccount,
    comparison: Comparison,
    settings: Settings,
    now: datetime,
    *,
    recovered: bool,
) -> ReconciledBackup:
    ended = ended_of(known.ref)
    if known.filed:
        due = not recovered and now < comparison.compared_at + settings.grace + RUN_TIME
    elif known.in_inbox:
        due = is_due(ended, settings.grace, now)
    else:
        due = ended is not None and now < ended + ON_ITS_WAY
    state, reason = account.verdict(now, is_due=due)
    if state is BackupState.UNACCOUNTED and known.filed and not account.files:
        reason = "it was filed, but no run has taken it up: is the recovery DAG there, not paused, and working?"
    elif state is BackupState.UNACCOUNTED and not known.in_inbox and not known.filed:
        reason = "no webhook brought it, and no run has filed it"
    deadline = None if state is BackupState.SAFE else account.deadline()
    return ReconciledBackup(
        egress_id=known.ref.egress_id,
        run=known.ref.run,
        room_name=known.ref.room_name,
        state=state,
        reason=reason,
        files=len(account.files) or None,
        safe_files=account.safe_files,
        suspects=account.suspects,
        found_by_reconcile=not known.in_inbox or known.ref.brought_by is not EventSource.WEBHOOK,
        ended=ended,
        deadline=deadline,
        hours_left=None if state is BackupState.LOST else hours_left(deadline, now),
    )


def headline(statement: Reconciliation) -> str:
    """Return the statement in one sentence: every state is named, also those without a backup."""
    totals = statement.totals
    number = len(statement.backups)
    parts = [f"{number} backup{'' if number == 1 else 's'} in the window: {totals['safe']} safe"]
    parts += [f"{totals[state.value]} {state.value.replace('_', ' ')}" for state in reversed(BackupState)][1:]
    sentences = [", ".join(parts)]
    nearest = min((line.hours_left for line in statement.not_safe if line.hours_left is not None), default=None)
    if nearest is not None:
        sentences.append(f"nearest deadline in {nearest:.1f} h")
    if suspect := sum(bool(line.suspects) for line in statement.backups):
        sentences.append(f"{suspect} with suspect files")
    if statement.unreadable_backups:
        sentences.append(f"{len(statement.unreadable_backups)} unreadable documents may be backups")
    if statement.failed_uploads:
        sentences.append(f"{len(statement.failed_uploads)} failed uploads without a backup")
    return "; ".join([*sentences, *statement.gaps])


def render(statement: Reconciliation) -> str:
    """Return the statement as text: what is not safe first, the oldest at the top."""
    return "\n".join(_render(statement)) + "\n"


def _render(statement: Reconciliation) -> Iterator[str]:
    window = statement.window
    yield f"LiveKit backups · {window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC"
    yield headline(statement)
    yield f"LiveKit lists {statement.listed} egresses; the inbox holds {statement.events} events"
    yield from _not_safe(statement.not_safe)
    safe = len(statement.backups) - len(statement.not_safe)
    by_reconcile = sum(line.found_by_reconcile for line in statement.backups if line.state is BackupState.SAFE)
    if safe:
        found = f"; {by_reconcile} of them no webhook brought" if by_reconcile else ""
        yield ""
        yield f"SAFE ({safe}{found})"
    yield from _suspects([line for line in statement.backups if line.suspects])
    may_be = statement.unreadable_backups
    if may_be:
        yield ""
        yield f"UNREADABLE ({len(may_be)} may be backups)"
        for document in may_be:
            yield f"  {quoted(document.uri, 500)} document {document.position}: {escaped(document.reason, 500)}"
    yield from _failed(statement.failed_uploads)


def _not_safe(lines: Iterable[ReconciledBackup]) -> Iterator[str]:
    lines = list(lines)
    if not lines:
        return
    yield ""
    yield f"NOT SAFE ({len(lines)}, the oldest first)"
    for line in lines:
        left = "" if line.hours_left is None else f"{line.hours_left:.1f} h left"
        ended = "" if line.ended is None else f"{line.ended:%Y-%m-%d %H:%M}"
        files = "files unknown" if line.files is None else f"{line.safe_files} of {line.files} files safe"
        room = f" · {escaped(line.room_name, 60)}" if line.room_name else ""
        yield f"  {line.state.value.upper():<12} {left:>14}  {ended:<16}  {line.egress_id}{room} · {files}"
        yield f"  {'':<12} {'':>14}  {'':<16}  {escaped(line.reason, 1000)}"
        yield f"  {'':<12} {'':>14}  {'':<16}  → {WHAT_TO_DO[line.state].format(egress_id=line.egress_id)}"


def _suspects(lines: Sequence[ReconciledBackup]) -> Iterator[str]:
    if not lines:
        return
    yield ""
    yield f"SUSPECT ({len(lines)}; they landed as LiveKit has them, and seem damaged)"
    for line in lines:
        room = f" · {escaped(line.room_name, 60)}" if line.room_name else ""
        yield f"  {line.egress_id}{room}"
        yield from (f"    {escaped(text, 1000)}" for text in line.suspects)
    yield "  → play them; while their links live, ask LiveKit's support"


def _failed(failed: Iterable[FailedUpload]) -> Iterator[str]:
    failed = list(failed)
    if not failed:
        return
    yield ""
    yield f"FAILED TO UPLOAD, AND NO BACKUP ({len(failed)}: these recordings are nowhere)"
    for upload in failed:
        ended = "" if upload.ended is None else f"{upload.ended:%Y-%m-%d %H:%M}"
        room = f" · {escaped(upload.room_name, 60)}" if upload.room_name else ""
        reason = upload.reason or "its upload failed by its event in the inbox"
        yield f"  {ended:<16}  {upload.egress_id}{room}: {reason}"
    yield f"  → {ASK_LIVEKIT}"
