"""Whole backups by their ledger documents: safe only when every file is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core.backup_accounts import backup_accounts, ended_of
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.wording import FOREVER
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.reconciliation import BackupState
from livekit_backup.models.references import BackupRef, FileKind, RecordingFile
from livekit_backup.models.stored_webhook import EventSource
from unit.fakes import MemoryStore

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ENDED = NOW - timedelta(days=1)
RUN = int(ENDED.timestamp()) * 10**9
REF = BackupRef(egress_id="EG_1", run=RUN, events=(), ended_at=RUN)


def file(name="a.mp4", **fields):
    fields = {"deadline": NOW + timedelta(days=6), **fields}
    return RecordingFile(egress_id="EG_1", run=RUN, filename=name, kind=FileKind.FILE, started=ENDED, **fields)


class Book:
    """A ledger in which a test writes down what earlier runs have left."""

    def __init__(self):
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, "s3://b/ledger")

    def list_files(self, *files):
        self.ledger.write_files("EG_1", RUN, files)

    def write(self, recording, outcome, reason=""):
        entry = LedgerEntry(**recording.identity(), outcome=outcome, reason=reason, recorded_at=NOW)
        self.store.put(self.ledger.entry_uri(*recording.key), entry.model_dump_json().encode())

    def account(self, ref=REF):
        [account] = backup_accounts(self.ledger, [ref])
        return account


@pytest.fixture
def book():
    return Book()


def test_all_files_safe_is_safe(book):
    book.list_files(file("a.mp4"), file("b.mp4"))
    book.write(file("a.mp4"), Outcome.LANDED)
    book.write(file("b.mp4"), Outcome.IN_PRIMARY)
    account = book.account()
    assert (account.is_safe, account.safe_files) == (True, 2)
    assert account.verdict(NOW, is_due=False) == (BackupState.SAFE, "")
    assert account.deadline() is None
    assert not account.can_be_tried(NOW)


def test_one_file_without_an_outcome_is_not_safe(book):
    book.list_files(file("a.mp4"), file("b.mp4"))
    book.write(file("a.mp4"), Outcome.LANDED)
    account = book.account()
    assert not account.is_safe
    state, reason = account.verdict(NOW, is_due=False)
    assert state is BackupState.UNACCOUNTED
    assert "'b.mp4'" in reason
    assert account.can_be_tried(NOW)
    assert account.verdict(NOW, is_due=True)[0] is BackupState.PENDING


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.FAILED, BackupState.AT_RISK),
        (Outcome.CORRUPT, BackupState.AT_RISK),
        (Outcome.REFUSED, BackupState.AT_RISK),
        (Outcome.UNRESOLVED, BackupState.AT_RISK),
        (Outcome.EXPIRED, BackupState.LOST),
        (Outcome.MISSING, BackupState.LOST),
    ],
)
def test_the_state_of_an_outcome(book, outcome, state):
    book.list_files(file())
    book.write(file(), outcome, "because")
    found, reason = book.account().verdict(NOW, is_due=False)
    assert found is state
    assert reason == f"{outcome.value}: 'a.mp4': because"


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.LANDED, Outcome.ALREADY_LANDED, Outcome.IN_PRIMARY}))
def test_what_is_not_safe_is_lost_once_its_link_is_dead(book, outcome):
    recording = file(deadline=NOW - timedelta(minutes=1))
    book.list_files(recording)
    book.write(recording, outcome)
    account = book.account()
    assert account.verdict(NOW, is_due=True)[0] is BackupState.LOST
    assert not account.can_be_tried(NOW)


def test_only_failures_are_tried_again(book):
    book.list_files(file())
    for outcome in Outcome:
        book.write(file(), outcome)
        assert book.account().can_be_tried(NOW) == (outcome is Outcome.FAILED)


def test_the_gravest_file_counts(book):
    book.list_files(file("a.mp4"), file("b.mp4"), file("c.mp4"), file("d.mp4"))
    book.write(file("a.mp4"), Outcome.FAILED, "busy")
    book.write(file("b.mp4"), Outcome.MISSING, "gone")
    book.write(file("c.mp4"), Outcome.MISSING, "gone too")
    book.write(file("d.mp4"), Outcome.LANDED)
    state, reason = book.account().verdict(NOW, is_due=False)
    assert state is BackupState.LOST
    assert reason == "missing: 'b.mp4': gone (and 1 more files)"


def test_a_backup_that_no_run_has_resolved(book):
    account = book.account()
    assert not account.is_safe
    assert account.deadline() == ENDED + timedelta(days=7)
    assert account.verdict(NOW, is_due=False)[0] is BackupState.UNACCOUNTED
    assert account.verdict(NOW, is_due=True)[0] is BackupState.PENDING
    assert account.can_be_tried(NOW)
    late = NOW + timedelta(days=8)
    assert account.verdict(late, is_due=True)[0] is BackupState.LOST
    assert not account.can_be_tried(late)


def test_without_a_list_the_written_files_count(book):
    book.write(file("a.mp4"), Outcome.LANDED)
    book.write(file("b.mp4"), Outcome.FAILED)
    account = book.account()
    assert (len(account.files), account.safe_files) == (2, 1)


def test_the_nearest_deadline_of_what_is_not_safe(book):
    near, far = NOW + timedelta(hours=2), NOW + timedelta(hours=50)
    book.list_files(file("a.mp4", deadline=near), file("b.mp4", deadline=far))
    assert book.account().deadline() == near
    book.write(file("a.mp4"), Outcome.LANDED)
    assert book.account().deadline() == far


def test_an_egress_that_never_said_when_it_ended_lives_as_long_as_can_be():
    ref = REF.model_copy(update={"ended_at": 0})
    assert ended_of(ref) is None
    assert ended_of(REF.model_copy(update={"ended_at": 2**63 - 1})) is not None
    [account] = backup_accounts(Book().ledger, [ref])
    assert account.lifetime == FOREVER


def test_many_backups_come_in_their_order(book):
    refs = [REF.model_copy(update={"egress_id": f"EG_{number}"}) for number in range(600)]
    assert [account.ref for account in backup_accounts(book.ledger, refs)] == refs


def test_what_can_be_saved_and_what_is_lost_of_one_backup(book):
    safe, lost, failed = file("safe.mp4"), file("lost.mp4"), file("failed.mp4")
    dead = file("dead.mp4", deadline=NOW - timedelta(hours=1))
    book.list_files(safe, lost, failed, dead)
    book.write(safe, Outcome.LANDED)
    book.write(lost, Outcome.MISSING, "404")
    book.write(failed, Outcome.FAILED, "503")
    account = book.account()
    assert account.lost_files(NOW) == 2
    rest = account.savable(NOW)
    assert [known.file.filename for known in rest.files] == ["safe.mp4", "failed.mp4"]
    assert rest.verdict(NOW, is_due=False) == (BackupState.AT_RISK, "failed: 'failed.mp4': 503")
    assert account.savable(NOW + timedelta(days=6)) is None


def test_of_unknown_files_all_can_be_saved_until_the_backups_end(book):
    account = book.account()
    end = ENDED + timedelta(days=7)
    assert account.savable(end - timedelta(minutes=1)) == account
    assert account.lost_files(end - timedelta(minutes=1)) == 0
    assert account.savable(end) is None
    assert account.lost_files(end) is None


def test_a_link_that_outlives_the_backup_gives_no_more_time_unless_a_person_brought_it(book):
    book.list_files(file(deadline=NOW + timedelta(days=60)))
    assert book.account().deadline() == ENDED + timedelta(days=7)
    by_person = REF.model_copy(update={"brought_by": EventSource.LINK})
    assert book.account(by_person).deadline() == NOW + timedelta(days=60)
