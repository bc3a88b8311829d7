"""Operators against a store in memory: what they return, write down and raise."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.sdk.bases.operator import ExecutorSafeguard

from livekit_backup.core import file_links, manifest_client, run_plan, small_files
from livekit_backup.core.ledger import Ledger
from livekit_backup.errors import (
    ConfigurationError,
    CorruptError,
    NotSafeError,
    SourceUnavailableError,
    UnprovenError,
    UploadLostError,
)
from livekit_backup.models.outcome import Outcome
from livekit_backup.operators import recovery_operator
from livekit_backup.operators.bundle_operator import LABEL
from livekit_backup.operators.ingest_events import IngestEventsOperator
from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator
from livekit_backup.operators.recovery_operator import RecoveryOperator
from livekit_backup.operators.report import LANDED, RECORDINGS, AllSafeOperator, ReportOperator, lines_for_ui
from livekit_backup.operators.resolve_manifests import ResolveManifestsOperator
from unit.fakes import MemorySource, MemoryStore, egress_ended, signed

START = datetime(2026, 11, 20, 13, tzinfo=UTC)
DATA = b"recording" * 100
SOON = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


class Outlet:
    """The accessor of an alias's asset events."""

    def __init__(self):
        self.added = []

    def add(self, asset, extra):
        self.added.append((asset, extra))


class Bench:
    def __init__(self):
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, "s3://b/out/_livekit_backup")
        self.states = {}
        self.outlet_events = {LANDED: Outlet()}

    def context(self, try_number=1):
        ti = SimpleNamespace(
            dag_id="d",
            run_id="r",
            task_id="t",
            map_index=-1,
            try_number=try_number,
            get_task_states=lambda dag_id, run_ids: {run_ids[0]: self.states},
        )
        return {
            "ti": ti,
            "dag_run": SimpleNamespace(run_after=START + timedelta(hours=2)),
            "params": {},
            "data_interval_start": START,
            "data_interval_end": START + timedelta(hours=1),
            "outlet_events": self.outlet_events,
        }

    def run(self, operator, context=None, **arguments):
        return operator(task_id="t", **arguments).execute(context or self.context())

    def store_event(self, *events):
        body = b"".join(json.dumps(event).encode() for event in events)
        self.store.put(f"s3://b/in/2026/11/20/13/{len(self.store.objects)}", body)

    def store_recording(self, name="a.mp4", **info):
        results = [{"filename": name, "size": str(len(DATA)), "location": signed(name, SOON)}]
        self.store_event(egress_ended(backupStorageUsed=True, fileResults=results, **info))


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "s3://b/in")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE", "s3://b/out")
    bench = Bench()
    monkeypatch.setattr(recovery_operator, "_store", lambda conn_id, *options: bench.store)
    for module in (run_plan, manifest_client):
        monkeypatch.setattr(module, "system_resolver", lambda host, port: ["52.218.1.1"])
    bench.source = MemorySource(DATA, etag=hashlib.md5(DATA).hexdigest())
    monkeypatch.setattr(file_links, "HttpSource", lambda location, hosts: bench.source)
    return bench


def _planned(bench):
    bench.store_recording()
    return _resolved(bench)


def _resolved(bench):
    intake = bench.run(IngestEventsOperator)
    return bench.run(ResolveManifestsOperator, intake=intake)


def _file(bench, bundle_id):
    """The one file of a bundle."""
    [file] = bench.ledger.read_bundle("d", "r", bundle_id).files
    return file


@pytest.fixture
def in_parts(monkeypatch):
    """No file is small."""
    monkeypatch.setattr(small_files, "SMALL", -1)


def test_ingest_returns_numbers_and_keeps_references_without_links(bench):
    bench.store_recording(roomName="Room")
    bench.store_event({"event": "room_started"}, egress_ended("EG_2", status=4), {"x": 1})
    returned = bench.run(IngestEventsOperator)
    assert returned == {"objects": 2, "events": 3, "backups": 1, "unreadable": 1}
    intake = bench.ledger.read_intake("d", "r")
    [backup] = intake.backups
    assert backup.egress_id == "EG_1"
    [event] = backup.events
    assert (event.uri, event.position) == ("s3://b/in/2026/11/20/13/0", 0)
    stored = bench.store.objects[event.uri]
    assert json.loads(stored[event.offset :][: event.length])["egressInfo"]["egressId"] == "EG_1"
    assert "Signature" not in intake.model_dump_json()
    assert (intake.objects, intake.events, len(intake.unreadable), intake.failed_without_backup) == (
        2,
        3,
        1,
        ("EG_2",),
    )


def test_ingest_of_nothing(bench):
    assert bench.run(IngestEventsOperator)["backups"] == 0


