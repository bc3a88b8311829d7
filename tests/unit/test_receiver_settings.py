"""The receiver without Airflow: its settings, its keys, and what it imports."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core.webhook_tokens import WebhookToken
from livekit_backup.errors import ConfigurationError
from livekit_backup.hooks.s3_client import EnvironmentConnection, S3Connection
from livekit_backup.receiver.event_filing import filing_hour
from livekit_backup.receiver.inbox_writer import THREADS, TUNING
from livekit_backup.receiver.signing_keys import STALE_SECONDS, SigningKeys, parse_keys
from livekit_backup.receiver.standalone_settings import keys_from, settings_from, tuning_from

from ..conftest import ROOT

ENVIRONMENT = {
    "LIVEKIT_BACKUP_INBOX": "s3://acme-events/livekit/",
    "LIVEKIT_API_KEY": "APIone",
    "LIVEKIT_API_SECRET": "one",
}
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_defaults():
    settings = settings_from(ENVIRONMENT)
    assert settings.inbox == "s3://acme-events/livekit"
    assert (settings.inbox_layout, settings.webhook_events) == ("%Y/%m/%d/%H/", "egress")
    assert settings.webhook_max_bytes == 1048576


def test_all_of_them():
    more = {"INBOX_LAYOUT": "%Y/", "WEBHOOK_EVENTS": "all", "WEBHOOK_MAX_BYTES": "4096"}
    settings = settings_from({**ENVIRONMENT, **{f"LIVEKIT_BACKUP_{name}": value for name, value in more.items()}})
    assert (settings.inbox_layout, settings.webhook_events, settings.webhook_max_bytes) == ("%Y/", "all", 4096)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIVEKIT_BACKUP_INBOX", ""),
        ("LIVEKIT_BACKUP_INBOX", "/var/inbox"),
        ("LIVEKIT_BACKUP_WEBHOOK_EVENTS", "some"),
        ("LIVEKIT_BACKUP_WEBHOOK_MAX_BYTES", "1 MiB"),
        ("LIVEKIT_BACKUP_WEBHOOK_MAX_BYTES", "0"),
    ],
)
def test_what_is_wrong_is_named_with_how_to_mend_it(name, value):
    with pytest.raises(ConfigurationError, match=name):
        settings_from({**ENVIRONMENT, name: value})


def test_how_buckets_are_addressed():
    assert tuning_from({}) == {}
    assert tuning_from({"LIVEKIT_BACKUP_S3_ADDRESSING_STYLE": "path"}) == {"s3": {"addressing_style": "path"}}
    with pytest.raises(ConfigurationError, match="LIVEKIT_BACKUP_S3_ADDRESSING_STYLE"):
        tuning_from({"LIVEKIT_BACKUP_S3_ADDRESSING_STYLE": "dns"})


def test_keys_come_from_everywhere_they_are_given(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nAPIthree: three\n\n'APIfour': \"four\"\n")
    environment = {**ENVIRONMENT, "LIVEKIT_KEYS": "APItwo: two:with:colons", "LIVEKIT_KEYS_FILE": str(file)}
    assert keys_from(environment)() == {
        "APIone": "one",
        "APItwo": "two:with:colons",
        "APIthree": "three",
        "APIfour": "four",
    }


def test_white_space_around_a_key_is_not_part_of_it():
    assert keys_from({"LIVEKIT_API_KEY": " APIone\n", "LIVEKIT_API_SECRET": "one\r\n"})() == {"APIone": "one"}


def test_a_file_of_keys_is_read_again(tmp_path):
    file = tmp_path / "keys"
    file.write_text("APIold: old")
    read = keys_from({}, file)
    file.write_text("APInew: new")
    assert read() == {"APInew": "new"}


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "LIVEKIT_API_KEY"),
        ({"LIVEKIT_API_KEY": "APIone"}, "LIVEKIT_API_SECRET"),
        ({"LIVEKIT_API_KEY": "APIone", "LIVEKIT_API_SECRET": " "}, "LIVEKIT_API_SECRET"),
        ({"LIVEKIT_API_SECRET": "hidden"}, "LIVEKIT_API_KEY"),
        ({"LIVEKIT_KEYS": "hidden"}, "LIVEKIT_KEYS, line 1"),
        ({"LIVEKIT_KEYS": "APIone:"}, "LIVEKIT_KEYS, line 1"),
        ({"LIVEKIT_KEYS_FILE": "/no/such/file"}, "/no/such/file"),
    ],
)
def test_missing_keys_are_named_and_no_secret_is_shown(environment, named):
    with pytest.raises(ConfigurationError, match=named) as caught:
        keys_from(environment)
    assert "hidden" not in str(caught.value)


def test_an_empty_file_of_keys_is_none(tmp_path):
    (tmp_path / "keys").write_text("# nothing yet\n")
    with pytest.raises(ConfigurationError, match="holds no keys"):
        keys_from({}, tmp_path / "keys")


def test_livekit_servers_own_format():
    assert parse_keys("APIone: one\r\nAPItwo:two\n", "it") == {"APIone": "one", "APItwo": "two"}


class Source:
    """Keys that change, and can fail."""

    def __init__(self) -> None:
        self.keys = {"APIone": "one"}
        self.reads = 0
        self.error: Exception | None = None
        self.at = 0.0
        self.signing = SigningKeys(self.read, clock=lambda: self.at)

    def read(self):
        self.reads += 1
        if self.error:
            raise self.error
        return dict(self.keys)

    def known(self, at: float, **how):
        self.at = at
        return asyncio.run(self.signing.current(**how))


def test_keys_are_read_once_a_minute():
    source = Source()
    for at in (0, 1, 30, 59.9):
        assert source.known(at) == {"APIone": "one"}
    assert source.reads == 1
    source.keys = {"APItwo": "two"}
    assert source.known(60) == {"APItwo": "two"}, "the withdrawn one is gone"
    assert source.reads == 2


def test_an_unknown_key_has_them_read_sooner_but_not_without_end():
    source = Source()
    source.known(0)
    source.keys["APItwo"] = "two"
    for at in (1, 5, 9.9):
        assert "APItwo" not in source.known(at, unknown_key=True)
    assert "APItwo" in source.known(10, unknown_key=True)
    for at in range(11, 20):
        source.known(at, unknown_key=True)
    assert source.reads == 2


def test_while_they_cannot_be_read_the_old_keys_serve_for_an_hour():
    source = Source()
    source.known(0)
    source.error = OSError("the database is down")
    assert source.known(61) == {"APIone": "one"}
    reads = source.reads
    assert source.known(61.5) == {"APIone": "one"}
    assert source.reads == reads, "what just failed is not asked again at once"
    assert source.known(STALE_SECONDS - 1) == {"APIone": "one"}
    with pytest.raises(ConfigurationError):
        source.known(STALE_SECONDS + 1)
    source.error = None
    assert source.known(STALE_SECONDS + 10) == {"APIone": "one"}


def test_many_who_wait_are_one_reader():
    source = Source()

    async def many():
        return await asyncio.gather(*(source.signing.current() for _ in range(20)))

    assert len(asyncio.run(many())) == 20
    assert source.reads == 1


@pytest.mark.parametrize(
    ("created", "made", "received", "hour"),
    [
        (0, [20], 21, 0),
        (-200, [20], 21, -200),
        (-301, [20], 21, 20),
        (400, [20], 21, 20),
        (None, [20], 21, 20),
        (None, [], 21, 21),
        (None, [10_000, 20], 21, 20),
        (None, [10_000], 21, 21),
        (None, [80], 21, 80),
        (5, [-1_000_000_000, 20_000], 21, 5),
        (-4000, [-1_000_000_000, 20_000], 21, 21),
    ],
    ids=[
        "as_created",
        "queued",
        "stale",
        "of_the_future",
        "no_time",
        "no_token_time",
        "odd_iat",
        "odd_token",
        "clocks",
        "nbf_of_1970",
        "nbf_of_1970_and_stale",
    ],
)
def test_an_event_is_filed_by_what_it_says(created, made, received, hour):
    def moment(seconds):
        return None if seconds is None else NOON + timedelta(seconds=seconds)

    token = WebhookToken("APIone", "", tuple(moment(each) for each in made))
    assert filing_hour(moment(created), token, moment(received)) == moment(hour)


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AWS", "LIVEKIT", "AIRFLOW"))}
    return subprocess.run(
        [sys.executable, *code.split(" ", 1), *arguments],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT / "plugins"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_its_s3_client_is_tuned_as_airflows_is_and_more_impatient(monkeypatch):
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AIRFLOW_CONN_EVENTS", '{"conn_type": "aws", "extra": {"endpoint_url": "http://127.0.0.1:9"}}')
    ours, airflows = EnvironmentConnection(tuning=TUNING), S3Connection("events", tuning=TUNING)
    for config in (ours.client.meta.config, airflows.client.meta.config):
        assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (2, 5, THREADS)
        assert config.retries["total_max_attempts"] == 2
        assert config.request_checksum_calculation == "when_required"
        assert config.s3["payload_signing_enabled"] is False
    assert (ours.place.endpoint_url, ours.place.access_key) == ("http://127.0.0.1:9", "a")
    assert (ours.aws_conn_id, airflows.aws_conn_id) == ("", "events")


def test_by_itself_it_never_imports_airflow():
    code = """-c import json, os, sys
