"""What is imported ahead, and where."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from airflow.sdk.execution_time.task_runner import TaskRunnerMarker

from livekit_backup.hooks import preloading

JOB = SimpleNamespace(job_type=None)


@pytest.fixture
def preloaded(monkeypatch):
    calls = []
    monkeypatch.setattr(preloading, "preload", lambda: calls.append(1))
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    return calls


def test_the_scheduler_of_a_local_executor_imports_ahead(preloaded):
    preloading.on_starting(JOB)
    assert preloaded == [1]


def test_a_task_that_the_scheduler_has_forked_does_not(preloaded):
    preloading.on_starting(TaskRunnerMarker())
    assert preloaded == []


@pytest.mark.parametrize(
    "argv", [["airflow", "triggerer"], ["airflow", "dag-processor"], ["airflow", "celery", "worker"]]
)
def test_other_jobs_do_not(preloaded, monkeypatch, argv):
    monkeypatch.setattr(sys, "argv", argv)
    preloading.on_starting(JOB)
    assert preloaded == []


def test_executors_that_fork_nothing_here_have_no_use_for_it(preloaded, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    preloading.on_starting(JOB)
    assert preloaded == []


def test_a_fault_in_it_stops_no_scheduler(preloaded, monkeypatch, caplog):
    monkeypatch.setattr(preloading, "preload", lambda: 1 / 0)
    preloading.on_starting(JOB)
    assert "ZeroDivisionError" in caplog.text


def test_it_brings_all_that_the_dag_files_and_their_tasks_import():
    code = """if True:
        import sys, pathlib, runpy
        import airflow.sdk.execution_time.task_runner
        from livekit_backup.hooks.preloading import preload
        preload()
        before = set(sys.modules)
        runpy.run_path("dags/livekit_backup_recovery.py")
        left = {name for name in set(sys.modules) - before if name.partition(".")[0] in ("livekit_backup", "boto3")}
        sys.exit(f"not imported ahead: {left}" if left else 0)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