def test_resolve_returns_short_ids_and_keeps_files_without_links(bench):
    [bundle_id] = _planned(bench)
    assert len(bundle_id) == 16
    file = _file(bench, bundle_id)
    assert file.landing_uri.endswith("/EG_1/a.mp4")
    assert "Signature" not in file.model_dump_json()
    brief = file.model_copy(update={"events": (), "label": ""})
    assert bench.ledger.read_plan("d", "r").to_recover == (brief,)
    assert bench.run(ResolveManifestsOperator, intake={}) == [bundle_id], "the same files are the same bundle"


def test_resolve_of_nothing(bench):
    assert _resolved(bench) == []


def test_resolve_without_an_intake_says_what_to_clear(bench):
    with pytest.raises(UploadLostError, match="clear ingest_events"):
        bench.run(ResolveManifestsOperator, intake={})


def test_a_small_file_lands_with_its_download(bench):
    [bundle] = _planned(bench)
    file = _file(bench, bundle)
    context = bench.context()
    done = bench.run(DownloadFilesOperator, context, bundle=bundle)
    assert done == {"bundle": bundle, "label": file.label, "files": 1, "landed": 1, "bytes": len(DATA), "link": ""}
    assert context[LABEL].startswith("EG_1 · a.mp4 · 900 B · ")
    assert bench.store.objects[file.landing_uri] == DATA
    entry = bench.ledger.read(file)
    assert (entry.outcome, entry.sha256) == (Outcome.LANDED, hashlib.sha256(DATA).hexdigest())
    assert bench.store.uploads == {}
    assert bench.run(VerifyAndLandOperator, bundle=bundle) == done
    assert bench.ledger.read(file) == entry


def test_what_the_download_has_landed_is_not_looked_at_a_second_time(bench, monkeypatch):
    [bundle] = _planned(bench)
    done = bench.run(DownloadFilesOperator, bundle=bundle)
    context = bench.context()
    with monkeypatch.context() as nothing:
        nothing.setattr(RecoveryOperator, "_store", None)
        assert bench.run(VerifyAndLandOperator, context, bundle=done) == done
    assert context[LABEL] == done["label"]


def test_a_cleared_task_looks_whether_what_the_download_has_landed_is_still_there(bench):
    [bundle] = _planned(bench)
    done = bench.run(DownloadFilesOperator, bundle=bundle)
    assert bench.run(VerifyAndLandOperator, bench.context(try_number=2), bundle=done) == done
    bench.store.delete(_file(bench, bundle).landing_uri)
    with pytest.raises(UploadLostError, match="clear the download task"):
        bench.run(VerifyAndLandOperator, bench.context(try_number=2), bundle=done)


def test_the_landing_task_asks_its_own_download(bench):
    [bundle] = _planned(bench)
    done = bench.run(DownloadFilesOperator, bundle=bundle)
    context, asked = bench.context(), []
    context["ti"].xcom_pull = lambda **key: asked.append(key) or done
    with DAG("d", schedule=None):
        download = DownloadFilesOperator(task_id="download", bundle=bundle)
        land = VerifyAndLandOperator(task_id="land")
        download >> land
    assert land.execute(context) == done
    assert asked == [{"task_ids": "download", "map_indexes": context["ti"].map_index}]


def test_a_landing_task_without_a_download_says_how_to_give_it_one(bench):
    with DAG("d", schedule=None):
        land = VerifyAndLandOperator(task_id="land")
    with pytest.raises(ConfigurationError, match="right behind a DownloadFilesOperator"):
        land.execute(bench.context())


def test_a_download_that_somebody_marked_as_done_is_to_be_cleared(bench):
    [bundle] = _planned(bench)
    context = bench.context()
    context["ti"].xcom_pull = lambda **_: None
    with DAG("d", schedule=None):
        land = VerifyAndLandOperator(task_id="land")
        DownloadFilesOperator(task_id="download", bundle=bundle) >> land
    with pytest.raises(UploadLostError, match="clear the download task"):
        land.execute(context)


def test_what_the_download_has_left_open_is_landed_by_its_word(bench, in_parts):
    [bundle] = _planned(bench)
    said = bench.run(DownloadFilesOperator, bundle=bundle)
    assert said["landed"] == 0
    assert bench.run(VerifyAndLandOperator, bundle=said)["landed"] == 1
    assert bench.store.objects[_file(bench, bundle).landing_uri] == DATA


def test_a_file_is_downloaded_and_landed(bench, in_parts):
    [bundle] = _planned(bench)
    file = _file(bench, bundle)
    assert bench.run(DownloadFilesOperator, bundle=bundle)["landed"] == 0
    assert file.landing_uri not in bench.store.objects
    done = bench.run(VerifyAndLandOperator, bundle=bundle)
    assert (done["files"], done["landed"], done["bytes"]) == (1, 1, len(DATA))
    assert bench.store.objects[file.landing_uri] == DATA
    entry = bench.ledger.read(file)
    assert (entry.landed_uri, entry.sha256) == (file.landing_uri, hashlib.sha256(DATA).hexdigest())


