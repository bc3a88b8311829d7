"""What a run would do, printed, with nothing written."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core import run_plan
from livekit_backup.core.dry_run import MOST_LINES, RECOVER, headline, plan_dry, reading_ledger, render
from livekit_backup.core.inbox import IntakeReader
from livekit_backup.core.ledger import Ledger, entry_for
from livekit_backup.errors import LinkExpiredError, SourceUnavailableError
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.manifest import Manifest
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import BackupRef, EventRef, FileKind, RecordingFile, UnreadableDocument
from livekit_backup.models.settings import OnConflict, Settings
from livekit_backup.models.window import Window
from unit.fakes import MemoryStore, egress_ended, signed

NOW = datetime(2026, 11, 21, tzinfo=UTC)
"""The links of ``signed`` die 164.7 h later."""
WINDOW = Window(start=NOW - timedelta(hours=2), end=NOW - timedelta(hours=1))
ATTEMPT = Attempt(dag_id="d", run_id="r")


@pytest.fixture(autouse=True)
def _no_dns(monkeypatch):
    monkeypatch.setattr(run_plan, "system_resolver", lambda host, port: ["52.218.1.1"])


class Bench:
    def __init__(self, *events):
        self.inbox, self.warehouse = MemoryStore(), MemoryStore()
        for number, event in enumerate(events):
            self.inbox.put(f"s3://in/{number:03}", json.dumps(event).encode())
        self.settings = Settings(inbox="s3://in", warehouse="s3://b/out", ledger="s3://b/out/_l")
        self.ledger = Ledger(self.warehouse, self.settings.ledger)
        self.manifests = {}
        self.changes = {}

    def fetch(self, location):
        answer = self.manifests[location.path]
        if isinstance(answer, Exception):
            raise answer
        return Manifest.model_validate(answer)

    def dry(self, now=NOW, most=100, find_primary=lambda _: None, **intake):
        reader = IntakeReader(intake.pop("wanted", ()))
        reader.read(self.inbox, self.inbox.list_keys("s3://in/"))
        return plan_dry(
            reader.result().model_copy(update=intake),
            window=WINDOW,
            inbox=self.inbox,
            warehouse=self.warehouse,
            settings=self.settings.model_copy(update=self.changes),
            fetch=self.fetch,
            most=most,
            now=now,
            find_primary=find_primary,
        )

    def text(self, **options):
        return "\n".join(render(self.dry(**options)))

    def landed(self, planned, uri):
        self.warehouse.put(uri, b"recording")
        head = self.warehouse.head(uri)
        landed = {"landed_uri": uri, "size": head.size, "etag": head.etag}
        self.ledger.record(entry_for(planned.file, Outcome.LANDED, "", ATTEMPT).model_copy(update=landed))


def event(egress_id, *names, date="20261120T204342Z", size="1048576", **info):
    results = [{"filename": name, "size": size, "location": signed(f"{egress_id}/{name}", date)} for name in names]
    return egress_ended(egress_id, backupStorageUsed=True, fileResults=results, **info)


def test_it_says_what_a_person_asks():
    text = Bench(event("EG_1", "a.mp4", roomName="Standup")).text()
    assert text.splitlines() == [
        "PLAN ONLY · 2026-11-20 22:00 to 2026-11-20 23:00 UTC · nothing is written",
        "1 file of 1 backup: 1 recover; 1.0 MiB to download in 1 task; nearest deadline in 164.7 h",
        "  recover           1.0 MiB 164.7 h left  EG_1 · Standup · a.mp4 → s3://b/out/dt=2024-11-20/EG_1/a.mp4",
    ]


def test_nothing_is_written():
    bench = Bench(
        event("EG_1", "a"),
        event("EG_2", "b", date="20260101T000000Z"),
        event("EG_3", "c", manifestLocation=signed("m")),
    )
    bench.manifests["/m"] = {"egress_id": "EG_3", "files": [{"filename": "c", "location": signed("EG_3/c")}]}
    assert len(bench.dry().files) == 3
    assert bench.warehouse.objects == {}
    assert bench.warehouse.uploads == {}
    assert len(bench.inbox.objects) == 3


def test_a_reading_ledger_reads_and_drops_what_is_written():
    bench = Bench(event("EG_1", "a"))
    [planned] = bench.dry().files
    bench.landed(planned, "s3://b/out/a")
    before = dict(bench.warehouse.objects)
    ledger = reading_ledger(bench.warehouse, "s3://b/out/_l")
    assert ledger.find_landed(planned.file)
    ledger.write_files("EG_1", 1, [planned.file])
    ledger.record(entry_for(planned.file, Outcome.FAILED, "x", ATTEMPT))
    ledger.write_intake("d", "r", bench.dry().intake)
    assert bench.warehouse.objects == before


def test_every_outcome_that_is_known_beforehand():
    bench = Bench(
        event("EG_1", "landed", "fresh"),
        event("EG_2", "dead", date="20260101T000000Z"),
        egress_ended("EG_3", backupStorageUsed=True,
                     fileResults=[{"filename": "own", "location": "https://acme.s3.amazonaws.com/own"}]),
        egress_ended("EG_4", backupStorageUsed=True,
                     fileResults=[{"filename": "odd", "location": "https://evil.example/odd?Signature=s"}]),
        egress_ended("EG_5", backupStorageUsed=True, fileResults=[{"filename": "lost"}]),
    )  # fmt: skip
    first = next(planned for planned in bench.dry().files if planned.file.filename == "landed")
    bench.landed(first, "s3://b/out/elsewhere")
    dry = bench.dry()
    assert {planned.file.filename: planned.outcome for planned in dry.files} == {
        "fresh": RECOVER,
        "dead": "expired",
        "odd": "refused",
        "lost": "unresolved",
        "own": "in_primary",
        "landed": "already_landed",
    }
    assert {planned.file.filename: planned.where for planned in dry.files}["landed"] == "s3://b/out/elsewhere"
    assert "its link expired 2026-01-08 00:00 UTC" in bench.text()
    assert dry.files[0].outcome == RECOVER
    assert {planned.outcome for planned in dry.files[-2:]} == {"in_primary", "already_landed"}


def test_a_dead_file_that_has_landed_is_safe():
    bench = Bench(event("EG_1", "a"))
    [planned] = bench.dry().files
    bench.landed(planned, "s3://b/out/a")
    [later] = bench.dry(now=NOW + timedelta(days=30)).files
    assert later.outcome == "already_landed"


def test_a_dead_manifest_takes_the_names_that_are_known():
    bench = Bench(egress_ended("EG_1", backupStorageUsed=True, manifestLocation=signed("m"),
                               imageResults=[{"filenamePrefix": "t", "imageCount": "1"}]))  # fmt: skip
    bench.manifests["/m"] = LinkExpiredError("dead")
    assert [planned.file.filename for planned in bench.dry().files] == ["(1 images of t)"]
    image = RecordingFile(egress_id="EG_1", run=1732135319356232371, filename="t1", kind=FileKind.IMAGE, started=NOW)
    bench.ledger.write_files("EG_1", image.run, [image])
    assert [planned.file.filename for planned in bench.dry().files] == ["t1"]


def test_a_manifest_that_does_not_answer_is_said_and_stops_no_other():
    bench = Bench(egress_ended("EG_1", backupStorageUsed=True, manifestLocation=signed("m")), event("EG_2", "a"))
    bench.manifests["/m"] = SourceUnavailableError("livekit.example answered 503")
    text = bench.text()
    assert "livekit.example answered 503" in text
    assert "1 recover" in text


def test_the_nearest_deadline_is_first():
    bench = Bench(
        *(event(f"EG_{day}", "a", date=f"202611{day}T000000Z") for day in (18, 15, 20)),
    )
    assert [planned.file.egress_id for planned in bench.dry().files] == ["EG_15", "EG_18", "EG_20"]
    assert "nearest deadline in 24.0 h" in headline(bench.dry())


@pytest.mark.parametrize(
    ("on_conflict", "said"),
    [(OnConflict.KEEP_BOTH, "lands beside"), (OnConflict.FAIL, "fails"), (OnConflict.OVERWRITE, "overwritten")],
)
def test_a_key_that_is_taken_is_said(on_conflict, said):
    bench = Bench(event("EG_1", "a.mp4"))
    bench.changes = {"on_conflict": on_conflict}
    assert said not in bench.text()
    bench.warehouse.put("s3://b/out/dt=2024-11-20/EG_1/a.mp4", b"other")
    assert said in bench.text()
    assert bench.dry().totals == {RECOVER: 1}


def test_what_is_copied_from_the_own_bucket_is_said():
    bench = Bench(egress_ended("EG_1", backupStorageUsed=True, fileResults=[
        {"filename": "own", "location": "https://acme.s3.amazonaws.com/own"}]))  # fmt: skip
    text = bench.text(find_primary=lambda location: "s3://acme/own")
    assert "recover" in text
    assert "copied from s3://acme/own" in text


def test_a_size_that_is_not_known_is_counted():
    bench = Bench(egress_ended("EG_1", backupStorageUsed=True, fileResults=[
        {"filename": "a", "location": signed("a")}]), event("EG_2", "b"))  # fmt: skip
    assert "1.0 MiB and 1 file of unknown size to download in 2 tasks" in headline(bench.dry())


def test_a_flood_is_counted_behind_the_first():
    names = [f"seg_{number:05}.ts" for number in range(MOST_LINES + 20)]
    lines = list(render(Bench(event("EG_1", *names)).dry(most=1000)))
    assert len(lines) == MOST_LINES + 3
    assert lines[-1] == "  and 20 more: 20 recover"
    assert "520 recover" in lines[1]


def test_what_one_run_cannot_take_is_said():
    bench = Bench(event("EG_1", "a", "b", "c"))
    bench.changes = {"bundle_files": 1}
    dry = bench.dry(most=2)
    assert dry.totals == {RECOVER: 2, "failed": 1}
    assert "more than 2 files in one run" in "\n".join(render(dry))


def test_the_numbers_alone():
    dry = Bench(event("EG_1", "a", "b")).dry()
    assert dry.summary() == {
        "plan_only": True,
        "objects": 1,
        "events": 1,
        "backups": 1,
        "unreadable": 0,
        "files": 2,
        "totals": {RECOVER: 2},
        "bytes": 2 * 1048576,
        "tasks": 2,
        "nearest_deadline_hours": 164.7,
    }
    json.dumps(dry.summary())


def test_nothing_to_do():
    assert Bench().text().splitlines()[1:] == ["no backup in this window (0 objects, 0 events read)"]
    assert Bench().dry().summary()["nearest_deadline_hours"] is None


def test_what_was_asked_for_and_is_not_there_is_named():
    text = Bench(event("EG_1", "a")).text(wanted=["EG_1", "EG_9"])
    assert "no backup event of EG_9: check the id and the window" in text
    assert "3 more" in Bench().text(wanted=[f"EG_{number}" for number in range(23)])


def test_an_event_that_came_late_and_one_that_cannot_be_read_are_counted():
    bench = Bench(event("EG_1", "a"))
    document = UnreadableDocument(uri="s3://in/x", position=0, reason="cut", may_be_backup=True)
    text = bench.text(late=1, unreadable=(document,))
    assert "1 backup of them came late" in text
    assert "1 unreadable document may be backups" in text


def test_an_event_that_vanished_is_said():
    bench = Bench()
    gone = BackupRef(egress_id="EG_1", run=1, events=(EventRef(uri="s3://in/gone", position=0),))
    assert [planned.outcome for planned in bench.dry(backups=(gone,)).files] == ["unresolved"]


def test_no_link_is_shown():
    bench = Bench(event("EG_1", "a", "b\nfake line", manifestLocation=signed("m"), roomName="Room\r"))
    bench.manifests["/m"] = SourceUnavailableError("503")
    text = bench.text()
    assert "Signature" not in text
    assert len(text.splitlines()) == 4
