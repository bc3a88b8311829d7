"""Settings from Airflow's configuration and operators' arguments."""

from __future__ import annotations

from datetime import timedelta

import pytest

from livekit_backup.errors import ConfigurationError
from livekit_backup.hooks.configuration import (
    KEYS,
    LEDGER_FOLDER,
    RECEIVER_KEYS,
    check_upload_options,
    load_receiver_settings,
    load_settings,
)
from livekit_backup.models.upload_options import UploadOptions

PREFIX = "AIRFLOW__LIVEKIT_BACKUP__"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for key in KEYS:
        monkeypatch.delenv(f"{PREFIX}{key.upper()}", raising=False)
    monkeypatch.setenv(f"{PREFIX}INBOX", "s3://events/in/")
    monkeypatch.setenv(f"{PREFIX}WAREHOUSE", "s3://recordings/out")


def test_defaults():
    settings = load_settings({})
    assert (settings.inbox, settings.warehouse) == ("s3://events/in", "s3://recordings/out")
    assert settings.ledger == f"s3://recordings/out/{LEDGER_FOLDER}"
    assert settings.inbox_layout == "%Y/%m/%d/%H/"
    assert settings.landing_key == "dt={started:%Y-%m-%d}/{egress_id}/{filename}"
    assert settings.allowed_hosts == ("*.amazonaws.com", "storage.googleapis.com")
    assert settings.grace == timedelta(minutes=5)
    assert (settings.inbox_conn_id, settings.warehouse_conn_id) == ("aws_default", "aws_default")
    assert settings.primary_conn_id is None
    assert settings.upload_options == UploadOptions()


def test_an_argument_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}GRACE", "900")
    monkeypatch.setenv(f"{PREFIX}INBOX_LAYOUT", "dt=%Y-%m-%d/")
    assert load_settings({}).grace == timedelta(seconds=900)
    assert load_settings({}).inbox_layout == "dt=%Y-%m-%d/"
    assert load_settings({"grace": 5}).grace == timedelta(seconds=5)
    assert load_settings({"grace": timedelta(minutes=1)}).grace == timedelta(minutes=1)
    assert load_settings({"grace": 0}).grace == timedelta(0)
    assert load_settings({"inbox": "s3://other"}).inbox == "s3://other"


def test_connections():
    settings = load_settings({"aws_conn_id": "one"})
    assert (settings.inbox_conn_id, settings.warehouse_conn_id) == ("one", "one")
    settings = load_settings({"aws_conn_id": "one", "inbox_conn_id": "two"})
    assert (settings.inbox_conn_id, settings.warehouse_conn_id) == ("two", "one")
    assert load_settings({"warehouse_conn_id": "three"}).warehouse_conn_id == "three"


@pytest.mark.parametrize(
    "hosts", ["a.example, b.example:9000", "a.example b.example:9000", ["a.example", "b.example:9000"]]
)
def test_hosts(hosts):
    assert load_settings({"allowed_hosts": hosts}).allowed_hosts == ("a.example", "b.example:9000")