@pytest.mark.parametrize("operator", [DownloadFilesOperator, VerifyAndLandOperator], ids=["small", "in parts"])
def test_verify_and_probe_reach_both_tasks(bench, monkeypatch, operator):
    monkeypatch.setattr(small_files, "SMALL", len(DATA) if operator is DownloadFilesOperator else -1)
    [bundle] = _planned(bench)
    bench.run(DownloadFilesOperator, bundle=bundle, verify="strict", probe=True)
    bench.run(VerifyAndLandOperator, bundle=bundle, verify="strict", probe="true")
    entry = bench.ledger.read(_file(bench, bundle))
    assert entry.verified_by[-2:] == ("read_back", "probe")
    assert any("it was cut" in wrong or "as no MP4" in wrong for wrong in entry.suspect)


def test_strict_refuses_what_nothing_proves(bench):
    bench.source.etag = ""
    [bundle] = _planned(bench)
    with pytest.raises(UnprovenError, match="verify is strict"):
        bench.run(DownloadFilesOperator, bundle=bundle, verify="strict")
    assert _file(bench, bundle).landing_uri not in bench.store.objects
    bench.run(DownloadFilesOperator, bundle=bundle, verify="standard")
    assert bench.store.objects[_file(bench, bundle).landing_uri] == DATA


def test_a_second_try_goes_on_with_the_upload_of_the_first(bench, in_parts):
    [bundle] = _planned(bench)
    bench.run(DownloadFilesOperator, bundle=bundle)
    [first] = bench.store.uploads
    bench.run(DownloadFilesOperator, context=bench.context(try_number=2), bundle=bundle)
    assert list(bench.store.uploads) == [first]


def test_what_has_landed_is_not_fetched_again(bench):
    [bundle] = _planned(bench)
    for _ in range(2):
        assert bench.run(DownloadFilesOperator, bundle=bundle)["landed"] == 1
    assert len(bench.source.opened) == 1


def test_an_unknown_bundle_says_what_to_clear(bench):
    with pytest.raises(UploadLostError, match="clear resolve_manifests"):
        bench.run(DownloadFilesOperator, bundle="0123456789abcdef")


def test_verify_without_a_download_says_what_to_clear(bench):
    [bundle] = _planned(bench)
    with pytest.raises(UploadLostError, match="clear the download task"):
        bench.run(VerifyAndLandOperator, bundle=bundle)


def test_the_warehouse_is_checked_once(bench):
    [bundle] = _planned(bench)
    known = bench.ledger.read_abilities("b")
    assert known.refuses_wrong_crc64nvme
    assert not [uri for uri in bench.store.objects if "/probes/" in uri]
    bench.run(DownloadFilesOperator, bundle=bundle)
    assert bench.ledger.read_abilities("b") == known


def test_a_file_of_the_primary_bucket_is_copied(bench, monkeypatch):
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__PRIMARY_CONN_ID", "acme")
    bench.store.put("s3://acme/hls/1.ts", DATA)
    bench.store.uri_of = lambda location: "s3://acme/hls/1.ts"
    results = [{"filename": "1.ts", "size": str(len(DATA)), "location": "https://acme.s3.amazonaws.com/hls/1.ts"}]
    bench.store_event(egress_ended(backupStorageUsed=True, fileResults=results))
    [bundle] = _resolved(bench)
    file = _file(bench, bundle)
    assert file.primary_uri == "s3://acme/hls/1.ts"
    for shares in (True, False):
        bench.store.shares_with = lambda other, shares=shares: shares
        bench.run(DownloadFilesOperator, bundle=bundle)
        assert bench.run(VerifyAndLandOperator, bundle=bundle)["landed"] == 1
        assert bench.store.objects[file.landing_uri] == DATA
        bench.store.delete(file.landing_uri)
    monkeypatch.delenv("AIRFLOW__LIVEKIT_BACKUP__PRIMARY_CONN_ID")
    with pytest.raises(ConfigurationError, match="primary_conn_id is not set any more"):
        bench.run(DownloadFilesOperator, bundle=bundle)


def test_a_failure_is_written_down_before_it_leaves(bench):
    [bundle] = _planned(bench)
    bench.source.refusals = [SourceUnavailableError("livekit.example answered 503", 7.0)]
    with pytest.raises(SourceUnavailableError):
        bench.run(DownloadFilesOperator, bundle=bundle)
    entry = bench.ledger.read(_file(bench, bundle))
    assert (entry.outcome, entry.reason) == (Outcome.FAILED, "livekit.example answered 503")
    assert entry.attempt.run_id == "r"


