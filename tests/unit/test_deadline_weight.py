"""Older windows first, dead ones last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.operators.deadline_weight import DEAD, MOST, NearestDeadlineWeight, weight_of
from livekit_backup.operators.ingest_events import IngestEventsOperator
from livekit_backup.operators.recover_files import DownloadFilesOperator

NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
PATH = f"{NearestDeadlineWeight.__module__}.{NearestDeadlineWeight.__qualname__}"


@pytest.mark.parametrize(
    ("run_id", "weight"),
    [
        ("scheduled__2026-11-23T13:00:00+00:00", 1),
        ("scheduled__2026-11-23T14:00:00+00:00", 1),
        ("scheduled__2026-11-24T14:00:00+00:00", 1),
        ("backfill__2026-11-22T14:00:00+00:00", 24),
        ("backfill__2026-11-22T15:00:00+01:00", 24),
        ("backfill__2026-11-16T15:00:00+00:00", 167),
        ("backfill__2026-11-16T14:00:00+00:00", 168),
        ("backfill__2026-11-16T13:59:00+00:00", DEAD),
        ("scheduled__2024-11-01T00:00:00+00:00", DEAD),
        ("chained__2026-11-21T14:00:00+00:00__2", 48),
        ("reconcile__2026-11-23T04__0123456789ab", MOST),
        ("reconcile__2026-11-23T04:00__0123456789ab", 10),
        ("manual__2026-11-23T13:59:59.123456+00:00_abc", MOST),
        ("my run", MOST),
        ("x__2026-13-99T99:99", MOST),
        ("", MOST),
    ],
)
def test_the_older_the_window_the_heavier_until_its_links_are_dead(run_id, weight):
    assert weight_of(run_id, NOW) == weight


@given(hours=st.lists(st.integers(1, 168), min_size=2, max_size=2, unique=True))
def test_of_two_living_windows_the_older_goes_first(hours):
    young, old = (
        weight_of(f"scheduled__{NOW - timedelta(hours=age):%Y-%m-%dT%H:%M:%S+00:00}", NOW) for age in sorted(hours)
    )
    assert old > young > DEAD


@given(run_id=st.text(max_size=60))
def test_it_never_raises(run_id):
    assert DEAD <= weight_of(run_id, NOW) <= MOST


@pytest.mark.parametrize("ti", [SimpleNamespace(), SimpleNamespace(run_id=None), None])
def test_a_task_instance_without_a_run_weighs_something(ti):
    assert NearestDeadlineWeight().get_weight(ti) == MOST


def test_a_dag_names_it_by_its_path_for_mapped_tasks_too():
    with DAG("d", schedule=None, default_args={"weight_rule": PATH}) as dag:
        IngestEventsOperator(task_id="a")
        DownloadFilesOperator.partial(task_id="b").expand(bundle=["1"])
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    for task_id in ("a", "b"):
        ti = TaskInstance(again.get_task(task_id), run_id="scheduled__2024-01-01T00:00:00+00:00", dag_version_id=None)
        assert ti.priority_weight == DEAD
        ti = TaskInstance(again.get_task(task_id), run_id="manual__x", dag_version_id=None)
        assert ti.priority_weight == MOST
