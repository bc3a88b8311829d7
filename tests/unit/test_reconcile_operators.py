"""The reconciling tasks against a store in memory: what they file, start, print and raise."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import DagRunTriggerException
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowSkipException

from livekit_backup.core.ledger import Ledger
from livekit_backup.core.livekit_api import ListedEgress
from livekit_backup.errors import ConfigurationError, NotSafeError, SourceUnavailableError
from livekit_backup.hooks import comparison
from livekit_backup.models.egress import EgressInfo
from livekit_backup.operators import recovery_operator
from livekit_backup.operators.reconcile import ReconcileOperator, ReconciliationReportOperator, RecoverMissedOperator
from unit.fakes import MemoryStore, signed

NOW = datetime.now(UTC).replace(microsecond=0)


def listed(egress_id="EG_1", **fields):
    ended = int((NOW - timedelta(days=1)).timestamp()) * 10**9
    document = {
        "egress_id": egress_id,
        "status": "EGRESS_COMPLETE",
        "started_at": str(ended - 10**12),
        "ended_at": str(ended),
        "backup_storage_used": True,
        "manifest_location": signed("EG_1.json"),
        **fields,
    }
    return ListedEgress(document, EgressInfo.model_validate(document))


class Bench:
    def __init__(self):
        self.store = MemoryStore()
        self.ledger = Ledger(self.store, "s3://b/out/_livekit_backup")
        self.listing = [listed()]
        self.states = {}
        self.params = {}
        self.try_number = 1

    def list_egress(self):
        for item in self.listing:
            if isinstance(item, Exception):
                raise item
            yield item

    def run(self, operator, **arguments):
        ti = SimpleNamespace(
            dag_id="d",
            run_id="r",
            task_id="t",
            map_index=-1,
            try_number=self.try_number,
            max_tries=1,
            get_task_states=lambda dag_id, task_ids, run_ids: {
                run_ids[0]: {task: self.states[task] for task in task_ids if task in self.states}
            },
        )
        context = {"ti": ti, "dag_run": SimpleNamespace(run_after=NOW + timedelta(seconds=1)), "params": self.params}
        return operator(task_id="t", **arguments).execute(context)


@pytest.fixture
def bench(monkeypatch):
    bench = Bench()
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "s3://b/in")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE", "s3://b/out")
    monkeypatch.setattr(recovery_operator, "_store", lambda conn_id, *options: bench.store)
    monkeypatch.setattr(comparison, "LiveKitHook", lambda conn_id: SimpleNamespace(list_egress=bench.list_egress))
    return bench


def test_reconcile_files_and_names_the_run_that_takes_it_up(bench):
    found = bench.run(ReconcileOperator)
    assert found["filed"] == 1
    assert found["run_id"].startswith("reconcile__")
    start, end = (datetime.fromisoformat(found["conf"][key]) for key in ("start", "end"))
    assert start < end <= datetime.now(UTC)
    assert "Signature" not in json.dumps(found)
    assert bench.ledger.read_comparison("d", "r").backups[0].filed


def test_the_same_findings_are_the_same_run(bench):
    first = bench.run(ReconcileOperator)["run_id"]
    bench.store.objects.clear()
    assert bench.run(ReconcileOperator)["run_id"] == first
    bench.store.objects.clear()
    bench.listing.append(listed("EG_2"))
    assert bench.run(ReconcileOperator)["run_id"] != first


def test_reconcile_looks_at_the_window_it_is_given(bench):
    bench.params = {"start": (NOW - timedelta(hours=2)).isoformat(), "end": None}
    assert bench.run(ReconcileOperator)["filed"] == 0
    bench.params = {"start": (NOW - timedelta(days=2)).isoformat(), "end": NOW.isoformat()}
    assert bench.run(ReconcileOperator)["filed"] == 1


def test_an_api_that_does_not_answer_is_asked_again_and_then_a_gap(bench):
    bench.listing.append(SourceUnavailableError("503"))
    with pytest.raises(SourceUnavailableError):
        bench.run(ReconcileOperator)
    bench.try_number = 2
    assert bench.run(ReconcileOperator)["filed"] == 1
    assert len(bench.ledger.read_comparison("d", "r").gaps) == 1


def test_without_a_connection_the_rest_is_done_and_the_statement_fails(bench):
    bench.listing = [ConfigurationError("there is no Airflow connection 'livekit_default'")]
    assert bench.run(ReconcileOperator)["filed"] == 0
    with pytest.raises(NotSafeError, match="no Airflow connection 'livekit_default'"):
        bench.run(ReconciliationReportOperator)


def test_nothing_to_recover_is_skipped(bench):
    for found in (None, {"filed": 0, "run_id": "x", "conf": {}}):
        with pytest.raises(AirflowSkipException):
            bench.run(RecoverMissedOperator, found=found)


def test_the_recovery_dag_is_started_once_and_waited_for(bench):
    found = {"filed": 2, "run_id": "reconcile__1", "conf": {"start": "a", "end": "b"}}
    with pytest.raises(DagRunTriggerException) as caught:
        bench.run(RecoverMissedOperator, found=found, fail_when_dag_is_paused=False)
    trigger = caught.value
    assert (trigger.trigger_dag_id, trigger.dag_run_id) == ("livekit_backup_recovery", "reconcile__1")
    assert trigger.conf["start"] == "a"
    assert trigger.logical_date is None
    assert trigger.skip_when_already_exists
    assert trigger.wait_for_completion
    assert [str(state) for state in trigger.allowed_states] == ["success", "failed"]
    assert trigger.failed_states == []


def test_the_statement_is_printed_stored_and_green_while_all_is_pending(bench, caplog):
    bench.run(ReconcileOperator)
    with caplog.at_level("INFO"):
        told = bench.run(ReconciliationReportOperator)
    assert told["headline"].startswith("1 backup in the window: 0 safe, 1 pending")
    assert told["totals"] == {"lost": 0, "unaccounted": 0, "at_risk": 0, "pending": 1, "safe": 0}
    assert told["headline"].encode() in bench.store.objects[told["report"]]
    assert "EG_1" in caplog.text
    assert json.loads(bench.store.objects[told["report"].replace("report.txt", "report.json")])["listed"] == 1


def test_what_the_ended_recovery_left_without_an_outcome_is_unaccounted(bench):
    bench.run(ReconcileOperator)
    bench.states = {"recover_missed": "success"}
    with pytest.raises(NotSafeError, match="1 unaccounted") as caught:
        bench.run(ReconciliationReportOperator)
    assert "report.txt" in str(caught.value)
    assert any(uri.endswith("report.txt") for uri in bench.store.objects)


@pytest.mark.parametrize("state", ["failed", "upstream_failed"])
def test_what_was_filed_and_never_started_is_red_and_not_pending(bench, state):
    # As when the recovery DAG is paused: else every statement would file it anew and be green, until the link is dead.
    bench.run(ReconcileOperator)
    bench.states = {"recover_missed": state}
    with pytest.raises(NotSafeError, match="0 pending, 0 at risk, 1 unaccounted"):
        bench.run(ReconciliationReportOperator)


def test_what_is_lost_is_stated_for_a_day_behind_its_end(bench):
    ended = int((NOW - timedelta(days=7, hours=5)).timestamp()) * 10**9
    bench.listing = [listed(ended_at=str(ended))]
    assert bench.run(ReconcileOperator)["filed"] == 0
    with pytest.raises(NotSafeError, match="1 lost"):
        bench.run(ReconciliationReportOperator)


def test_an_end_alone_looks_back_from_there(bench):
    bench.params = {"start": None, "end": (NOW - timedelta(hours=1)).isoformat()}
    assert bench.run(ReconcileOperator)["filed"] == 1


def test_a_statement_of_nothing_compared_fails(bench):
    with pytest.raises(NotSafeError, match="nothing was compared"):
        bench.run(ReconciliationReportOperator)
