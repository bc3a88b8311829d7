"""The stand-alone receiver as its own process, against a real S3 server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from livekit_backup.models.stored_webhook import StoredWebhook
from livekit_backup.testing.s3_endpoint import S3Endpoint, free_port
from livekit_backup.testing.webhook_sender import Delivery, WebhookSender

API_KEY = "APIfunctional"
SECRET = "a-secret-of-more-than-thirty-two-bytes"
START_SECONDS = 60.0


@dataclass
class ReceiverProcess:
    """A context manager; stopped by SIGTERM, and killed where that does not help."""

    s3: S3Endpoint
    bucket: str
    log: Path
    arguments: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhook"

    def __enter__(self) -> Self:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "AWS", "LIVEKIT"))}
        own = {
            "LIVEKIT_BACKUP_INBOX": f"s3://{self.bucket}/inbox",
            "LIVEKIT_API_KEY": API_KEY,
            "LIVEKIT_API_SECRET": SECRET,
            "AWS_ENDPOINT_URL_S3": self.s3.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_key,
            "AWS_DEFAULT_REGION": self.s3.region,
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "livekit_backup.receiver", "--port", str(self.port), *self.arguments],
                env={**inherited, **own, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        until = time.monotonic() + START_SECONDS
        while self.get("/health") != 200:
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def get(self, path: str) -> int:
        """The status of a GET; 0 where nobody answers."""
        return self.ask("GET", path)[0]

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            try:
                connection.request(method, path, body, headers or {})
                answer = connection.getresponse()
                return answer.status, answer.read()
            except ConnectionError:
                return 0, b""

    def sender(self, **options: Any) -> WebhookSender:
        return WebhookSender(self.url, API_KEY, SECRET, **options)

    def metric(self, name: str) -> float:
        lines = self.ask("GET", "/metrics")[1].decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"livekit_backup_{name}"))


def event(number: int, **fields: Any) -> bytes:
    """One of many events, of about the size of LiveKit's."""
    info = {"egressId": f"EG_{number:06}", "status": "EGRESS_COMPLETE", "backupStorageUsed": True, "note": "x" * 1000}
    created = str(int(time.time()))
    own = {"event": "egress_ended", "id": f"EV_{number:06}", "createdAt": created, "egressInfo": info, **fields}
    return json.dumps(own).encode()


def send_all(sender: WebhookSender, bodies: Sequence[bytes], connections: int) -> list[Delivery]:
    """Send them over so many connections at a time."""
    with ThreadPoolExecutor(connections) as pool:
        return list(pool.map(sender.send, bodies))


def kept_in(client: Any, bucket: str) -> list[StoredWebhook]:
    """Every event of the inbox, in key order; the marker of readiness is none."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="inbox/2")
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read(key: str) -> StoredWebhook:
        return StoredWebhook.model_validate_json(client.get_object(Bucket=bucket, Key=key)["Body"].read())

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(read, keys))
