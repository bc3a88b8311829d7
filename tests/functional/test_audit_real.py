"""The audit, over a real recovery on both S3 servers: each way to tamper is named, and what is untouched is clean."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from livekit_backup.core.audit_bench import AuditScope
from livekit_backup.core.auditing import audit_all
from livekit_backup.core.statements import render
from livekit_backup.core.storage import split_uri
from livekit_backup.core.webhook_tokens import read_token
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.finding import Verdict
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.receiver_settings import ReceiverSettings
from livekit_backup.models.settings import OnConflict
from livekit_backup.models.statement import Statement
from livekit_backup.models.store_abilities import StoreAbilities
from livekit_backup.receiver.event_filing import file_event, read_event
from livekit_backup.testing import FakeLiveKit, Fault, Recording
from livekit_backup.testing.s3_endpoint import S3Endpoint
from livekit_backup.testing.webhook_sender import sign_webhook

from .recovery_pipeline import MIB, Pipeline, Place, pipeline_at

KEYS = {"APIaudit": "secret-of-the-audit's-tests-0123456789"}
HOUR = timedelta(hours=1)
LATER = timedelta(days=2)
"""By then no run is under way any more."""


@dataclass
class History:
    """What some runs have left behind, and what an audit says of it two days later."""

    pipeline: Pipeline
    place: Place
    seals: list[str] = field(default_factory=list)
    events: dict[str, str] = field(default_factory=dict)
    """Where the event of each file lies."""
    before: dict[str, bytes | None] = field(default_factory=dict)
    """What was tampered with, as it was."""

    @property
    def now(self) -> datetime:
        return self.pipeline.now + LATER

    def receive(self, recording: Recording) -> None:
        """Store its event as the receiver does, signed."""
        [(api_key, secret)] = KEYS.items()
        body = json.dumps(recording.event()).encode()
        token = sign_webhook(body, api_key, secret, at=self.pipeline.now)
        settings = self.pipeline.settings
        where = ReceiverSettings(inbox=settings.inbox, inbox_layout=settings.inbox_layout)
        read = read_token(token, KEYS, self.pipeline.now)
        uri, stored = file_event(where, read_event(body), read, token, self.pipeline.now)
        self.pipeline.store.put(uri, f"{stored.model_dump_json()}\n".encode())
        self.events |= dict.fromkeys(recording.files, uri)

    def run(self, run_id: str, dag_id: str = "d") -> Statement:
        """Recover all there is, report and seal."""
        self.pipeline.attempt = Attempt(dag_id=dag_id, run_id=run_id)
        statement = self.pipeline.run()
        self.report(statement)
        return statement

    def report(self, statement: Statement) -> None:
        self.pipeline.ledger.write_statement(statement, render(statement))
        self.seals.append(self.pipeline.ledger.seal(statement.dag_id, statement.run_id))

    def audit(self, now: datetime | None = None, **scope: Any) -> list[str]:
        """What is wrong, each with its part."""
        return [f"{finding.check}: {finding.what}" for finding in self.findings(now, **scope) if is_broken(finding)]

    def remarks(self, now: datetime | None = None, **scope: Any) -> str:
        findings = self.findings(now, **scope)
        return "\n".join(finding.what for finding in findings if not is_broken(finding))

    def findings(self, now: datetime | None = None, **scope: Any) -> list[Any]:
        pipeline = self.pipeline
        scope = {"keys": KEYS, "sample": None, **scope}
        store = pipeline.store
        return audit_all(pipeline.settings, pipeline.ledger, store, store, AuditScope(**scope), now or self.now)

    def entry(self, filename: str) -> str:
        [uri] = [
            uri
            for uri in self.pipeline.store.list_keys(f"{self.pipeline.settings.ledger}/files/")
            if json.loads(self.read(uri))["filename"] == filename
        ]
        return uri

    def landed(self, filename: str) -> str:
        return str(json.loads(self.read(self.entry(filename)))["landed_uri"])

    def of_run(self, run_id: str, name: str) -> str:
        return self.pipeline.ledger.run_uri("d", run_id, name)

    def seal(self, number: int) -> str:
        [uri] = [
            uri
            for uri in self.pipeline.store.list_keys(self.pipeline.ledger.chain_uri("d"))
            if f"-{number}.json" in uri
        ]
        return uri

    def read(self, uri: str) -> bytes:
        body = self.pipeline.store.get(uri)
        assert body is not None, uri
        return body

    def remove(self, uri: str) -> None:
        """With the tests' own hands."""
        self.before.setdefault(uri, self.read(uri))
        bucket, key = split_uri(uri)
        self.place.client.delete_object(Bucket=bucket, Key=key)

    def write(self, uri: str, body: bytes) -> None:
        self.before.setdefault(uri, self.pipeline.store.get(uri))
        bucket, key = split_uri(uri)
        self.place.client.put_object(Bucket=bucket, Key=key, Body=body)

    def undo(self) -> None:
        """Put back what was tampered with."""
        for uri, body in list(self.before.items()):
            self.remove(uri) if body is None else self.write(uri, body)
        self.before.clear()

    def alter(self, uri: str, old: str, new: str) -> None:
        body = self.read(uri)
        assert old.encode() in body
        self.write(uri, body.replace(old.encode(), new.encode()))