def test_a_corrupt_file_fails_at_once(bench):
    [bundle] = _planned(bench)
    bench.source.data = b"x" + DATA[1:]
    with pytest.raises(CorruptError):
        bench.run(DownloadFilesOperator, bundle=bundle)
    file = _file(bench, bundle)
    assert bench.ledger.read(file).outcome is Outcome.CORRUPT
    assert file.landing_uri not in bench.store.objects
    assert len(bench.source.opened) == 2, "wrong bytes are fetched again before they are called corrupt"


def test_the_label_is_a_template_that_comes_with_it(bench):
    [bundle] = _planned(bench)
    context = bench.context()
    bench.run(DownloadFilesOperator, context, bundle=bundle)
    assert context["map_index_template"] == "{{ livekit_files }}"


def test_another_label_stays(bench):
    [bundle] = _planned(bench)
    context = {**bench.context(), "map_index_template": "{{ livekit_files }}!"}
    bench.run(DownloadFilesOperator, context, bundle=bundle, map_index_template="{{ livekit_files }}!")
    assert context["map_index_template"] == "{{ livekit_files }}!"


def test_downloads_run_in_the_configured_pool(monkeypatch):
    assert DownloadFilesOperator(task_id="t", bundle="").pool == "default_pool"
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__POOL", "livekit")
    assert DownloadFilesOperator(task_id="t", bundle="").pool == "livekit"
    assert DownloadFilesOperator(task_id="t", bundle="", pool="other").pool == "other"
    assert VerifyAndLandOperator(task_id="t", bundle="").pool == "default_pool"


def test_the_report_of_a_run(bench):
    [bundle] = _planned(bench)
    bench.run(DownloadFilesOperator, bundle=bundle)
    report = bench.run(ReportOperator)
    assert report["is_safe"]
    assert report["totals"] == {"landed": 1}
    assert report["headline"] == "1 file of 1 backup: 1 landed"
    assert bench.store.objects[report["report"]].startswith(b"LiveKit backup recovery")
    [(asset, extra)] = bench.outlet_events[LANDED].added
    assert asset == RECORDINGS
    [landed] = extra["landed"]
    assert landed["uri"] == _file(bench, bundle).landing_uri
    assert bench.run(AllSafeOperator, report=report) == report["headline"]


def test_nothing_landed_gives_no_asset_event(bench):
    _planned(bench)
    report = bench.run(ReportOperator)
    assert not report["is_safe"]
    assert bench.outlet_events[LANDED].added == []


def test_the_verdict_fails_the_run_and_names_what_is_not_safe(bench, caplog):
    report = {
        "is_safe": False,
        "headline": "1 NOT SAFE",
        "not_safe": ["corrupt, 3.0 h left, EG_1 'a.mp4': wrong bytes"],
        "report": "s3://b/report.txt",
    }
    with pytest.raises(NotSafeError, match=r"1 NOT SAFE; each by name in s3://b/report\.txt"):
        bench.run(AllSafeOperator, report=report)
    assert "NOT SAFE: corrupt, 3.0 h left, EG_1 'a.mp4': wrong bytes" in caplog.text


@pytest.mark.parametrize("report", [None, {}, ""])
def test_no_report_is_no_verdict(bench, report):
    with pytest.raises(NotSafeError, match="there is no report"):
        bench.run(AllSafeOperator, report=report)


def test_the_end_of_a_run_runs_whatever_happened():
    assert ReportOperator(task_id="t").trigger_rule == "all_done"
    assert AllSafeOperator(task_id="t", report={}).trigger_rule == "all_done"
    assert ReportOperator(task_id="t").outlets == [LANDED]


def test_a_missing_setting_fails_at_once(bench, monkeypatch):
    monkeypatch.delenv("AIRFLOW__LIVEKIT_BACKUP__INBOX")
    for operator, arguments in (
        (IngestEventsOperator, {}),
        (ResolveManifestsOperator, {"intake": {}}),
        (ReportOperator, {}),
    ):
        with pytest.raises(ConfigurationError, match="inbox is not set"):
            bench.run(operator, **arguments)


def test_a_log_folds_a_long_list_of_what_is_safe_and_nothing_else():
    many = "\n".join(f"  landed {number}" for number in range(40))
    text = f"title\nheadline\n\nNOT SAFE (40)\n{many}\n\nSAFE (40)\n{many}\n\nUNREADABLE (1)\n  a document\n"
    lines = list(lines_for_ui(text))
    assert "\n".join(line.removeprefix("::group::") for line in lines if line != "::endgroup::") + "\n" == text
    start, end = lines.index("::group::SAFE (40)"), lines.index("::endgroup::")
    assert end - start == 41
    assert list(lines_for_ui("title\n\nSAFE (1)\n  landed 1\n")) == ["title", "", "SAFE (1)", "  landed 1"]
