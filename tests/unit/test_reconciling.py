"""What LiveKit lists against what the inbox holds: what is filed, what is left alone, and what is only said."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core import run_plan
from livekit_backup.core.inbox import IntakeReader, load_backup_events
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.livekit_api import ListedEgress
from livekit_backup.core.reconciliation_statement import headline, reconciled, render
from livekit_backup.core.reconciling import Reconciler, file_event, hour_conf, is_due, reference_to
from livekit_backup.core.run_plan import account_for, plan_run
from livekit_backup.errors import AccessDeniedError, SourceUnavailableError, StorageUnavailableError
from livekit_backup.models.egress import EgressInfo
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.manifest import Manifest
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.reconciliation import BackupState
from livekit_backup.models.references import FileKind, RecordingFile
from livekit_backup.models.settings import Settings
from livekit_backup.models.stored_webhook import EventSource
from livekit_backup.models.window import Window
from unit.fakes import MemoryStore, egress_ended, signed

NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
SETTINGS = Settings(inbox="s3://b/in", warehouse="s3://b/out", ledger="s3://b/out/_livekit_backup")
WEEK = Window(start=NOW - timedelta(days=7), end=NOW)
YESTERDAY = NOW - timedelta(days=1)
BASE = {"egress_id": "EG_1", "kind": FileKind.FILE, "started": YESTERDAY}


def ns(moment):
    return int(moment.timestamp()) * 10**9


def info_of(egress_id, ended=YESTERDAY, **fields):
    """One egress as ListEgress prints it."""
    return {
        "egress_id": egress_id,
        "room_name": "Stand-up",
        "status": "EGRESS_COMPLETE",
        "started_at": str(ns(ended) - 10**12),
        "ended_at": str(ns(ended)),
        "backup_storage_used": True,
        "manifest_location": signed(f"{egress_id}.json"),
        **fields,
    }


def listed(*documents):
    return [ListedEgress(document, EgressInfo.model_validate(document)) for document in documents]


class Site:
    def __init__(self):
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, SETTINGS.ledger)

    def webhook(self, document, hour=None):
        """Store what LiveKit would have sent."""
        ended = datetime.fromtimestamp(int(document["ended_at"]) // 10**9, UTC)
        prefix = f"s3://b/in/{(hour or ended):%Y/%m/%d/%H/}"
        body = {"event": "egress_ended", "id": "EV_1", "egressInfo": document}
        self.store.put(f"{prefix}{len(self.store.objects)}.json", json.dumps(body).encode())

    def intake(self):
        reader = IntakeReader()
        reader.read(self.store, list(self.store.list_keys("s3://b/in/")))
        return reader.result()

    def write(self, document, outcome, filename="a.mp4", deadline=None):
        file = RecordingFile(
            egress_id=document["egress_id"],
            run=int(document["started_at"]),
            filename=filename,
            kind=FileKind.FILE,
            started=YESTERDAY,
            deadline=deadline or NOW + timedelta(days=5),
        )
        self.ledger.write_files(file.egress_id, file.run, [file])
        entry = LedgerEntry(**file.identity(), outcome=outcome, reason="because", recorded_at=NOW)
        self.store.put(self.ledger.entry_uri(*file.key), entry.model_dump_json().encode())

    def compare(self, *documents, files=True, now=NOW, patient=False, listing=None):
        reconciler = Reconciler(SETTINGS, self.store, self.ledger, WEEK, now, files=files, patient=patient)
        return reconciler.compare(listed(*documents) if listing is None else listing, self.intake())

    def inbox(self):
        return sorted(uri for uri in self.store.objects if uri.startswith("s3://b/in/"))

    def state(self, comparison, **how):
        statement = reconciled(comparison, self.ledger, SETTINGS, NOW, **how)
        return {line.egress_id: line.state for line in statement.backups}


@pytest.fixture
def site():
    return Site()


def test_what_no_webhook_brought_becomes_an_event_of_this_hour(site):
    comparison = site.compare(info_of("EG_1"))
    [uri] = site.inbox()
    assert uri.startswith("s3://b/in/2026/11/23/12/EG_1-reconcile-")
    stored = json.loads(site.store.objects[uri])
    assert (stored["source"], stored["received_at"], stored["authorization"]) == (
        "reconcile",
        "2026-11-23T12:30:00Z",
        "",
    )
    [known] = comparison.backups
    assert (known.in_inbox, known.in_api, known.filed) == (False, True, True)
    [backup] = site.intake().backups
    assert (backup.egress_id, backup.brought_by) == ("EG_1", EventSource.RECONCILE)
    [event] = load_backup_events(site.store, backup)
    assert event.backup.manifest_location.get_secret_value() == signed("EG_1.json")


def test_the_comparison_holds_no_link(site):
    site.webhook(info_of("EG_2"))
    failed = info_of(
        "EG_3", status="EGRESS_FAILED", backup_storage_used=False, error=f"S3 upload failed: {signed('x')}"
    )
    assert "Signature" not in site.compare(info_of("EG_1"), failed).model_dump_json()


def test_filing_again_in_the_same_hour_adds_nothing(site):
    first = site.compare(info_of("EG_1"), listing=listed(info_of("EG_1")))
    store, site.store = site.store, MemoryStore()
    again = site.compare(info_of("EG_1"), now=NOW + timedelta(minutes=20))
    assert [known.ref.events[0].uri for known in first.backups] == [known.ref.events[0].uri for known in again.backups]
    assert store.objects.keys() == site.store.objects.keys()


def test_what_a_webhook_brought_and_a_run_landed_is_left_alone(site):
    document = info_of("EG_1")
    site.webhook(document)
    site.write(document, Outcome.LANDED)
    before = site.inbox()
    comparison = site.compare(document)
    assert site.inbox() == before
    assert [known.filed for known in comparison.backups] == [False]
    assert site.state(comparison) == {"EG_1": BackupState.SAFE}


@pytest.mark.parametrize("outcome", [None, Outcome.FAILED])
@pytest.mark.parametrize("still_listed", [True, False])
def test_what_came_to_nothing_is_filed_anew(site, outcome, still_listed):
    document = info_of("EG_1")
    site.webhook(document)
    if outcome:
        site.write(document, outcome)
    [known] = site.compare(*([document] if still_listed else [])).backups
    assert known.filed
    assert known.in_api == still_listed
    assert len(site.inbox()) == 2
    # Both events are one backup, and the filed one leads to the same manifest.
    [backup] = site.intake().backups
    assert len(backup.events) == 2
    links = {event.backup.manifest_location.get_secret_value() for event in load_backup_events(site.store, backup)}
    assert links == {signed("EG_1.json")}


@pytest.mark.parametrize("outcome", [Outcome.EXPIRED, Outcome.MISSING, Outcome.CORRUPT, Outcome.REFUSED])
def test_a_final_outcome_is_not_tried_again(site, outcome):
    document = info_of("EG_1")
    site.webhook(document)
    site.write(document, outcome)
    assert [known.filed for known in site.compare(document).backups] == [False]


def test_what_is_dead_is_not_filed_and_is_said_to_be_lost(site):
    document = info_of("EG_1", ended=NOW - timedelta(days=6, hours=23))
    site.webhook(document)
    site.write(document, Outcome.FAILED, deadline=NOW - timedelta(hours=1))
    comparison = site.compare(document)
    assert [known.filed for known in comparison.backups] == [False]
    assert site.state(comparison) == {"EG_1": BackupState.LOST}


def test_what_the_scheduled_run_is_about_to_take_up_is_left_to_it(site):
    fresh = info_of("EG_1", ended=NOW - timedelta(minutes=40))
    site.webhook(fresh)
    comparison = site.compare(fresh)
    assert [known.filed for known in comparison.backups] == [False]
    assert site.state(comparison) == {"EG_1": BackupState.PENDING}


def test_a_webhook_that_may_still_be_on_its_way_is_waited_for(site):
    comparison = site.compare(info_of("EG_1", ended=NOW - timedelta(minutes=2)))
    assert site.inbox() == []
    assert site.state(comparison) == {"EG_1": BackupState.PENDING}
    assert [known.filed for known in site.compare(info_of("EG_2", ended=NOW - timedelta(minutes=11))).backups] == [True]


def test_what_is_no_backup_ended_elsewhen_or_still_runs_is_left_out(site):
    comparison = site.compare(
        info_of("EG_fine", backup_storage_used=False),
        info_of("EG_old", ended=NOW - timedelta(days=8)),
        info_of("EG_running", status="EGRESS_ENDING"),
    )
    assert (comparison.backups, comparison.listed, site.inbox()) == ((), 3, [])


def test_the_flag_of_a_webhook_outlives_a_listing_without_it(site):
    document = info_of("EG_1")
    site.webhook(document)
    comparison = site.compare({**document, "backup_storage_used": False, "status": "EGRESS_FAILED", "error": "stale"})
    assert [(known.ref.egress_id, known.filed) for known in comparison.backups] == [("EG_1", True)]
    assert comparison.failed_uploads == ()
    # What is filed has to lead to the recording, which the listing's document does not.
    [filed] = [uri for uri in site.inbox() if "-reconcile-" in uri]
    reader = IntakeReader()
    reader.read(site.store, [filed])
    assert [backup.egress_id for backup in reader.result().backups] == ["EG_1"]


def test_a_name_that_no_encoding_holds_is_filed(site):
    document = info_of("EG_1", room_name="half \ud83d")
    site.compare(document)
    assert [backup.room_name for backup in site.intake().backups] == ["half \\ud83d"]


def plan_inbox(site, manifest, now=NOW):
    """Let a recovery run read the whole inbox."""

    def fetch(location):
        if manifest is None:
            raise SourceUnavailableError("503")
        return manifest

    return plan_run(
        site.intake().backups,
        inbox=site.store,
        ledger=site.ledger,
        settings=SETTINGS,
        fetch=fetch,
        most=100,
        now=now,
    )


def test_a_link_to_one_file_does_not_make_the_whole_backup_safe(site, monkeypatch):
    monkeypatch.setattr(run_plan, "_location_check", lambda settings: lambda location: None)
    document = info_of("EG_1")
    link = {**document, "manifest_location": "", "file_results": [{"filename": "a.mp4", "location": signed("a.mp4")}]}
    file_event(site.store, SETTINGS, reference_to(listed(link)[0].info), EventSource.LINK, json.dumps(link), NOW)
    plan_inbox(site, None)
    entry = {**BASE, "run": int(document["started_at"]), "filename": "a.mp4", "outcome": Outcome.LANDED}
    site.ledger.record(LedgerEntry(**entry, recorded_at=NOW))

    # While nothing else is known of it, this is all of it.
    assert site.state(site.compare(files=False)) == {"EG_1": BackupState.SAFE}
    assert site.state(site.compare(document, files=False)) == {"EG_1": BackupState.UNACCOUNTED}
    assert [known.filed for known in site.compare(document).backups] == [True]
    files = [{"filename": name, "location": signed(name)} for name in ("a.mp4", "b.mp4")]
    plan_inbox(site, Manifest.model_validate({"egress_id": "EG_1", "files": files}))
    [line] = reconciled(site.compare(document, files=False), site.ledger, SETTINGS, NOW).backups
    assert (line.state, line.safe_files, line.files) == (BackupState.UNACCOUNTED, 1, 2)


def test_a_manifest_that_did_not_answer_is_asked_again(site, monkeypatch):
    monkeypatch.setattr(run_plan, "_location_check", lambda settings: lambda location: None)
    document = info_of("EG_1", segment_results=[{"playlist_name": "p.m3u8", "segment_count": "2"}])
    site.webhook(document)
    account_for(plan_inbox(site, None), site.ledger, Attempt())
    assert [known.filed for known in site.compare(document).backups] == [True]


def test_an_event_that_vanished_is_filed_anew_from_the_listing(site):
    document = info_of("EG_1")
    site.webhook(document)
    refs = site.intake().backups
    [uri] = site.inbox()
    site.store.delete(uri)
    plan = plan_run(refs, inbox=site.store, ledger=site.ledger, settings=SETTINGS, fetch=pytest.fail, most=9, now=NOW)
    account_for(plan, site.ledger, Attempt())
    assert [known.filed for known in site.compare(document).backups] == [True]


def test_two_runs_of_one_egress_are_two_backups(site):
    first = info_of("EG_1")
    site.webhook(first)
    site.write(first, Outcome.LANDED)
    second = info_of("EG_1", ended=YESTERDAY + timedelta(hours=2))
    comparison = site.compare(first, second)
    assert [(known.in_inbox, known.filed) for known in comparison.backups] == [(True, False), (False, True)]


def test_failed_uploads_without_a_backup_are_named(site):
    failed = {"status": "EGRESS_FAILED", "backup_storage_used": False}
    site.webhook(info_of("EG_inbox", **failed, error="S3 upload failed: 403"))
    # By its newest state it is fine, and what never recorded anything lost nothing.
    site.webhook(info_of("EG_fine", **failed, error="S3 upload failed: 403"))
    site.webhook(info_of("EG_never", **failed, error="Start signal not received"))
    site.webhook(info_of("EG_aborted", status="EGRESS_ABORTED", backup_storage_used=False))
    comparison = site.compare(
        info_of("EG_fine", backup_storage_used=False),
        info_of("EG_up", status="EGRESS_FAILED", backup_storage_used=False, error="S3 upload failed: AccessDenied"),
        info_of("EG_start", status="EGRESS_FAILED", backup_storage_used=False, error="Start signal not received"),
    )
    assert [(failed.egress_id, failed.reason) for failed in comparison.failed_uploads] == [
        ("EG_up", "S3 upload failed: AccessDenied"),
        ("EG_inbox", ""),
    ]
    assert comparison.failed_otherwise == 1
    text = render(reconciled(comparison, site.ledger, SETTINGS, NOW))
    assert "EG_up" in text
    assert "ask LiveKit's support to enable it" in text


def test_an_item_that_cannot_be_read_is_named_if_it_may_be_a_backup(site):
    broken = ListedEgress({"egress_id": "a b", "backup_storage_used": True}, None, "egress_id: no egress id")
    comparison = site.compare(listing=[*listed(info_of("EG_1")), broken])
    [document] = comparison.unreadable
    assert (document.uri, document.position, document.may_be_backup) == ("ListEgress", 1, True)
    assert not reconciled(comparison, site.ledger, SETTINGS, NOW).is_settled


def _failing(error, *documents):
    yield from listed(*documents)
    raise error


@pytest.mark.parametrize("error", [SourceUnavailableError("down"), AccessDeniedError("wrong secret")])
def test_an_api_that_cannot_be_read_is_a_gap_and_the_rest_is_done(site, error):
    document = info_of("EG_1")
    site.webhook(document)
    comparison = site.compare(listing=_failing(error, info_of("EG_2")))
    assert {known.ref.egress_id: known.filed for known in comparison.backups} == {"EG_2": True, "EG_1": True}
    [gap] = comparison.gaps
    assert str(error) in gap
    statement = reconciled(comparison, site.ledger, SETTINGS, NOW)
    assert not statement.is_settled
    assert gap in headline(statement)


def test_a_patient_one_lets_airflow_ask_the_api_again(site):
    with pytest.raises(SourceUnavailableError):
        site.compare(listing=_failing(SourceUnavailableError("down")), patient=True)
    assert site.compare(listing=_failing(AccessDeniedError("wrong")), patient=True).gaps


def test_an_inbox_that_cannot_be_written_is_no_gap(site, monkeypatch):
    def fail(*_, **__):
        raise StorageUnavailableError("503")

    monkeypatch.setattr(site.store, "put_new", fail)
    with pytest.raises(StorageUnavailableError):
        site.compare(info_of("EG_1"))


def test_without_filing_nothing_is_written(site):
    comparison = site.compare(info_of("EG_1"), files=False)
    assert site.store.objects == {}
    statement = reconciled(comparison, site.ledger, SETTINGS, NOW)
    [line] = statement.backups
    assert (line.state, line.reason) == (
        BackupState.UNACCOUNTED,
        "no webhook brought it, and no run has filed it",
    )


def test_what_was_filed_is_pending_until_its_run_has_ended(site):
    comparison = site.compare(info_of("EG_1"))
    assert site.state(comparison) == {"EG_1": BackupState.PENDING}
    assert site.state(comparison, recovered=True) == {"EG_1": BackupState.UNACCOUNTED}
    site.write(info_of("EG_1"), Outcome.LANDED)
    assert site.state(comparison, recovered=True) == {"EG_1": BackupState.SAFE}


def test_the_statement_names_what_is_not_safe_the_oldest_first(site):
    documents = [info_of(f"EG_{day}", ended=NOW - timedelta(days=day)) for day in (1, 3, 2)]
    for document in documents:
        site.webhook(document)
    site.write(documents[0], Outcome.LANDED)
    site.write(documents[1], Outcome.CORRUPT)
    site.write(documents[2], Outcome.MISSING)
    statement = reconciled(site.compare(*documents), site.ledger, SETTINGS, NOW)
    assert [line.egress_id for line in statement.backups] == ["EG_3", "EG_2", "EG_1"]
    assert headline(statement) == (
        "3 backups in the window: 1 safe, 0 pending, 1 at risk, 0 unaccounted, 1 lost; nearest deadline in 96.0 h"
    )
    text = render(statement)
    assert text.index("EG_3") < text.index("EG_2")
    assert "96.0 h left" in text
    assert not statement.is_settled


def test_a_quiet_window_is_said_to_be_one(site):
    statement = reconciled(site.compare(), site.ledger, SETTINGS, NOW)
    assert headline(statement).startswith("0 backups in the window: 0 safe")
    assert statement.is_settled


def test_many_backups_are_settled_in_batches(site):
    comparison = site.compare(*(info_of(f"EG_{number}") for number in range(700)))
    assert len(comparison.backups) == len(site.inbox()) == 700


@pytest.mark.parametrize(
    ("ended", "due"),
    [
        (NOW, True),
        (datetime(2026, 11, 23, 10, 59, tzinfo=UTC), False),
        (datetime(2026, 11, 23, 11, 0, tzinfo=UTC), True),
        (None, False),
    ],
)
def test_a_scheduled_run_is_due_until_it_had_its_time(ended, due):
    assert is_due(ended, timedelta(minutes=5), NOW) is due


@pytest.mark.parametrize(
    ("minute", "end"),
    [(0, "2026-11-23T12:00:01+00:00"), (4, "2026-11-23T12:00:01+00:00"), (30, "2026-11-23T12:25:00+00:00")],
)
def test_the_recovery_run_reads_the_hour_and_does_not_wait_for_its_end(minute, end):
    conf = hour_conf(NOW.replace(minute=minute), timedelta(minutes=5))
    assert conf == {"start": "2026-11-23T12:00:00+00:00", "end": end}


def test_an_event_is_filed_under_the_layout(site):
    settings = SETTINGS.model_copy(update={"inbox_layout": "dt=%Y-%m-%d/hour=%H/"})
    site.webhook(info_of("EG_1"))
    [backup] = site.intake().backups
    ref = file_event(site.store, settings, backup, EventSource.LINK, json.dumps(egress_ended()), NOW)
    assert ref.events[0].uri.startswith("s3://b/in/dt=2026-11-23/hour=12/EG_1-link-")
    assert ref.events[1:] == backup.events