def is_broken(finding: Any) -> bool:
    return finding.verdict is Verdict.BROKEN


@pytest.fixture
def history(any_pipeline: Pipeline, place: Place) -> History:
    """An empty one. A folder a day in the inbox: an audit of ten days lists ten."""
    any_pipeline.settings = any_pipeline.settings.model_copy(update={"inbox_layout": "%Y/%m/%d/"})
    return History(any_pipeline, place)


@pytest.fixture(scope="module")
def three_runs(
    any_s3: S3Endpoint, any_client: Any, any_store: S3ObjectStore, any_abilities: StoreAbilities
) -> Iterator[History]:
    """Three runs: two files and one that is corrupt, another file, and nothing new. What tests change is put back."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    any_client.create_bucket(Bucket=bucket)
    place = Place(any_s3, any_client, bucket)
    with FakeLiveKit() as livekit:
        pipeline = pipeline_at(place, any_store, any_abilities, livekit)
        pipeline.settings = pipeline.settings.model_copy(update={"inbox_layout": "%Y/%m/%d/"})
        yield _tell(History(pipeline, place), livekit)


@pytest.fixture
def told(three_runs: History) -> Iterator[History]:
    yield three_runs
    three_runs.undo()


@pytest.fixture
def own(history: History, livekit: FakeLiveKit) -> History:
    """One run of a test's own, which can go on with it."""
    history.receive(livekit.record_file("c.mp4", size=9000))
    history.run("r1")
    return history


def _tell(history: History, livekit: FakeLiveKit) -> History:
    history.receive(livekit.record_file("a.mp4", size=6_000_000))
    history.receive(livekit.record_file("b.ogg", size=70_000))
    bad = livekit.record_file("bad.mp4", size=5000)
    livekit.break_(bad, Fault.WRONG_BYTES)
    history.receive(bad)
    history.run("r1")
    history.receive(livekit.record_file("c.mp4", size=9000))
    history.run("r2")
    history.run("r3")
    return history


def test_an_untouched_ledger_is_clean(told: History) -> None:
    findings = told.findings()
    assert not any(map(is_broken, findings)), findings
    remarks = "\n".join(finding.what for finding in findings)
    assert "3 reports are sealed, in 1 chains" in remarks and told.seals[-1] in remarks
    assert "4 files' entries are as the newest sealed report of them says" in remarks
    assert "3 of 3 landed objects are there" in remarks
    assert "4 events are LiveKit's, byte for byte, by its signature" in remarks
    assert told.audit(noted_seals=frozenset(told.seals)) == []
    assert told.audit(since=told.pipeline.now - timedelta(minutes=1), sample=0) == []
    assert "2 of them, drawn by lot" in told.remarks(sample=2)


def _same_size(history: History) -> None:
    uri = history.landed("b.ogg")
    body = bytearray(history.read(uri))
    body[1000] ^= 1
    history.write(uri, bytes(body))


