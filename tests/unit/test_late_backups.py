"""Backups that came late are found once, by the run that looks back, and stay that run's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from livekit_backup.core.inbox import IntakeReader
from livekit_backup.core.late_backups import find_late, with_late
from livekit_backup.core.ledger import Ledger, entry_for
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import FileKind, Intake, RecordingFile
from unit.fakes import MemoryStore, egress_ended


class Inbox:
    def __init__(self, *egress_ids):
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, "s3://b/out/_l")
        for egress_id in egress_ids:
            self.put(egress_id)

    def put(self, egress_id, **info):
        body = json.dumps(egress_ended(egress_id, backupStorageUsed=True, **info)).encode()
        self.store.put(f"s3://b/in/{len(self.store.objects)}", body)

    def late(self, wanted=(), own=None):
        return find_late(self.store, self.store.list_keys("s3://b/in/"), self.ledger, wanted=wanted, own=own)

    def ids(self, **options):
        return [ref.egress_id for ref in self.late(**options)]

    def intake(self):
        reader = IntakeReader()
        reader.read(self.store, self.store.list_keys("s3://b/in/"))
        return reader.result()

    def knows_files_of(self, ref):
        self.ledger.write_files(ref.egress_id, ref.run, [self.file(ref)])

    def file(self, ref):
        return RecordingFile(
            egress_id=ref.egress_id, run=ref.run, filename="a", kind=FileKind.FILE, started=datetime.now(UTC)
        )


def test_only_what_no_run_knows_of_is_late():
    inbox = Inbox("EG_1", "EG_2", "EG_3")
    first, second, _ = inbox.late()
    inbox.knows_files_of(first)
    inbox.ledger.record(entry_for(inbox.file(second), Outcome.UNRESOLVED, "gone", Attempt(dag_id="d", run_id="r")))
    assert inbox.ids() == ["EG_3"]


def test_another_run_of_the_same_egress_is_another_backup():
    inbox = Inbox("EG_1")
    inbox.knows_files_of(inbox.late()[0])
    inbox.put("EG_1", startedAt="1732135319356239999")
    [late] = inbox.late()
    assert late.run == 1732135319356239999


def test_only_wanted_egresses_count():
    assert Inbox("EG_1", "EG_2").ids(wanted=["EG_2"]) == ["EG_2"]


def test_what_this_run_took_up_before_stays_its_own():
    inbox = Inbox("EG_1", "EG_2")
    for ref in inbox.late():
        inbox.knows_files_of(ref)
    assert inbox.ids() == []
    own = with_late(Intake(), inbox.intake().backups[:1])
    assert inbox.ids(own=own) == ["EG_1"], "its own tasks have written of it since"


def test_what_its_window_holds_as_well_is_not_late():
    window, earlier = Inbox("EG_1").intake(), Inbox("EG_1", "EG_2").intake()
    both = with_late(window, earlier.backups)
    assert [ref.egress_id for ref in both.backups] == ["EG_1", "EG_2"]
    assert both.backups[0] == window.backups[0]
    assert (both.late, [ref.egress_id for ref in both.came_late]) == (1, ["EG_2"])


@pytest.mark.parametrize("late", [(), Inbox("EG_1").intake().backups])
def test_an_intake_of_nothing_late(late):
    window = Inbox("EG_1").intake()
    assert with_late(window, late) == window
    assert window.came_late == Intake().came_late == ()


def test_every_document_of_the_ledger_is_a_reason_to_know_a_backup():
    inbox = Inbox("EG_1")
    [ref] = inbox.late()
    assert not inbox.ledger.knows(ref.egress_id, ref.run)
    assert not inbox.ledger.knows(ref.egress_id, ref.run // 10)
    inbox.knows_files_of(ref)
    assert inbox.ledger.knows(ref.egress_id, ref.run)
    assert not inbox.ledger.knows(ref.egress_id, ref.run // 10), "a run's number is no prefix of another's"
