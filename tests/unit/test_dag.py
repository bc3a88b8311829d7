"""The DAG files: parsed, serialized, and shaped as it is meant."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

DAGS = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture(scope="module")
def dags():
    bag = DagBag(DAGS)
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture(scope="module")
def dag(dags):
    return dags["livekit_backup_recovery"]


@pytest.fixture(scope="module")
def reconcile(dags):
    return dags["livekit_backup_reconcile"]


@pytest.mark.parametrize(
    "dag_id", ["livekit_backup_recovery", "livekit_backup_reconcile", "livekit_backup_landed_example"]
)
def test_serializes(dags, dag_id):
    dag = dags[dag_id]
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert sorted(again.task_ids) == sorted(dag.task_ids)
    for task_id in again.task_ids:
        assert again.get_task(task_id).task_type == dag.get_task(task_id).task_type


def test_its_tasks_and_their_order(dag):
    assert {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks} == {
        "wait_for_events": ["ingest_events"],
        "ingest_events": ["resolve_manifests"],
        "resolve_manifests": ["recover_files.download"],
        "recover_files.download": ["recover_files.verify_and_land"],
        "recover_files.verify_and_land": ["report"],
        "report": ["all_safe"],
        "all_safe": [],
    }


def test_the_end_runs_whatever_happened_and_decides(dag):
    assert dag.get_task("report").trigger_rule == dag.get_task("all_safe").trigger_rule == "all_done"
    assert [task.task_id for task in dag.leaves] == ["all_safe"]


def test_every_task_is_retried_with_growing_waits(dag, reconcile):
    for task in [*dag.tasks, *reconcile.tasks]:
        assert task.retries >= 4
        assert task.retry_delay == timedelta(seconds=30)
        assert task.retry_exponential_backoff


def test_its_hours_are_whole_and_it_looks_forward(dag):
    assert not dag.catchup
    assert dag.timetable.expression == "0 * * * *"
    assert dag.get_task("wait_for_events").deferrable


def test_its_form(dag):
    assert set(dag.params) == {"start", "end", "egress_ids", "plan_only"}
    assert dag.params.validate() == {"start": None, "end": None, "egress_ids": [], "plan_only": False}


def test_reconcile_finds_recovers_and_states(reconcile):
    assert {task.task_id: sorted(task.downstream_task_ids) for task in reconcile.tasks} == {
        "reconcile": ["recover_missed"],
        "recover_missed": ["statement"],
        "statement": [],
    }
    assert reconcile.get_task("statement").trigger_rule == "all_done"
    assert reconcile.get_task("recover_missed").deferrable


def test_a_recovery_that_never_ends_keeps_no_reconcile_away(reconcile):
    # Airflow bounds no deferred wait, and one run at a time is all there is.
    assert timedelta(hours=1) < reconcile.dagrun_timeout < timedelta(hours=6)


def test_reconcile_runs_every_six_hours_over_a_form(reconcile):
    assert not reconcile.catchup
    assert reconcile.timetable.expression == "30 */6 * * *"
    assert reconcile.max_active_runs == 1
    assert reconcile.params.validate() == {"start": None, "end": None}