def _truncate(history: History) -> None:
    uri = history.landed("b.ogg")
    history.write(uri, history.read(uri)[:-1])


def _take_out_a_line(history: History) -> None:
    uri = history.of_run("r1", "report.json")
    report = json.loads(history.read(uri))
    del report["lines"][1]
    history.write(uri, json.dumps(report).encode())


def _put_back(history: History) -> None:
    """A landing is made a failure again, of which an earlier report tells."""
    uri = history.entry("c.mp4")
    entry = json.loads(history.read(uri))
    earlier = datetime.fromisoformat(entry["recorded_at"]) - timedelta(hours=1)
    old = {**entry, "outcome": "failed", "recorded_at": earlier.isoformat()}
    history.write(uri, json.dumps(old).encode())
    told = history.pipeline.statement()
    [line] = [line for line in told.lines if line.filename == "c.mp4"]
    line = line.model_copy(update={"recorded_at": earlier})
    others = [other for other in told.lines if other.filename != "c.mp4"]
    told = told.model_copy(update={"run_id": "r0", "lines": (line, *others)})
    history.report(told)


def _flip_the_flag(history: History) -> None:
    history.alter(history.events["a.mp4"], 'backupStorageUsed\\": true', 'backupStorageUsed\\": false')


TAMPERING: dict[str, tuple[Callable[[History], None], list[str]]] = {
    "entry altered": (
        lambda told: told.alter(told.entry("a.mp4"), '"outcome":"landed"', '"outcome":"expired"'),
        [r"entries: .*/files/EG_\w+/\d+/\w+\.json \(EG_\w+ 'a\.mp4'\) was altered after .*/report\.json was sealed"],
    ),
    "entry altered to look lost no more": (
        lambda told: told.alter(told.entry("bad.mp4"), '"outcome":"corrupt"', '"outcome":"landed"'),
        [r"entries: .*'bad\.mp4'\) was altered after .* was sealed"],
    ),
    "entry made unreadable": (
        lambda told: told.write(told.entry("a.mp4"), b"{"),
        [r"entries: .*'a\.mp4'\) was altered after .* was sealed"],
    ),
    "entry removed": (
        lambda told: told.remove(told.entry("b.ogg")),
        [r"entries: .*/files/.*'b\.ogg'\) was removed"],
    ),
    "report altered": (
        lambda told: told.alter(told.of_run("r1", "report.json"), '"outcome": "corrupt"', '"outcome": "landed"'),
        [r"reports: .*/r1-\w+/report\.json was altered after it was sealed, at line \d"],
    ),
    "table altered": (
        lambda told: told.alter(told.of_run("r1", "report.txt"), "corrupt", "landed "),
        [r"reports: .*/r1-\w+/report\.txt was altered after it was sealed"],
    ),
    "line taken out of a report": (
        _take_out_a_line,
        [r"reports: .*/r1-\w+/report\.json was altered after it was sealed, at line 2"],
    ),
    "report removed": (
        lambda told: told.remove(told.of_run("r2", "report.json")),
        [r"reports: .*/r2-\w+/report\.json was removed"],
    ),
    "seal removed in the middle": (
        lambda told: told.remove(told.seal(2)),
        [r"chain: seal 2 was removed from .*/chain/d", r"reports: .*/r2-\w+/report\.json is in no seal"],
    ),
    "first seal removed": (
        lambda told: told.remove(told.seal(1)),
        [r"chain: seal 1 was removed from .*/chain/d"],
    ),
    "newest seal removed": (
        lambda told: told.remove(told.seal(3)),
        [r"reports: .*/r3-\w+/report\.json is in no seal, though reports of its DAG were sealed by then"],
    ),
    "seal altered": (
        lambda told: told.alter(told.seal(2), '"run_id":"r2"', '"run_id":"r9"'),
        [r"chain: .*-2\.json is not what seal 3 followed: it was altered"],
    ),
    "seal made unreadable": (
        lambda told: told.write(told.seal(2), b"nothing"),
        [r"chain: .*-2\.json is no seal any more"],
    ),
    "object replaced by one of its size": (
        _same_size,
        [r"objects: s3://.*/b\.ogg \(EG_\w+ 'b\.ogg'\) holds other content than landed there"],
    ),
    "object truncated": (
        _truncate,
        [r"objects: s3://.*/b\.ogg \(EG_\w+ 'b\.ogg'\) has 69999 bytes, and landed with 70000"],
    ),
    "object removed": (
        lambda told: told.remove(told.landed("c.mp4")),
        [r"objects: s3://.*/c\.mp4 \(EG_\w+ 'c\.mp4'\) is not there any more"],
    ),
    "entry and object altered together": (
        lambda told: (
            told.alter(told.entry("b.ogg"), '"size":70000', '"size":3'),
            told.write(told.landed("b.ogg"), b"xyz"),
        ),
        [r"entries: .*'b\.ogg'\) was altered", r"objects: .*'b\.ogg'\) has 3 bytes, and landed with 70000"],
    ),
    "event removed": (
        lambda told: told.remove(told.events["a.mp4"]),
        [r"inbox: the event of EG_\w+ is not in s3://.*\.json any more: it was removed or altered"],
    ),
    "event altered": (
        _flip_the_flag,
        [r"inbox: s3://.*\.json holds another event than was stored there", r"inbox: the event of EG_\w+ is not in"],
    ),
    "event's signature altered": (
        lambda told: told.alter(told.events["a.mp4"], '"authorization":"eyJ', '"authorization":"eyK'),
        [r"inbox: s3://.*\.json: LiveKit did not sign this event"],
    ),
}