from livekit_backup.receiver.__main__ import build_app
build_app(os.environ)
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.hooks.s3_client import EnvironmentConnection
assert S3ObjectStore(EnvironmentConnection()).place_name() == "http://127.0.0.1:9"
print(json.dumps(sorted(sys.modules)))"""
    aws = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = run(code, **ENVIRONMENT, **aws)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "livekit_backup" in loaded
    assert not loaded & {"airflow", "fastapi", "sqlalchemy"}


def test_a_missing_setting_ends_it_with_one_line():
    done = run("-m livekit_backup.receiver", "--port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "LIVEKIT_BACKUP_INBOX" in done.stderr


def test_the_plugin_costs_other_processes_nothing(tmp_path):
    code = """-c import json, sys
import airflow.plugins_manager
before = set(sys.modules)
from livekit_backup.plugin import LivekitBackupPlugin
[app] = LivekitBackupPlugin.fastapi_apps
assert callable(app["app"]) and app["url_prefix"] == "/livekit-backup"
print(json.dumps(sorted(set(sys.modules) - before)))"""
    done = run(code, AIRFLOW_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert {name for name in loaded if name.startswith("livekit_backup.")} == {
        "livekit_backup.hooks",
        "livekit_backup.hooks.preloading",
        "livekit_backup.notifications",
        "livekit_backup.notifications.link_deadline",
        "livekit_backup.operators",
        "livekit_backup.operators.deadline_weight",
        "livekit_backup.plugin",
    }
    assert not {"boto3", "botocore", "httpx", "starlette", "urllib3"} & loaded


def test_mounted_without_an_inbox_it_asks_to_be_sent_again(monkeypatch, caplog):
    from livekit_backup.plugin import WebhookReceiverApp

    monkeypatch.delenv("AIRFLOW__LIVEKIT_BACKUP__INBOX", raising=False)
    app = WebhookReceiverApp()
    sent = []

    async def twice():
        for _ in range(2):
            await app({"type": "http", "method": "POST", "path": "/webhook", "headers": []}, None, collect)

    async def collect(message):
        sent.append(message)

    asyncio.run(twice())
    assert [message["status"] for message in sent[::2]] == [503, 503]
    assert b"retry-after" in dict(sent[0]["headers"])
    assert [record.getMessage().count("AIRFLOW__LIVEKIT_BACKUP__INBOX") for record in caplog.records] == [1]
