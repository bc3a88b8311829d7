"""What a run takes in: its window, what came late before it, or only the plan of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from livekit_backup.core import run_plan
from livekit_backup.core.ledger import Ledger
from livekit_backup.operators import recovery_operator
from livekit_backup.operators.ingest_events import IngestEventsOperator
from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator
from livekit_backup.operators.report import AllSafeOperator, ReportOperator
from livekit_backup.operators.resolve_manifests import ResolveManifestsOperator
from livekit_backup.sensors.backup_event import BackupEventSensor
from unit.fakes import MemoryStore, egress_ended, signed

HOUR = timedelta(hours=1)
NOW = datetime.now(UTC)
START = NOW.replace(minute=0, second=0, microsecond=0) - 3 * HOUR
SOON = f"{NOW:%Y%m%dT%H%M%SZ}"


class Bench:
    def __init__(self):
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, "s3://b/out/_livekit_backup")

    def put(self, egress_id, hours_before=0):
        results = [{"filename": "a.mp4", "size": "1000", "location": signed(f"{egress_id}/a.mp4", SOON)}]
        body = json.dumps(egress_ended(egress_id, backupStorageUsed=True, fileResults=results)).encode()
        hour = START - hours_before * HOUR
        self.store.put(f"s3://b/in/{hour:%Y/%m/%d/%H}/{len(self.store.objects)}", body)

    def context(self, run_type="scheduled", run_id="r", start=START, **params):
        ti = SimpleNamespace(dag_id="d", run_id=run_id, task_id="t", map_index=-1, try_number=1)
        return {
            "ti": ti,
            "dag_run": SimpleNamespace(run_after=start + HOUR, run_type=run_type),
            "params": params,
            "data_interval_start": start,
            "data_interval_end": start + HOUR,
        }

    def run(self, operator, *, arguments=(), **context):
        return operator(task_id="t", **dict(arguments)).execute(self.context(**context))

    def ingest(self, **context):
        self.run(IngestEventsOperator, **context)
        return self.intake(context.get("run_id", "r"))

    def intake(self, run_id="r"):
        return self.ledger.read_intake("d", run_id)

    def ids(self, **context):
        return [ref.egress_id for ref in self.ingest(**context).backups]

    def look(self, **context):
        return self.run(BackupEventSensor, arguments={"deferrable": True}, **context)

    def resolve(self, **context):
        return self.run(ResolveManifestsOperator, arguments={"intake": {}}, **context)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "s3://b/in")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE", "s3://b/out")
    monkeypatch.setattr(run_plan, "system_resolver", lambda host, port: ["52.218.1.1"])
    bench = Bench()
    monkeypatch.setattr(recovery_operator, "_store", lambda conn_id, *options: bench.store)
    return bench


def test_a_scheduled_run_takes_up_what_came_late(bench):
    bench.put("EG_now")
    bench.put("EG_late", hours_before=2)
    bench.put("EG_old", hours_before=4)
    intake = bench.ingest()
    assert [ref.egress_id for ref in intake.backups] == ["EG_now", "EG_late"]
    assert (intake.late, intake.objects) == (1, 1)


@pytest.mark.parametrize("run_type", ["manual", "backfill", "asset_triggered"])
def test_no_other_run_looks_back(bench, run_type):
    bench.put("EG_late", hours_before=1)
    assert bench.ids(run_type=run_type) == []
    with pytest.raises(AirflowSkipException):
        bench.look(run_type=run_type)


def test_what_another_run_knows_of_is_left_to_it(bench):
    bench.put("EG_before", hours_before=1)
    earlier = {"run_id": "before", "start": START - HOUR}
    assert bench.ids(**earlier) == ["EG_before"]
    assert bench.ids() == ["EG_before"], "ingest alone is no knowledge: that run may have died there"
    bench.resolve(**earlier)
    assert bench.ids(run_id="r2") == []
    with pytest.raises(AirflowSkipException):
        bench.look(run_id="r2")


def test_a_late_backup_stays_with_its_run_when_that_is_cleared(bench):
    bench.put("EG_late", hours_before=1)
    assert bench.look()["late"] == 1
    assert bench.ids() == ["EG_late"]
    bundles = bench.resolve()
    assert bundles
    assert bench.look()["late"] == 1
    assert bench.ids() == ["EG_late"]
    assert bench.resolve() == bundles


def test_an_empty_hour_is_woken_by_a_late_event(bench):
    with pytest.raises(AirflowSkipException):
        bench.look()
    bench.put("EG_late", hours_before=3)
    assert bench.look() == {"objects": 0, "events": 0, "backups": 0, "late": 1}


def test_the_trigger_looks_back_too(bench):
    now = NOW.replace(minute=0, second=0, microsecond=0)
    for run_type, hours in (("scheduled", [0, 3, 2, 1]), ("manual", [0])):
        with pytest.raises(TaskDeferred) as caught:
            bench.look(run_type=run_type, start=now)
        prefixes = [f"s3://b/in/{now - before * HOUR:%Y/%m/%d/%H}/" for before in hours]
        assert caught.value.trigger.prefixes == prefixes
    bench.put("EG_late", hours_before=1)
    done = BackupEventSensor(task_id="t", deferrable=True).execute_complete(bench.context(), {"status": "objects"})
    assert done["late"] == 1


def test_what_the_trigger_found_empty_is_not_read_again(bench):
    bench.put("EG_late", hours_before=1)
    with pytest.raises(AirflowSkipException):
        BackupEventSensor(task_id="t", deferrable=True).execute_complete(bench.context(), {"status": "empty"})


def test_the_look_back_can_be_set_and_turned_off(bench, monkeypatch):
    bench.put("EG_late", hours_before=2)
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__LOOKBACK", "3600")
    assert bench.ids() == []
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__LOOKBACK", "0")
    assert bench.ids(run_id="r2") == []
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__LOOKBACK", "7200")
    assert bench.ids(run_id="r3") == ["EG_late"]


def test_a_layout_of_days_is_read_once(bench, monkeypatch):
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX_LAYOUT", "%Y/")
    bench.put("EG_1", hours_before=1)
    intake = bench.ingest()
    assert (len(intake.backups), intake.late) == (1, 0)


def test_a_plan_is_printed_and_nothing_written(bench, caplog):
    bench.put("EG_1")
    before = dict(bench.store.objects)
    with caplog.at_level("INFO"):
        returned = bench.run(IngestEventsOperator, plan_only=True)
    assert (returned["plan_only"], returned["backups"], returned["totals"]) == (True, 1, {"recover": 1})
    assert "EG_1 · a.mp4 → s3://b/out/dt=2024-11-20/EG_1/a.mp4" in caplog.text
    assert "Signature" not in caplog.text
    assert bench.look(plan_only=True) == {}
    assert bench.store.objects == before
    assert bench.store.uploads == {}


def test_a_plan_does_not_wait_and_is_empty_where_nothing_is(bench):
    now = NOW.replace(minute=0, second=0, microsecond=0)
    for deferrable in (True, False):
        sensor = BackupEventSensor(task_id="t", deferrable=deferrable)
        assert sensor.execute(bench.context(start=now, plan_only=True)) == {}
    assert bench.run(IngestEventsOperator, plan_only=True)["files"] == 0
    assert bench.store.objects == {}


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (ResolveManifestsOperator, {"intake": {}}),
        (DownloadFilesOperator, {"bundle": "x"}),
        (VerifyAndLandOperator, {"bundle": "x"}),
        (ReportOperator, {}),
        (AllSafeOperator, {"report": {}}),
    ],
)
def test_in_a_run_that_only_plans_every_other_task_is_skipped(bench, operator, arguments):
    task = operator(task_id="t", **arguments)
    with pytest.raises(AirflowSkipException, match="plan only"):
        task.pre_execute(bench.context(plan_only=True))
    task.pre_execute(bench.context(plan_only=False))
    task.pre_execute(bench.context())


@pytest.mark.parametrize("operator", [BackupEventSensor, IngestEventsOperator])
def test_what_plans_runs(bench, operator):
    operator(task_id="t").pre_execute(bench.context(plan_only=True))