TOGETHER = (
    ("entry altered", "entry altered to look lost no more", "entry removed", "table altered", "report removed"),
    ("report altered", "object removed", "event removed", "entry made unreadable"),
    ("line taken out of a report", "seal removed in the middle", "event altered"),
    ("first seal removed", "object replaced by one of its size"),
    ("newest seal removed", "object truncated", "event's signature altered"),
    ("seal altered", "entry and object altered together"),
    ("seal made unreadable",),
)
"""None of them hides another; each audit takes a second."""


@pytest.mark.parametrize("ways", TOGETHER, ids=lambda ways: ways[0])
def test_each_way_to_tamper_is_named(told: History, ways: tuple[str, ...]) -> None:
    for way in ways:
        TAMPERING[way][0](told)
    found = told.audit()
    for way in ways:
        for pattern in TAMPERING[way][1]:
            assert any(re.match(pattern, line) for line in found), (pattern, found)


def test_every_way_is_tried() -> None:
    assert sorted(way for ways in TOGETHER for way in ways) == sorted(TAMPERING)


OBJECTS = sorted(way for way in TAMPERING if way.startswith("object"))


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
@pytest.mark.parametrize("way", OBJECTS)
def test_a_sample_of_none_still_looks_at_every_object(told: History, way: str) -> None:
    tamper, [expected] = TAMPERING[way]
    tamper(told)
    [found] = told.audit(sample=0)
    assert re.match(expected, found)


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
def test_a_landing_put_back_to_an_earlier_version_is_named(own: History) -> None:
    entry = own.read(own.entry("c.mp4"))
    _put_back(own)
    earlier = own.read(own.entry("c.mp4"))
    own.write(own.entry("c.mp4"), entry)
    assert own.audit() == []
    own.write(own.entry("c.mp4"), earlier)
    found = own.audit()
    assert any(re.match(r"entries: .*'c\.mp4'\) was put back to what an earlier report said", line) for line in found)