@pytest.mark.parametrize("key", ["inbox", "warehouse"])
def test_what_is_missing_is_named_with_its_cure(monkeypatch, key):
    monkeypatch.delenv(f"{PREFIX}{key.upper()}")
    with pytest.raises(ConfigurationError, match=f"{key} is not set: set {PREFIX}{key.upper()}=s3://"):
        load_settings({})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("inbox", "https://b/in"),
        ("warehouse", "s3://"),
        ("ledger", "b/ledger"),
        ("landing_key", "{egress_id}"),
        ("allowed_hosts", "*"),
        ("allowed_hosts", " , "),
        ("upload_options", "StorageClass=STANDARD_IA"),
        ("upload_options", "[]"),
        ("upload_options", '{"StorageClas": "STANDARD_IA"}'),
        ("grace", "-1"),
        ("grace", "soon"),
        ("grace", "nan"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_cure(monkeypatch, key, value):
    monkeypatch.setenv(f"{PREFIX}{key.upper()}", value)
    with pytest.raises(ConfigurationError, match=f"^{key} .*{PREFIX}{key.upper()}") as caught:
        load_settings({})
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("value", ["inf", "1e400", "1e15"])
def test_a_grace_without_end(value):
    try:
        load_settings({"grace": value})
    except ConfigurationError:
        return
    except OverflowError as error:
        pytest.fail(f"{error!r}")


def test_an_unknown_key_is_no_setting():
    assert load_settings({"color": "blue"}) == load_settings({})


def test_the_primary_is_nobodys_default():
    assert load_settings({"aws_conn_id": "one"}).primary_conn_id is None
    assert load_settings({"primary_conn_id": "two"}).primary_conn_id == "two"


OPTIONS = {"ServerSideEncryption": "aws:kms", "Tagging": {"team": "video"}}


@pytest.mark.parametrize("given", [OPTIONS, '{"ServerSideEncryption": "aws:kms", "Tagging": {"team": "video"}}'])
def test_upload_options_as_mapping_or_json(given):
    assert load_settings({"upload_options": given}).upload_options == UploadOptions.model_validate(OPTIONS)


def test_upload_options_of_the_environment(monkeypatch):
    monkeypatch.setenv(f"{PREFIX}UPLOAD_OPTIONS", '{"StorageClass": "STANDARD_IA"}')
    assert load_settings({}).upload_options == UploadOptions(StorageClass="STANDARD_IA")
    assert load_settings({"upload_options": {}}).upload_options == UploadOptions(), "an argument wins"


WRONG = [
    (
        {"StorageClass": "GLACIER"},
        "upload_options.StorageClass is an archive, and a landed recording must be readable to be verified: move it there by a lifecycle rule of the bucket, not 'GLACIER': correct AIRFLOW__LIVEKIT_BACKUP__UPLOAD_OPTIONS or the operator's argument",
    ),
    ({"Tagging": {"a": 1}}, "upload_options.Tagging.a must be a valid string, not 1: correct "),
    ({"ACL": "public"}, "upload_options.ACL must be 'private', "),
    ({"storageclass": "STANDARD"}, "upload_options has the unknown key 'storageclass' (did you mean StorageClass?); "),
    ({"SSEKMSKeyId": "k"}, "upload_options has SSEKMSKeyId, which needs ServerSideEncryption aws:kms"),
    ("nonsense", "upload_options must be a JSON object or a mapping, not 'nonsense': correct "),
    ("[]", "upload_options must be a JSON object or a mapping, not "),
]


@pytest.mark.parametrize(("given", "says"), WRONG)
def test_upload_options_that_cannot_be_used(given, says):
    for use in (lambda: load_settings({"upload_options": given}), lambda: check_upload_options(given)):
        with pytest.raises(ConfigurationError) as caught:
            use()
        assert str(caught.value).startswith(says)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        "{{ var.json.options }}",
        {"StorageClass": "{{ var.value.storage_class }}"},
        {"SSEKMSKeyId": "k", "ServerSideEncryption": "{{ var.value.encryption }}"},
        {"SSEKMSKeyId": "{{ var.value.key }}", "ServerSideEncryption": "aws:kms"},
        {"Tagging": {"team": "{% if x %}a{% endif %}"}, "ACL": "private"},
        {"StorageClass": object()},
        object(),
    ],
)
def test_templates_are_checked_once_they_are_rendered(given):
    check_upload_options(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"StorageClas": "{{ x }}"}, "unknown key 'StorageClas'"),
        ({"StorageClass": "GLACIER", "ACL": "{{ x }}"}, "StorageClass is an archive"),
        ({"SSEKMSKeyId": "k", "ACL": "{{ x }}"}, "has SSEKMSKeyId"),
        ({"Tagging": ["a"]}, "Tagging must be a valid dictionary"),
    ],
)
def test_what_is_no_template_is_checked_before(given, says):
    with pytest.raises(ConfigurationError, match=says):
        check_upload_options(given)


@pytest.fixture
def receiver_section(monkeypatch: pytest.MonkeyPatch):
    def configure(**values: str) -> None:
        for key in (*KEYS, *RECEIVER_KEYS):
            monkeypatch.delenv(f"AIRFLOW__LIVEKIT_BACKUP__{key.upper()}", raising=False)
        for key, value in values.items():
            monkeypatch.setenv(f"AIRFLOW__LIVEKIT_BACKUP__{key.upper()}", value)

    return configure


def test_the_receiver_needs_an_inbox_and_no_warehouse(receiver_section):
    receiver_section(inbox="s3://acme-events/livekit/")
    settings, inbox_conn_id, livekit_conn_id = load_receiver_settings()
    assert (settings.inbox, settings.webhook_events, settings.webhook_max_bytes) == (
        "s3://acme-events/livekit",
        "egress",
        1048576,
    )
    assert (inbox_conn_id, livekit_conn_id) == ("aws_default", "livekit_default")


def test_the_receivers_connections_are_those_of_the_recovery(receiver_section):
    receiver_section(inbox="s3://b", aws_conn_id="one", livekit_conn_id="eu", webhook_events="all")
    assert load_receiver_settings()[1:] == ("one", "eu")
    receiver_section(inbox="s3://b", aws_conn_id="one", inbox_conn_id="two")
    assert load_receiver_settings()[1] == "two"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "AIRFLOW__LIVEKIT_BACKUP__INBOX"),
        ({"inbox": "/tmp"}, "AIRFLOW__LIVEKIT_BACKUP__INBOX"),
        ({"inbox": "s3://b", "webhook_events": "most"}, "AIRFLOW__LIVEKIT_BACKUP__WEBHOOK_EVENTS"),
        ({"inbox": "s3://b", "webhook_max_bytes": "-1"}, "AIRFLOW__LIVEKIT_BACKUP__WEBHOOK_MAX_BYTES"),
    ],
)
def test_what_the_receiver_cannot_use_is_named(receiver_section, values, named):
    receiver_section(**values)
    with pytest.raises(ConfigurationError, match=named):
        load_receiver_settings()
