"""The statement of a run, and how it reads at 3 a.m."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.ledger import Ledger, entry_for
from livekit_backup.core.statements import (
    headline,
    is_safe,
    make_statement,
    render,
)
from livekit_backup.core.upload_notes import UploadNotes
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.outcome import IN_WAREHOUSE, SAFE, Outcome
from livekit_backup.models.references import (
    AccountedFile,
    BackupRef,
    EventRef,
    FileKind,
    Intake,
    OpenUpload,
    Plan,
    RecordingFile,
    UnreadableDocument,
)
from livekit_backup.models.statement import Statement, StatementLine
from livekit_backup.models.window import Window
from unit.fakes import MemoryStore

NOW = datetime(2026, 11, 20, 15, tzinfo=UTC)
WINDOW = Window(start=NOW - timedelta(hours=2), end=NOW - timedelta(hours=1))
ATTEMPT, EARLIER = Attempt(dag_id="d", run_id="r"), Attempt(dag_id="d", run_id="before")
REF = BackupRef(egress_id="EG_1", run=1, room_name="Room", events=(EventRef(uri="s3://b/in/e", position=0),))


def _file(name, hours=48.0, **changes):
    values = {
        "egress_id": "EG_1",
        "run": 1,
        "kind": FileKind.FILE,
        "started": NOW,
        "landing_uri": f"s3://b/out/{name}",
    }
    return RecordingFile(**{**values, "filename": name, "deadline": NOW + timedelta(hours=hours), **changes})


class Bench:
    def __init__(self):
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, "s3://b/out/_l")

    def state(self, failed=()):
        return make_statement(self.ledger, self.store, ATTEMPT, WINDOW, failed, NOW)

    def plan(self, *files, accounted=()):
        self.ledger.write_intake("d", "r", Intake(backups=(REF,), objects=3, events=4))
        self.ledger.write_plan("d", "r", Plan(to_recover=files, accounted=tuple(accounted)))

    def record(self, file, outcome, attempt=ATTEMPT, reason=""):
        entry = entry_for(file, outcome, reason, attempt)
        if outcome in IN_WAREHOUSE:
            self.store.put(file.landing_uri, b"recording")
            head = self.store.head(file.landing_uri)
            entry = entry.model_copy(update={"landed_uri": file.landing_uri, "size": head.size, "etag": head.etag})
        self.ledger.record(entry)


@pytest.fixture
def bench():
    return Bench()


def _line(outcome, name="a.mp4", **changes):
    return StatementLine(**{"egress_id": "EG_1", "run": 1, "filename": name, "outcome": outcome, **changes})


def _statement(*lines, **changes):
    return Statement(**{"dag_id": "d", "run_id": "r", "window": WINDOW, "written_at": NOW, "lines": lines, **changes})


def test_what_the_ledger_says_of_this_run_counts(bench):
    files = [_file(outcome.value) for outcome in Outcome]
    bench.plan(*files)
    for file, outcome in zip(files, Outcome, strict=True):
        bench.record(file, outcome)
    assert {line.filename: line.outcome.value for line in bench.state().lines} == {o.value: o.value for o in Outcome}


def test_what_landed_before_is_already_landed(bench):
    file = _file("a")
    bench.plan(file)
    bench.record(file, Outcome.LANDED, EARLIER)
    [line] = bench.state().lines
    assert (line.outcome, line.hours_left) == (Outcome.ALREADY_LANDED, None)


@pytest.mark.parametrize("attempt", [ATTEMPT, EARLIER])
def test_what_landed_and_is_not_there_any_more_is_not_safe(bench, attempt):
    file = _file("a")
    bench.plan(file)
    bench.record(file, Outcome.LANDED, attempt)
    bench.store.delete(file.landing_uri)
    statement = bench.state()
    assert statement.lines[0].outcome is Outcome.FAILED
    assert not is_safe(statement)


def test_what_lay_in_ones_own_bucket_before_is_no_answer_for_a_file_to_recover(bench):
    file = _file("a")
    bench.plan(file)
    bench.record(file, Outcome.IN_PRIMARY, EARLIER)
    assert bench.state().lines[0].outcome is Outcome.FAILED


def test_a_backup_that_the_plan_does_not_know_is_named(bench):
    bench.plan(_file("a"))
    bench.record(_file("a"), Outcome.LANDED)
    late = REF.model_copy(update={"egress_id": "EG_late"})
    bench.ledger.write_intake("d", "r", Intake(backups=(REF, late)))
    statement = bench.state()
    assert [line.egress_id for line in statement.recoverable] == ["EG_late"]
    assert not is_safe(statement)


def test_what_came_late_is_counted(bench):
    bench.plan(_file("a"))
    assert "came late" not in render(bench.state())
    bench.ledger.write_intake("d", "r", Intake(backups=(REF,), late=1))
    assert "\n1 backup of them came late" in render(bench.state())


def test_an_egress_that_was_asked_for_and_not_found_is_named(bench):
    bench.plan(_file("a"))
    bench.record(_file("a"), Outcome.LANDED)
    bench.ledger.write_intake("d", "r", Intake(backups=(REF,), wanted=("EG_1", "EG_typo")))
    statement = bench.state()
    assert [(line.egress_id, line.outcome) for line in statement.recoverable] == [("EG_typo", Outcome.UNRESOLVED)]
    assert not is_safe(statement)


def test_a_file_known_while_its_link_lived_is_not_lost_before_the_run(bench):
    file = _file("a", hours=-5)
    alive = entry_for(file, Outcome.FAILED, "busy", EARLIER).model_copy(
        update={"recorded_at": NOW - timedelta(hours=9)}
    )
    bench.ledger.record(alive)
    bench.plan(accounted=[AccountedFile(file=file, outcome=Outcome.EXPIRED, reason="expired")])
    bench.record(file, Outcome.EXPIRED, reason="expired")
    statement = bench.state()
    assert not statement.lines[0].was_lost
    assert not is_safe(statement)


@pytest.mark.parametrize("before", [None, Outcome.FAILED, Outcome.EXPIRED])
def test_a_file_whose_tasks_said_nothing_failed(bench, before):
    file = _file("a")
    bench.plan(file)
    if before:
        bench.record(file, before, EARLIER)
    [line] = bench.state().lines
    assert line.outcome is Outcome.FAILED
    assert "clear its download task" in line.reason
    assert bench.ledger.read(file).attempt == ATTEMPT


def test_a_link_that_was_dead_before_is_lost_and_does_not_fail_the_run(bench):
    file = _file("a", hours=-5)
    bench.plan(accounted=[AccountedFile(file=file, outcome=Outcome.EXPIRED, reason="expired")])
    bench.record(file, Outcome.EXPIRED, reason="expired")
    statement = bench.state()
    assert statement.lines[0].was_lost
    assert is_safe(statement)
    assert "1 LOST before this run" in headline(statement)


def test_a_link_that_died_during_the_run_fails_it(bench):
    file = _file("a", hours=-0.1)
    bench.plan(file)
    bench.record(file, Outcome.EXPIRED)
    assert not is_safe(bench.state())


def test_open_uploads_of_what_did_not_land_are_dropped(bench):
    landed, failed = _file("landed"), _file("failed")
    bench.plan(landed, failed)
    bench.record(landed, Outcome.LANDED)
    others = bench.store.create_upload(failed.landing_uri, content_type="x", metadata={}).upload_id
    ours = bench.store.create_upload(failed.landing_uri, content_type="x", metadata={}).upload_id
    for attempt, upload_id in ((ATTEMPT, ours), (EARLIER, others)):
        noted = OpenUpload(landing_uri=failed.landing_uri, upload_id=upload_id)
        UploadNotes(bench.ledger, attempt).put(failed, noted)
    bench.state()
    assert list(bench.store.uploads) == [others], "another run may still be at it"


def test_a_run_that_never_came_to_a_plan_names_its_backups(bench):
    bench.ledger.write_intake("d", "r", Intake(backups=(REF,)))
    statement = bench.state(["resolve_manifests"])
    [line] = statement.lines
    assert (line.egress_id, line.filename, line.outcome) == ("EG_1", "(all files)", Outcome.FAILED)
    assert len(statement.gaps) == 2
    assert not is_safe(statement)


def test_a_run_that_never_read_its_window_is_not_safe(bench):
    statement = bench.state()
    assert not is_safe(statement)
    assert "no task read it" in headline(statement)
    assert "ingest_events did not succeed" in headline(bench.state(["ingest_events"]))


def test_an_empty_window_is_safe(bench):
    bench.ledger.write_intake("d", "r", Intake(objects=3, events=4, failed_without_backup=("EG_9",)))
    statement = bench.state()
    assert is_safe(statement)
    assert headline(statement) == "no backup in this window (3 objects, 4 events read)"
    assert "FAILED WITHOUT A BACKUP (1; nothing to recover)\n  EG_9" in render(statement)


def test_only_unreadable_documents_that_may_be_backups_fail_it(bench):
    for flag in (False, True):
        document = UnreadableDocument(uri="s3://b/in/e", position=2, reason="not JSON", may_be_backup=flag)
        bench.ledger.write_intake("d", "r", Intake(unreadable=(document,)))
        statement = bench.state()
        assert is_safe(statement) is not flag
        assert ("1 unreadable document may be backups" in headline(statement)) is flag
        assert "UNREADABLE (1; they stay in the inbox)" in render(statement)


def test_the_headline():
    statement = _statement(
        _line(Outcome.LANDED),
        _line(Outcome.FAILED, "b", hours_left=30.04),
        _line(Outcome.CORRUPT, "c", hours_left=2.5),
        _line(Outcome.EXPIRED, "d", was_lost=True, hours_left=0.0),
        _line(Outcome.LANDED, "e", egress_id="EG_2"),
    )
    assert headline(statement) == (
        "5 files of 2 backups: 2 landed, 1 expired, 1 corrupt, 1 failed; "
        "2 NOT SAFE, nearest deadline in 2.5 h; 1 LOST before this run"
    )
    assert headline(_statement(_line(Outcome.LANDED))) == "1 file of 1 backup: 1 landed"


def test_what_needs_a_person_comes_first_nearest_deadline_on_top(bench):
    files = [
        _file("late", 90),
        _file("safe", 1),
        _file("soon", 2),
        _file("never", deadline=None),
        _file("also", 2),
    ]
    bench.plan(*files)
    for file in files:
        bench.record(file, Outcome.LANDED if file.filename == "safe" else Outcome.FAILED)
    statement = bench.state()
    assert [line.filename for line in statement.lines] == ["also", "soon", "late", "never", "safe"]
    text = render(statement)
    places = [text.index(f"· {name}") for name in ("also", "soon", "late", "never", "safe")]
    assert places == sorted(places)
    assert text.index("NOT SAFE (4)") < text.index("SAFE (1)")


def test_the_whole_text():
    text = render(
        _statement(
            _line(Outcome.FAILED, "dir/b.mp4", room_name="Room", size=61941096, reason="busy", hours_left=2.5),
            _line(Outcome.LANDED, landed_uri="s3://b/out/a.mp4", sha256="00ff", size=0),
        )
    )
    assert text == (
        "LiveKit backup recovery · 2026-11-20 13:00 to 2026-11-20 14:00 UTC · d · r\n"
        "2 files of 1 backup: 1 landed, 1 failed; 1 NOT SAFE, nearest deadline in 2.5 h\n"
        "\n"
        "NOT SAFE (1)\n"
        "  failed           59.1 MiB   2.5 h left  EG_1 · Room · dir/b.mp4\n"
        "                                          busy\n"
        "                                          → mend what the reason says, then clear its failed task\n"
        "\n"
        "SAFE (1)\n"
        "  landed                0 B               EG_1 · a.mp4\n"
        "                                          s3://b/out/a.mp4  sha256 00ff\n"
    )


HOSTILE = st.text(min_size=1, max_size=20) | st.sampled_from(["a\nSAFE (9)", "\x1b[2J", "a\rb", "\u202egpj", "\u2028x"])


@given(name=HOSTILE, room=HOSTILE, reason=HOSTILE, uri=HOSTILE)
def test_names_cannot_forge_a_line(name, room, reason, uri):
    lines = [
        _line(outcome, name, room_name=room, reason=reason, landed_uri=uri, sha256="00ff")
        for outcome in (Outcome.FAILED, Outcome.LANDED)
    ]
    document = UnreadableDocument(uri=uri, position=0, reason="not JSON", may_be_backup=True)
    text = render(_statement(*lines, unreadable=(document,)))
    assert len(text.splitlines()) == 2 + 2 * (2 + 3) + 1 + 3
    assert all(line.isprintable() for line in text.split("\n"))


def test_an_unknown_window():
    assert "unknown window" in render(_statement(window=None))


@pytest.mark.parametrize("outcome", Outcome)
def test_a_run_is_safe_when_every_file_is(outcome):
    assert is_safe(_statement(_line(outcome))) is (outcome in SAFE)


def test_the_word_of_a_run_beside_it_counts_and_that_of_an_earlier_one_does_not(bench):
    bench.plan(file := _file("a.mp4"))
    plan = bench.ledger.read_plan("d", "r")
    bench.record(file, Outcome.CORRUPT, Attempt(dag_id="d", run_id="beside"), "wrong bytes")
    for made_at, outcome in ((datetime.now(UTC) - timedelta(minutes=1), Outcome.CORRUPT), (None, Outcome.FAILED)):
        bench.ledger.write_plan("d", "r", plan.model_copy(update={"made_at": made_at}))
        [line] = bench.state().lines
        assert line.outcome is outcome