def test_a_ledger_of_which_all_was_removed_is_known_by_the_inbox(told: History) -> None:
    for uri in list(told.pipeline.store.list_keys(f"{told.pipeline.settings.ledger}/")):
        told.remove(uri)
    found = told.audit(noted_seals=frozenset(told.seals[-1:]))
    assert sum("is a backup by" in line and "no sealed report names it" in line for line in found) == 4
    assert any(f"the seal {told.seals[-1]} that was noted is in no chain" in line for line in found)


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
def test_a_chain_made_anew_shows_only_by_a_seal_that_was_noted(told: History) -> None:
    """What the docs say cannot be seen from the ledger alone, and what shows it."""
    for number in (1, 2, 3):
        told.remove(told.seal(number))
    for run_id in ("r1", "r2", "r3"):
        told.pipeline.ledger.seal("d", run_id)
    assert told.audit() == []
    [found] = told.audit(noted_seals=frozenset(told.seals[-1:]))
    assert told.seals[-1] in found


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
def test_an_entry_of_a_file_that_nobody_reported_is_named(told: History) -> None:
    entry = json.loads(told.read(told.entry("a.mp4")))
    forged = {**entry, "filename": "forged.mp4", "recorded_at": told.pipeline.now.isoformat()}
    uri = told.pipeline.ledger.entry_uri(forged["egress_id"], forged["run"], "forged.mp4")
    told.write(uri, json.dumps(forged).encode())
    assert told.audit() == [] and "1 more are not chained" in told.remarks(), "dated back to before the first seal"
    told.write(uri, json.dumps({**forged, "recorded_at": (told.pipeline.now + HOUR).isoformat()}).encode())
    [found] = told.audit()
    assert re.match(r"entries: .*'forged\.mp4'\) stands in no sealed report", found)


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
def test_reruns_and_cleared_reports_are_clean(own: History, livekit: FakeLiveKit) -> None:
    """A failure that lands later, a landing that has to land again, and a report that runs again."""
    flaky = livekit.record_file("flaky.mp4", size=1000)
    livekit.break_(flaky, Fault.NOT_FOUND, times=1)
    own.receive(flaky)
    assert {line.outcome for line in own.run("r4").unsafe} == {Outcome.MISSING}
    own.remove(own.landed("c.mp4"))
    own.run("r4")
    own.report(own.pipeline.statement())
    own.run("r5")
    assert own.audit() == []
    assert "5 reports are sealed, in 1 chains" in own.remarks()


def test_two_runs_at_once_are_clean(own: History, livekit: FakeLiveKit) -> None:
    for number in range(4):
        own.receive(livekit.record_file(f"twice-{number}.ogg", size=2000))
    rivals = []
    for run_id in ("s1", "s2", "s3"):
        pipeline = Pipeline(own.pipeline.store, own.pipeline.ledger, own.pipeline.settings, livekit)
        pipeline.known_abilities = own.pipeline.known_abilities
        rivals.append(History(pipeline, own.place))
        pipeline.attempt = Attempt(dag_id="d", run_id=run_id)
    with ThreadPoolExecutor(len(rivals)) as pool:
        list(pool.map(lambda rival: rival.run(rival.pipeline.attempt.run_id), rivals))
    assert own.audit() == []
    assert "4 reports are sealed, in 1 chains" in own.remarks()


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
@pytest.mark.parametrize("on_conflict", [OnConflict.KEEP_BOTH, OnConflict.OVERWRITE])
def test_conflicts_are_clean(own: History, livekit: FakeLiveKit, on_conflict: OnConflict) -> None:
    """Two recordings with one landing key: the second lands beside, or in the first one's place."""
    own.pipeline.settings = own.pipeline.settings.model_copy(update={"landing_key": "dt=all/{filename}"})
    for number in range(2):
        recording = livekit.record_file("same.mp4", size=1000 + number)
        own.receive(recording)
        own.pipeline.attempt = Attempt(dag_id="d", run_id=f"c{number}")
        intake = own.pipeline.ingest()
        intake = intake.model_copy(
            update={"backups": tuple(ref for ref in intake.backups if ref.egress_id == recording.egress_id)}
        )
        own.pipeline.ledger.write_intake("d", f"c{number}", intake)
        [file] = own.pipeline.plan(intake).to_recover
        own.pipeline.recover(file, on_conflict=on_conflict)
        own.report(own.pipeline.statement())
    assert own.audit() == []
    remarks = own.remarks()
    assert ("as on_conflict says" in remarks) == (on_conflict is OnConflict.OVERWRITE), remarks


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
def test_a_file_that_only_an_earlier_try_of_a_report_names_is_clean(own: History, livekit: FakeLiveKit) -> None:
    """The stand-in for a recording without a manifest stays in the ledger once its files are known."""
    recording = livekit.record_file("late.mp4", size=1000)
    livekit.break_(recording, Fault.EXPIRED, times=1)
    own.receive(recording)
    own.run("r2")
    forgotten = own.of_run("r2", "plan.json")
    plan = json.loads(own.read(forgotten))
    gone = [file for file in plan["to_recover"] if file["filename"] == "late.mp4"]
    assert gone
    plan["to_recover"] = [file for file in plan["to_recover"] if file not in gone]
    own.pipeline.store.put(forgotten, json.dumps(plan).encode())
    own.report(own.pipeline.statement())
    assert "late.mp4" not in own.read(own.of_run("r2", "report.json")).decode()
    assert own.audit() == []


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
def test_a_backfill_and_another_dag_have_chains_of_their_own(own: History) -> None:
    own.run("backfill__2026-11-01T00:00:00+00:00")
    own.run("again", dag_id="other.dag")
    assert own.audit() == []
    assert "3 reports are sealed, in 2 chains" in own.remarks()


