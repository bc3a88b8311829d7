"""The ledger: a landing stays, and keys are made of what a thing is."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from livekit_backup.core.ledger import Ledger, in_parallel
from livekit_backup.core.upload_notes import UploadNotes
from livekit_backup.models.ledger_entry import HAD_LANDED, Attempt, LedgerEntry
from livekit_backup.models.outcome import IN_WAREHOUSE, Outcome
from livekit_backup.models.references import BackupRef, EventRef, FileKind, Intake, OpenUpload, Plan, RecordingFile
from livekit_backup.models.statement import Statement
from unit.fakes import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = "s3://b/out/_livekit_backup"
FILE = RecordingFile(egress_id="EG_1", run=5, filename="d/ü.mp4", kind=FileKind.FILE, started=NOW)


@pytest.fixture
def ledger():
    return Ledger(MemoryStore(), BASE)


def _entry(outcome, filename="d/ü.mp4", **changes):
    values = {"egress_id": "EG_1", "run": 5, "kind": FileKind.FILE, "started": NOW, "recorded_at": NOW}
    return LedgerEntry(**{**values, "filename": filename, "outcome": outcome, **changes})


def test_a_failure_never_takes_the_place_of_a_landing_that_came_meanwhile():
    store = MemoryStore()
    ledger = Ledger(store, BASE)
    store.put("s3://b/a.mp4", b"bytes")
    head, look = store.head("s3://b/a.mp4"), store.get
    landed = _entry(Outcome.LANDED, landed_uri="s3://b/a.mp4", size=head.size, etag=head.etag)

    def look_before_the_other_run_lands(uri):
        store.get = look
        found = look(uri)
        ledger.record(landed)
        return found

    store.get = look_before_the_other_run_lands
    assert ledger.record(_entry(Outcome.FAILED, reason="no answer")).outcome is Outcome.LANDED
    assert ledger.read(FILE).outcome is Outcome.LANDED


def test_what_is_recorded_is_read(ledger):
    assert ledger.read(FILE) is None
    assert ledger.record(_entry(Outcome.FAILED, reason="r")) == _entry(Outcome.FAILED, reason="r")
    assert ledger.read(FILE) == _entry(Outcome.FAILED, reason="r")


@pytest.mark.parametrize(("first", "then"), list(itertools.product(Outcome, Outcome)))
def test_a_landing_is_never_downgraded_while_its_object_is_there(ledger, first, then):
    ledger._store.put("s3://b/w/x", b"recording")
    head = ledger._store.head("s3://b/w/x")
    ledger.record(_entry(first, landed_uri="s3://b/w/x", size=head.size, etag=head.etag))
    kept = first if first in IN_WAREHOUSE and then not in IN_WAREHOUSE else then
    assert ledger.record(_entry(then)).outcome is kept
    assert ledger.read(FILE).outcome is kept
    ledger._store.delete("s3://b/w/x")
    assert ledger.record(_entry(then)).outcome is then


def test_a_failure_says_for_ever_that_there_was_a_landing_before_it(ledger):
    ledger.record(_entry(Outcome.LANDED, landed_uri="s3://b/gone"))
    for outcome in (Outcome.FAILED, Outcome.EXPIRED):
        assert ledger.record(_entry(outcome)).flags == (HAD_LANDED,)
    assert ledger.read(FILE).had_landed
    assert ledger.record(_entry(Outcome.LANDED)).flags == ()


@pytest.mark.parametrize(
    "filename", ["a", "../../x", "a\nb", "x" * 3000, "\ud800", "", "ü", "files/EG_2/1/x.json", "a/../b"]
)
def test_any_name_has_a_key_of_its_own(ledger, filename):
    uri = ledger.entry_uri("EG_1", 5, filename)
    prefix, _, name = uri.rpartition("/")
    assert prefix == f"{BASE}/files/EG_1/5"
    assert name.removesuffix(".json").isalnum()
    assert len(uri) < 200
    assert uri != ledger.entry_uri("EG_1", 5, f"{filename}2")


def test_files_are_told_apart_by_egress_run_and_name(ledger):
    uris = {
        ledger.entry_uri(*what)
        for what in (
            ("EG_1", 5, "a"),
            ("EG_1", 6, "a"),
            ("EG_2", 5, "a"),
            ("EG_1", 5, "b"),
            ("EG_1", 51, "a"),
        )
    }
    assert len(uris) == 5


def test_the_whole_list_of_a_backups_files(ledger):
    assert ledger.read_files("EG_1", 5) == ()
    ledger.write_files("EG_1", 5, [FILE, FILE.model_copy(update={"filename": "other"})])
    assert [identity.filename for identity in ledger.read_files("EG_1", 5)] == [FILE.filename, "other"]
    assert ledger.read_files("EG_1", 51) == ledger.read_files("EG_12", 5) == ()


def test_an_open_upload_is_known_to_its_run_alone(ledger):
    noted = OpenUpload(landing_uri=FILE.landing_uri, upload_id="u1", source_etag="e", size=7, part_size=5)
    UploadNotes(ledger, Attempt(dag_id="d", run_id="r")).put(FILE, noted)
    assert UploadNotes(ledger, Attempt(dag_id="d", run_id="r", try_number=2)).of(FILE) == [noted]
    assert UploadNotes(ledger, Attempt(dag_id="d", run_id="other")).of(FILE) == []


def test_runs_are_told_apart_whatever_their_ids(ledger):
    ids = ["scheduled__2026-01-01T00:00:00+00:00", "a b", "a_b", "a/b", "../../x", "ü", ""]
    uris = [ledger.run_uri("dag/1", run_id, "plan.json") for run_id in ids]
    assert len(set(uris)) == len(ids)
    for uri in uris:
        folder = uri.removeprefix(f"{BASE}/runs/dag_1/").removesuffix("/plan.json")
        assert "/" not in folder
        assert ".." not in folder.split("-")


def test_documents_of_a_run(ledger):
    ref = BackupRef(egress_id="EG_1", run=5, events=(EventRef(uri="u", position=0),))
    assert ledger.read_intake("d", "r") is None
    assert ledger.read_plan("d", "r") is None
    ledger.write_intake("d", "r", Intake(backups=(ref,)))
    ledger.write_plan("d", "r", Plan(to_recover=(FILE,)))
    assert ledger.read_intake("d", "r").backups == (ref,)
    assert ledger.read_plan("d", "r").to_recover == (FILE,)
    assert ledger.read_plan("d", "other") is None


def test_the_statement_is_stored_twice():
    store = MemoryStore()
    ledger = Ledger(store, BASE)
    uri = ledger.write_statement(Statement(dag_id="d", run_id="r", written_at=NOW), "tëxt\n")
    assert store.objects[uri] == "tëxt\n".encode()
    assert store.content_types[uri] == "text/plain; charset=utf-8"
    as_json = store.objects[uri.removesuffix("txt") + "json"]
    assert Statement.model_validate_json(as_json).run_id == "r"


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"later": "version"}'])
def test_a_damaged_document_counts_as_absent_and_is_written_anew(body, caplog):
    store = MemoryStore()
    ledger = Ledger(store, BASE)
    store.put(ledger.entry_uri("EG_1", 5, "d/ü.mp4"), body)
    assert ledger.read(FILE) is None
    assert "EG_1/5" in caplog.text
    ledger.record(_entry(Outcome.LANDED))
    assert ledger.read(FILE).outcome is Outcome.LANDED


def test_in_parallel_keeps_the_order_and_raises_the_first():
    assert in_parallel(lambda number: number * 2, range(100)) == [number * 2 for number in range(100)]
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda number: 1 // number, [1, 0, 2])


def test_an_attempt_is_kept(ledger):
    attempt = Attempt(dag_id="d", run_id="r", task_id="t", map_index=3, try_number=2)
    ledger.record(_entry(Outcome.LANDED, attempt=attempt))
    assert ledger.read(FILE).attempt == attempt
