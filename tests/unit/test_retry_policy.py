"""Which errors are retried, after how long, and what the last line of a failed task's log says."""

from __future__ import annotations

import inspect
import json
import logging
import random
import re
from datetime import timedelta

import pytest
from airflow.sdk import DAG, ExceptionRetryPolicy, RetryAction, RetryDecision, RetryPolicy, RetryRule, task_group
from airflow.serialization.serialized_objects import DagSerialization

from livekit_backup import errors
from livekit_backup.errors import (
    ConfigurationError,
    LinkExpiredError,
    LivekitBackupError,
    NotSafeError,
    RetryableError,
    SourceUnavailableError,
    TransferInterruptedError,
)
from livekit_backup.operators.ingest_events import IngestEventsOperator
from livekit_backup.operators.recover_files import DownloadFilesOperator
from livekit_backup.operators.report import AllSafeOperator
from livekit_backup.operators.retry_policy import RecoveryRetryPolicy
from livekit_backup.sensors.backup_event import BackupEventSensor

from ..conftest import ROOT

ERRORS = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, LivekitBackupError) and found is not LivekitBackupError
]


class UsersPolicy(RetryPolicy):
    """Retries everything after a minute."""

    def evaluate(self, exception, try_number, max_tries, context=None):
        return RetryDecision.retry(timedelta(minutes=1), "the user's")

    def serialize(self):
        return {"minutes": 1}

    @classmethod
    def deserialize(cls, data):
        assert data == {"minutes": 1}
        return cls()


@pytest.fixture
def longest(monkeypatch):
    """No luck: every random delay is the longest."""
    monkeypatch.setattr(random, "random", lambda: 1.0)


def _decision(error, try_number=1, max_tries=4, **options):
    return RecoveryRetryPolicy(**options).evaluate(error, try_number, max_tries)


@pytest.mark.parametrize("kind", ERRORS)
def test_what_may_pass_is_retried_and_all_else_fails_at_once(kind):
    expected = RetryAction.RETRY if issubclass(kind, RetryableError) else RetryAction.FAIL
    assert _decision(kind("s3://bucket/key: what happened")).action is expected


@pytest.mark.parametrize("error", [ValueError("theirs"), KeyboardInterrupt(), LivekitBackupError("none of the rooms")])
def test_all_other_exceptions_are_airflows(error):
    decision = _decision(error)
    assert (decision.action, decision.retry_delay) == (RetryAction.DEFAULT, None)


def test_each_retry_waits_up_to_twice_as_long(longest):
    delays = [_decision(TransferInterruptedError("x"), number, 99).retry_delay for number in range(1, 9)]
    assert [delay.total_seconds() for delay in delays] == [30, 60, 120, 240, 480, 900, 900, 900]
    assert _decision(TransferInterruptedError("x"), 10**6, 10**6).retry_delay == timedelta(minutes=15)
    quick = {"base_delay": timedelta(seconds=1), "max_delay": timedelta(seconds=3)}
    delays = [_decision(TransferInterruptedError("x"), number, 99, **quick).retry_delay for number in (1, 2, 3)]
    assert [delay.total_seconds() for delay in delays] == [1, 2, 3]


def test_tasks_of_a_flood_do_not_come_back_together():
    delays = {_decision(SourceUnavailableError("x"), 3).retry_delay for _ in range(20)}
    assert len(delays) > 10
    assert all(timedelta(0) <= delay <= timedelta(minutes=2) for delay in delays)


def test_what_the_source_asks_for_is_the_least_that_is_waited(longest):
    delay = _decision(SourceUnavailableError("x", retry_after=100.0)).retry_delay
    assert delay == timedelta(seconds=130), "and the random delay on top: others were told the same"
    for much in (10.0**9, float("inf")):
        assert _decision(SourceUnavailableError("x", retry_after=much)).retry_delay == timedelta(hours=6, seconds=30)


@pytest.mark.parametrize("kind", ERRORS)
def test_the_reason_is_one_sentence_on_what_happened_and_what_to_do(kind, caplog):
    caplog.set_level(logging.INFO)
    error = kind("s3://bucket/key: what happened")
    reason = _decision(error, try_number=5, max_tries=4).reason
    assert reason == f"{kind.__name__}: s3://bucket/key: what happened; {kind.what_to_do}"
    assert caplog.messages == ["::endgroup::", reason], "Airflow's last group of lines is closed in the UI"
    assert caplog.records[-1].levelname == "ERROR"


