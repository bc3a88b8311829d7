"""How errors reach Airflow, and what all operators have in common."""

from __future__ import annotations

import inspect
import logging
import traceback
from datetime import timedelta

import pytest
from airflow.sdk import BaseOperator, BaseSensorOperator

from livekit_backup import errors
from livekit_backup.errors import (
    ConfigurationError,
    LivekitBackupError,
    SourceUnavailableError,
)
from livekit_backup.hooks.configuration import KEYS
from livekit_backup.models.upload_options import UploadOptions
from livekit_backup.operators.ingest_events import IngestEventsOperator
from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors
from livekit_backup.operators.report import AllSafeOperator, ReportOperator
from livekit_backup.operators.resolve_manifests import ResolveManifestsOperator
from livekit_backup.sensors.backup_event import BackupEventSensor

OPERATORS = {
    IngestEventsOperator: {},
    ResolveManifestsOperator: {"intake": {}},
    DownloadFilesOperator: {"bundle": ""},
    VerifyAndLandOperator: {"bundle": ""},
    ReportOperator: {},
    AllSafeOperator: {"report": {}},
    BackupEventSensor: {},
}
NOT_TEMPLATED = {
    (BackupEventSensor, "deferrable"): "decides how the task is run, before anything is rendered",
    **{(operator, "retry_policy"): "an object of Airflow's" for operator in OPERATORS},
}
ERRORS = [found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, LivekitBackupError)]


def _own_arguments(operator):
    """Every constructor argument of a class but those of Airflow's own bases."""
    for base in operator.__mro__:
        if base.__module__.startswith("livekit_backup."):
            for parameter in inspect.signature(base.__init__).parameters.values():
                if parameter.name not in ("self", "kwargs"):
                    yield parameter


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_argument_is_a_template_field_or_says_why_not(operator):
    own = {parameter.name for parameter in _own_arguments(operator)}
    left_out = {name for name in own - set(operator.template_fields) if (operator, name) not in NOT_TEMPLATED}
    assert left_out == set()
    assert set(operator.template_fields) <= own
    assert set(KEYS) <= set(operator.template_fields)


@pytest.mark.parametrize("operator", OPERATORS)
def test_arguments_are_keywords_only(operator):
    kinds = {parameter.kind for parameter in _own_arguments(operator)}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    with pytest.raises(TypeError):
        operator("task")


@pytest.mark.parametrize(("operator", "arguments"), OPERATORS.items())
def test_template_fields_are_attributes_and_every_one_is_rendered(operator, arguments):
    values = {**dict.fromkeys(KEYS, "{{ var }}"), **dict.fromkeys(arguments, "{{ var }}")}
    task = operator(task_id="t", **values)
    task.render_template_fields({"var": "rendered"})
    assert {getattr(task, field) for field in task.template_fields} == {"rendered"}


@pytest.mark.parametrize("operator", OPERATORS)
def test_documented_arguments(operator):
    documented = "".join(
        inspect.getdoc(base) or "" for base in operator.__mro__ if base.__module__.startswith("livekit")
    )
    for parameter in _own_arguments(operator):
        assert f":param {parameter.name}:" in documented, parameter.name


def _deep_below(error):
    try:
        raise ZeroDivisionError  # noqa: TRY301 - what is shown has to have a cause
    except ZeroDivisionError as cause:
        raise error from cause


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_is_shown_by_its_sentence_and_not_by_the_way_to_it(kind):
    error = kind("what happened at s3://bucket/key")
    with pytest.raises(kind) as caught, airflow_errors():
        _deep_below(error)
    assert caught.value is error
    shown = "".join(traceback.format_exception(error))
    assert "_deep_below" not in shown
    assert "ZeroDivisionError" not in shown
    assert shown.endswith("what happened at s3://bucket/key\n")


def test_the_way_to_an_error_is_in_the_log_of_who_asks_for_it(caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(SourceUnavailableError), airflow_errors():
        _deep_below(SourceUnavailableError("busy"))
    assert "_deep_below" in caplog.text


def test_other_peoples_errors_pass_whole():
    with pytest.raises(ValueError, match="theirs") as caught, airflow_errors():
        _deep_below(ValueError("theirs"))
    assert "_deep_below" in "".join(traceback.format_exception(caught.value))


def test_settings_of_an_operator(monkeypatch):
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "s3://env/in")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE", "s3://env/out")
    task = RecoveryOperator(task_id="t", inbox="s3://own/in", grace=7)
    assert (task.settings().inbox, task.settings().warehouse) == ("s3://own/in", "s3://env/out")
    assert task.settings().grace == timedelta(seconds=7)


def test_upload_options_are_checked_when_the_dag_is_parsed():
    with pytest.raises(ConfigurationError, match="upload_options has the unknown key 'StorageClas'"):
        RecoveryOperator(task_id="t", upload_options={"StorageClas": "STANDARD"})
    with pytest.raises(ConfigurationError, match=r"upload_options\.StorageClass is an archive"):
        RecoveryOperator(task_id="t", upload_options='{"StorageClass": "GLACIER"}')


def test_templates_in_upload_options_are_checked_when_they_are_rendered(monkeypatch):
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "s3://env/in")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE", "s3://env/out")
    for storage_class in ("STANDARD_IA", "GLACIER"):
        task = RecoveryOperator(task_id="t", upload_options={"StorageClass": "{{ wanted }}", "ACL": "private"})
        task.render_template_fields({"wanted": storage_class})
        if storage_class == "GLACIER":
            with pytest.raises(ConfigurationError, match=r"upload_options\.StorageClass is an archive"):
                task.settings()
        else:
            assert task.settings().upload_options == UploadOptions(StorageClass="STANDARD_IA", ACL="private")


def test_stores(monkeypatch):
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", "s3://env/in")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE", "s3://env/out")
    task = RecoveryOperator(task_id="t", warehouse_conn_id="w", upload_options={"RequestPayer": "requester"})
    assert task.primary_store(task.settings()) is None
    assert task.inbox_store(task.settings()).aws_conn_id == "aws_default"
    assert task.inbox_store(task.settings()).options == UploadOptions(), "another's bucket, perhaps"
    assert task.warehouse_store(task.settings()).aws_conn_id == "w"
    assert task.warehouse_store(task.settings()).options == UploadOptions(RequestPayer="requester")
    task = RecoveryOperator(task_id="t", primary_conn_id="p", upload_options={"RequestPayer": "requester"})
    assert task.primary_store(task.settings()).aws_conn_id == "p"
    assert task.primary_store(task.settings()).options == UploadOptions()


def test_settings_that_are_missing(monkeypatch):
    monkeypatch.delenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", raising=False)
    with pytest.raises(ConfigurationError, match="inbox is not set"):
        RecoveryOperator(task_id="t").settings()


def test_bases():
    assert issubclass(BackupEventSensor, BaseSensorOperator)
    assert all(issubclass(operator, BaseOperator) for operator in OPERATORS)
