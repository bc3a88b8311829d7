"""What the ledger says of whole backups: which of its files are safe, and what became of the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice

from livekit_backup.core.ledger import Ledger, in_parallel
from livekit_backup.core.wording import FOREVER, quoted
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import SAFE, Outcome
from livekit_backup.models.reconciliation import BackupState
from livekit_backup.models.references import BackupRef, FileIdentity
from livekit_backup.models.settings import BACKUP_LIFETIME
from livekit_backup.models.stored_webhook import EventSource

LISTS = 16
"""Lists of files that are in memory at a time: one of 20,000 segments takes 26 MB."""

MOST_SUSPECTS = 20
"""Named of one backup: of a damaged HLS recording a few segments tell enough."""

_GONE = frozenset({Outcome.EXPIRED, Outcome.MISSING})
_MAY_BE_TRIED_AGAIN = frozenset({Outcome.FAILED})


@dataclass(frozen=True)
class FileAccount:
    """One file and its last outcome, None where the ledger has none."""

    file: FileIdentity
    entry: LedgerEntry | None


@dataclass(frozen=True)
class BackupAccount:
    """One backup, as the ledger knows it."""

    ref: BackupRef
    files: tuple[FileAccount, ...]
    """Empty where its files are not known."""
    is_listed: bool = True
    """Whether a run has written down all its files; else there may be more than those that it knows."""

    @property
    def safe_files(self) -> int:
        """Files that are in the warehouse or in the customer's own bucket."""
        return sum(map(_is_safe, self.files))

    @property
    def suspects(self) -> tuple[str, ...]:
        """Files that landed and seem damaged, each in a sentence; of very many the first."""
        found = (file.entry for file in self.files if _is_safe(file) and file.entry and file.entry.suspect)
        return tuple(f"{quoted(entry.filename)}: {'; '.join(entry.suspect)}" for entry in islice(found, MOST_SUSPECTS))

    @property
    def is_safe(self) -> bool:
        """Whether its files are known, and all of them are safe."""
        return self._is_whole and self.safe_files == len(self.files)

    @property
    def _is_whole(self) -> bool:
        """Of what only a person's link leads to, nobody knows more than what that brought."""
        return bool(self.files) and (self.is_listed or self.ref.brought_by is EventSource.LINK)

    def deadline(self) -> datetime | None:
        """When the first link of a file that is not safe dies; None when all are safe."""
        return min(
            (self._deadline_of(file) for file in self._unsafe()), default=None if self._is_whole else self.lifetime
        )

    @property
    def lifetime(self) -> datetime:
        """When LiveKit lets go of the backup, by its event; far away where no event says when it ended."""
        ended = ended_of(self.ref)
        return ended + BACKUP_LIFETIME if ended else FOREVER

    def can_be_tried(self, now: datetime) -> bool:
        """Whether a file has no final outcome, and a link that lives."""
        if not self._is_whole:
            return self.lifetime > now
        return any(
            (file.entry is None or file.entry.outcome in _MAY_BE_TRIED_AGAIN) and self._deadline_of(file) > now
            for file in self._unsafe()
        )

    def savable(self, now: datetime) -> BackupAccount | None:
        """Return the account of what is safe or can still be made so, or None when there is nothing left to save."""
        kept = tuple(file for file in self.files if _is_safe(file) or not self._is_lost(file, now))
        is_open = not all(map(_is_safe, kept)) or (not self._is_whole and self.lifetime > now)
        return replace(self, files=kept) if is_open else None

    def lost_files(self, now: datetime) -> int | None:
        """Count the files that nobody can save any more; None where nobody knows how many they are."""
        if not self._is_whole and self.lifetime <= now:
            return None
        return sum(self._is_lost(file, now) for file in self._unsafe())

    def verdict(self, now: datetime, *, is_due: bool) -> tuple[BackupState, str]:
        """Return the state, and the reason in one sentence; empty where it is safe.

        :param is_due: a run that will take it up is due or under way.
        """
        if self.is_safe:
            return BackupState.SAFE, ""
        if not self.files:
            return self._without_outcome("it", now, is_due=is_due)
        verdicts = [self._verdict_on(file, now, is_due=is_due) for file in self._unsafe()]
        if not verdicts:
            return self._without_outcome("the rest of it", now, is_due=is_due)
        order = list(BackupState)
        state, reason = min(verdicts, key=lambda verdict: order.index(verdict[0]))
        more = sum(other == state for other, _ in verdicts) - 1
        return state, f"{reason}{f' (and {more} more files)' if more else ''}"

    def _verdict_on(self, account: FileAccount, now: datetime, *, is_due: bool) -> tuple[BackupState, str]:
        name = quoted(account.file.filename)
        entry, dead = account.entry, self._deadline_of(account) <= now
        if entry is None:
            return self._without_outcome(name, now, is_due=is_due, dead=dead)
        reason = f"{entry.outcome.value}: {name}: {entry.reason}"
        if self._is_lost(account, now):
            return BackupState.LOST, reason
        if is_due and entry.outcome in _MAY_BE_TRIED_AGAIN:
            return BackupState.PENDING, reason
        return BackupState.AT_RISK, reason

    def _without_outcome(
        self, name: str, now: datetime, *, is_due: bool, dead: bool | None = None
    ) -> tuple[BackupState, str]:
        if self.lifetime <= now if dead is None else dead:
            return BackupState.LOST, f"no run recovered {name} before its link died"
        if is_due:
            return BackupState.PENDING, f"a run that takes {name} up is due"
        return BackupState.UNACCOUNTED, f"the ledger has no outcome of {name}: did its run end without a report?"

    def _unsafe(self) -> Iterator[FileAccount]:
        return (file for file in self.files if not _is_safe(file))

    def _is_lost(self, account: FileAccount, now: datetime) -> bool:
        is_gone = account.entry is not None and account.entry.outcome in _GONE
        return is_gone or self._deadline_of(account) <= now

    def _deadline_of(self, account: FileAccount) -> datetime:
        """Of the backup's end and the link's, the earlier; a person's link may have been signed anew."""
        deadline = account.file.deadline or self.lifetime
        return deadline if self.ref.brought_by is EventSource.LINK else min(deadline, self.lifetime)


def _is_safe(account: FileAccount) -> bool:
    return account.entry is not None and account.entry.outcome in SAFE


def ended_of(ref: BackupRef) -> datetime | None:
    """When an egress ended, by its newest event."""
    try:
        return datetime.fromtimestamp(ref.ended_at / 10**9, UTC) if ref.ended_at > 0 else None
    except (ValueError, OverflowError, OSError):
        return None


def backup_accounts(ledger: Ledger, refs: Iterable[BackupRef]) -> Iterator[BackupAccount]:
    """Give the account of each backup, in their order.

    What the ledger says is taken at its word: whether a landed object is still there is asked by the runs
    that recover, and not here, where a recording that was moved on a week later is none the less safe.
    """
    todo = iter(refs)
    while batch := list(islice(todo, LISTS)):
        listed = in_parallel(lambda ref: ledger.read_files(ref.egress_id, ref.run), batch)
        for ref, known in zip(batch, listed, strict=True):
            yield BackupAccount(ref, _accounts(ledger, ref, known), is_listed=bool(known))


def _accounts(ledger: Ledger, ref: BackupRef, known: Sequence[FileIdentity]) -> tuple[FileAccount, ...]:
    """Of the files of the manifest's list; without one, of those that any run has written down."""
    if not known:
        return tuple(FileAccount(entry, entry) for entry in ledger.entries(ref.egress_id, ref.run))
    return tuple(map(FileAccount, known, in_parallel(ledger.read, known)))