def test_the_reason_of_a_retry_says_when_it_comes(longest):
    decision = _decision(SourceUnavailableError("host answered 503"), try_number=2)
    assert decision.reason == "SourceUnavailableError: host answered 503; try 3 of 5 follows in 60 s"


def test_a_long_text_does_not_push_out_what_to_do():
    reason = _decision(ConfigurationError("x" * 2000)).reason
    assert len(reason) == 500
    assert reason.endswith("x…; then clear this task")


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_says_what_to_do_in_words_of_its_own(kind):
    assert "what_to_do" in vars(kind)
    assert 10 < len(kind.what_to_do) < 120
    assert not kind.what_to_do.endswith(".")


@pytest.mark.parametrize("kind", ERRORS)
def test_the_reference_says_what_to_do(kind):
    [row] = re.findall(rf"^\| \**`{kind.__name__}`\** \|.*$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert f" | {kind.what_to_do} | " in row


def _task_of(operator, **arguments):
    return operator(task_id="t", **arguments)


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (IngestEventsOperator, {}),
        (DownloadFilesOperator, {"bundle": ""}),
        (AllSafeOperator, {"report": {}}),
        (BackupEventSensor, {}),
    ],
)
def test_every_operator_has_it(operator, arguments):
    policy = _task_of(operator, **arguments).retry_policy
    assert policy.evaluate(NotSafeError("x"), 1, 4).action is RetryAction.FAIL


@pytest.mark.parametrize("where", ["argument", "default_args", "partial", "partial and default_args", "task group"])
def test_a_users_policy_decides_all_but_what_is_final(where):
    users = UsersPolicy()
    defaults = {"retry_policy": users} if where in ("default_args", "partial and default_args", "task group") else {}
    with DAG("d", schedule=None, default_args=defaults) as dag:
        if where.startswith("partial"):
            own = {} if defaults else {"retry_policy": users}
            DownloadFilesOperator.partial(task_id="t", **own).expand(bundle=["1", "2"])
        elif where == "task group":

            @task_group
            def group(bundle):
                DownloadFilesOperator(task_id="t", bundle=bundle)

            group.expand(bundle=["1", "2"])
        else:
            own = {} if defaults else {"retry_policy": users}
            DownloadFilesOperator(task_id="t", bundle="", **own)
    [task] = dag.tasks
    if where.startswith("partial"):
        task = task.unmap({"bundle": "1"})
    decide = task.retry_policy.evaluate
    assert decide(LinkExpiredError("dead"), 1, 4).action is RetryAction.FAIL
    assert decide(SourceUnavailableError("busy"), 1, 4).reason == "the user's"
    assert decide(ValueError("theirs"), 1, 4).retry_delay == timedelta(minutes=1)


def test_a_mapped_task_has_it_without_being_told():
    with DAG("d", schedule=None) as dag:
        DownloadFilesOperator.partial(task_id="t").expand(bundle=["1"])
    policy = dag.get_task("t").unmap({"bundle": "1"}).retry_policy
    assert policy.evaluate(LinkExpiredError("dead"), 1, 4).action is RetryAction.FAIL


def test_own_delays_are_kept(longest):
    policy = RecoveryRetryPolicy(base_delay=timedelta(seconds=5))
    task = IngestEventsOperator(task_id="t", retry_policy=policy)
    assert task.retry_policy is policy


def test_a_dag_with_it_is_serialized():
    with DAG("d", schedule=None) as dag:
        IngestEventsOperator(task_id="a")
        DownloadFilesOperator.partial(task_id="b").expand(bundle=["1"])
    plain = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    again = DagSerialization.from_dict(plain)
    assert again.get_task("a").has_retry_policy
    assert set(again.task_ids) == {"a", "b"}


def test_serializes_and_comes_back(longest):
    own = RecoveryRetryPolicy(base_delay=timedelta(seconds=5), max_delay=timedelta(seconds=7))
    again = RecoveryRetryPolicy.deserialize(json.loads(json.dumps(own.serialize())))
    assert [again.evaluate(RetryableError("x"), number, 9).retry_delay.seconds for number in (1, 2)] == [5, 7]
    rules = ExceptionRetryPolicy([RetryRule(ValueError, RetryAction.FAIL)])
    around = RecoveryRetryPolicy(otherwise=rules)
    again = RecoveryRetryPolicy.deserialize(json.loads(json.dumps(around.serialize())))
    assert again.evaluate(ValueError("x"), 1, 4).action is RetryAction.FAIL
    assert again.evaluate(OSError("x"), 1, 4).action is RetryAction.DEFAULT
