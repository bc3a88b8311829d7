"""The receiver inside a real Airflow API server: configuration, keys and S3 are Airflow's own connections."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from livekit_backup.core.webhook_tokens import verify_stored
from livekit_backup.testing.embedded_airflow import EmbeddedAirflow
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.webhook_sender import CONTENT_TYPE, WebhookSender, sign_webhook

from ..conftest import ROOT
from .receiver_process import API_KEY, SECRET, event, kept_in, send_all

READY_SECONDS = 180.0


@dataclass
class Site:
    airflow: EmbeddedAirflow
    bucket: str
    log: Path

    def command(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env=self.airflow.environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def set_keys(self, key: str, secret: str) -> None:
        """The connection in Airflow's database, made anew."""
        subprocess.run(
            [sys.executable, "-m", "airflow", "connections", "delete", "livekit_default"],
            env=self.airflow.environment,
            capture_output=True,
            timeout=180,
        )
        connection = {"conn_type": "livekit", "host": "http://127.0.0.1:9", "login": key, "password": secret}
        self.command("connections", "add", "livekit_default", "--conn-json", json.dumps(connection))

    def status(self, path: str, body: bytes | None = None, **headers: str) -> int:
        return self.ask(path, body, **headers)[0]

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.airflow.url + path, data=body, headers=own)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@pytest.fixture(scope="module")
def site(s3_server: EmbeddedS3, s3_client: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The database and the API server alone: no scheduler is needed for a webhook."""
    home = tmp_path_factory.mktemp("airflow")
    bucket = f"mounted-{uuid.uuid4().hex[:8]}"
    s3_client.create_bucket(Bucket=bucket)
    connection = json.loads(s3_server.airflow_connection())
    airflow = EmbeddedAirflow(
        home,
        dags=ROOT / "dags",
        environment={
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__LIVEKIT_BACKUP__INBOX": f"s3://{bucket}/inbox",
            "AIRFLOW__LIVEKIT_BACKUP__AWS_CONN_ID": "events",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        },
    )
    site = Site(airflow, bucket, home / "api-server.log")
    site.command("db", "migrate")
    site.command("connections", "add", "events", "--conn-json", json.dumps(connection))
    site.set_keys(API_KEY, SECRET)
    with site.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server"],
            env=airflow.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                if site.status("/api/v2/version") == 200:
                    break
            except OSError:
                pass
            assert process.poll() is None and time.monotonic() < until, site.log.read_text()[-4000:]
            time.sleep(0.5)
        yield site
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def test_a_webhook_is_stored_by_airflows_connections(site: Site, s3_client: Any) -> None:
    assert site.status("/livekit-backup/health") == 200
    with WebhookSender(f"{site.airflow.url}/livekit-backup/webhook", API_KEY, SECRET, timeout=60) as sender:
        bodies = [event(number) for number in range(40)]
        assert all(delivery.accepted for delivery in send_all(sender, bodies, 10)), site.log.read_text()[-4000:]
    stored = kept_in(s3_client, site.bucket)
    assert sorted(each.body.encode() for each in stored) == sorted(bodies)
    assert {verify_stored(each, {API_KEY: SECRET}) for each in stored} == {API_KEY}
    assert site.status("/livekit-backup/ready") == 200
    assert b"livekit_backup_webhooks_stored_total 40.0" in site.ask("/livekit-backup/metrics")[1]


def test_what_is_not_signed_is_refused_and_nothing_else_is_open(site: Site) -> None:
    json_body = {"Content_Type": CONTENT_TYPE}
    assert site.status("/livekit-backup/webhook", event(1), **json_body) == 401
    forged = sign_webhook(event(1), API_KEY, "some-other-secret-of-more-than-32-bytes")
    assert site.status("/livekit-backup/webhook", event(1), **json_body, Authorization=forged) == 401
    good = sign_webhook(event(2), API_KEY, SECRET)
    for path in ("/api/v2/dags", "/api/v2/connections", "/api/v2/plugins"):
        assert site.status(path) == 401, "a login is wanted, as before"
        assert site.status(path, Authorization=f"Bearer {good}") in (401, 403), "LiveKit's token is none"
    assert site.status("/livekit-backup/docs") == 404
    assert site.status("/livekit-backup/openapi.json") == 404


def test_a_rotated_key_is_known_without_a_restart(site: Site) -> None:
    body = event(50)
    token = sign_webhook(body, "APIrotated", SECRET)

    def status() -> int:
        return site.status("/livekit-backup/webhook", body, Content_Type=CONTENT_TYPE, Authorization=token)

    assert status() == 401
    site.set_keys("APIrotated", SECRET)
    until = time.monotonic() + 60
    while status() != 200:
        assert time.monotonic() < until
        time.sleep(1)


def test_the_log_has_no_secret(site: Site) -> None:
    log = site.log.read_text()
    assert "Traceback" not in log
    assert SECRET not in log