def test_a_ledger_from_before_is_not_chained_and_not_tampered_with(history: History, livekit: FakeLiveKit) -> None:
    history.receive(livekit.record_file("old.mp4", size=1000))
    history.pipeline.attempt = Attempt(dag_id="d", run_id="old")
    statement = history.pipeline.run()
    uri = history.pipeline.ledger.write_statement(statement, render(statement)).replace(".txt", ".json")
    # As the version before wrote it.
    report = json.loads(history.read(uri))
    for line in report["lines"]:
        for name in ("entry_sha256", "recorded_at", "chain_sha256"):
            del line[name]
    history.write(uri, json.dumps(report, indent=1).encode())
    assert history.audit() == []
    remarks = history.remarks()
    assert "nothing is sealed" in remarks and "1 reports are not chained" in remarks
    assert "1 more are not chained" in remarks and "1 of 1 landed objects" in remarks

    history.receive(livekit.record_file("new.mp4", size=2000))
    history.run("new")
    assert history.audit() == []
    assert "1 reports are not chained" in history.remarks()


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
def test_a_run_under_way_is_no_tampering(own: History, livekit: FakeLiveKit) -> None:
    own.receive(livekit.record_file("fresh.mp4", size=1000))
    own.pipeline.attempt = Attempt(dag_id="d", run_id="under way")
    own.pipeline.run()
    assert own.audit(own.pipeline.now + timedelta(minutes=1)) == []
    assert "await their run's report" in own.remarks(own.pipeline.now + timedelta(minutes=1))
    assert [line for line in own.audit() if "'fresh.mp4') stands in no sealed report" in line]


@pytest.mark.parametrize("any_s3", ["swift"], indirect=True)
def test_a_report_that_died_before_it_sealed_is_named_a_day_later(own: History) -> None:
    own.pipeline.attempt = Attempt(dag_id="d", run_id="dead")
    statement = own.pipeline.run()
    own.pipeline.ledger.write_statement(statement, render(statement))
    assert own.audit(own.pipeline.now + timedelta(minutes=1)) == []
    [found] = own.audit()
    assert "/dead-" in found and "is in no seal" in found


def test_an_object_that_was_written_again_with_its_bytes_is_clean(told: History) -> None:
    """In parts: its ETag is another."""
    uri = told.landed("a.mp4")
    etag, body = told.place.head(uri)["ETag"], told.read(uri)
    told.remove(uri)
    bucket, key = split_uri(uri)
    at = {"Bucket": bucket, "Key": key}
    upload = told.place.client.create_multipart_upload(**at)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": told.place.client.upload_part(**at, UploadId=upload, PartNumber=number, Body=part)["ETag"],
        }
        for number, part in enumerate((body[: 5 * MIB], body[5 * MIB :]), 1)
    ]
    told.place.client.complete_multipart_upload(**at, UploadId=upload, MultipartUpload={"Parts": parts})
    assert told.place.head(uri)["ETag"] != etag
    assert told.audit(sample=0) == []
    assert "hold the very bytes" in told.remarks(sample=0)
