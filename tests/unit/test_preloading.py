"""What is imported ahead, and where."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from airflow.sdk import Connection
from airflow.sdk.execution_time.task_runner import TaskRunnerMarker

from livekit_backup.hooks import preloading, s3_client

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


def _connection(**changes):
    return json.dumps({"conn_type": "aws", "login": "key", "password": "a secret", **changes})


@pytest.fixture
def client_ahead(monkeypatch):
    """Makes clients ahead as the scheduler does, and returns whether a task's is the one made ahead."""
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "s3://events/livekit")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE", "s3://recordings/r")
    monkeypatch.setattr(s3_client, "_clients_ahead", {})
    monkeypatch.setattr(s3_client, "_sessions_ahead", [])

    def is_ahead(at_start: str, in_task: str, **arguments) -> bool:
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", at_start)
        s3_client.make_ahead(preloading._places_at_hand())
        made = [connection.client for connection in s3_client._clients_ahead.values()]
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", in_task)
        return s3_client.S3Connection("aws_default", **arguments).client in made

    return is_ahead


def test_a_client_is_made_ahead_without_asking_anybody(client_ahead, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", None)
    assert client_ahead(_connection(), _connection())


def test_a_uri_will_do(client_ahead):
    assert client_ahead("aws://key:a+secret@", "aws://key:a+secret@")


@pytest.mark.parametrize(
    "changed", [{"password": "another"}, {"extra": {"region_name": "eu-central-1"}}, {"extra": {"role_arn": "a:b"}}]
)
def test_a_task_whose_connection_has_changed_makes_its_own(client_ahead, changed):
    assert not client_ahead(_connection(**changed), _connection())


def test_a_task_that_tunes_its_client_makes_its_own(client_ahead):
    assert not client_ahead(_connection(), _connection(), tuning={"read_timeout": 5})


def test_no_role_is_assumed_ahead_and_no_machine_asked_for_its_keys(client_ahead):
    with_role = _connection(extra={"role_arn": "arn:aws:iam::1:role/r"})
    list(map(client_ahead, [with_role, _connection(login=None, password=None)], [_connection(), _connection()]))
    assert not s3_client._clients_ahead


def test_what_was_rehearsed_is_not_what_a_task_is_answered(client_ahead):
    client_ahead(_connection(), _connection())
    [connection] = s3_client._clients_ahead.values()
    answers = connection.client.meta.events.emit("before-send.s3.HeadObject", request=SimpleNamespace(url="http://x"))
    assert not [answer for _, answer in answers if answer is not None]


def test_a_rehearsal_that_fails_leaves_no_client_that_answers_itself(client_ahead, monkeypatch):
    client = s3_client.S3Connection("aws_default", known=Connection.from_json(_connection(), "aws_default")).client
    monkeypatch.setattr(client, "put_object", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        s3_client.make_ahead([(SimpleNamespace(aws_conn_id="aws_default", is_static=True, client=client), "b")])
    answers = client.meta.events.emit("before-send.s3.HeadObject", request=SimpleNamespace(url="http://x"))
    assert not [answer for _, answer in answers if answer is not None]
    assert not s3_client._clients_ahead


def test_a_connection_that_cannot_be_read_is_left_to_the_tasks(client_ahead, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"login": "key", "password": "a secret"')
    assert list(preloading._places_at_hand()) == []
