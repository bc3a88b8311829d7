"""The stand-alone receiver as its own process: real HTTP, a real S3 server, both stopped at the worst moment."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from livekit_backup.core.inbox import IntakeReader
from livekit_backup.core.webhook_tokens import read_token, verify_stored
from livekit_backup.core.windows import inbox_prefixes
from livekit_backup.errors import WebhookRefusedError
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.receiver_settings import ReceiverSettings
from livekit_backup.models.stored_webhook import StoredWebhook
from livekit_backup.models.window import Window
from livekit_backup.receiver.event_filing import file_event, read_event
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.s3_endpoint import S3Endpoint
from livekit_backup.testing.webhook_sender import CONTENT_TYPE, sign_webhook

from ..conftest import ROOT
from .receiver_process import API_KEY, SECRET, ReceiverProcess, event, kept_in, send_all

KEYS = {API_KEY: SECRET}


@pytest.fixture
def receiver(s3_server: EmbeddedS3, bucket: str, tmp_path: Path) -> Any:
    with ReceiverProcess(s3_server, bucket, tmp_path / "receiver.log") as process:
        yield process


def bodies_of(stored: list[StoredWebhook]) -> list[bytes]:
    return sorted(each.body.encode() for each in stored)


def test_500_events_over_50_connections_are_all_stored_and_none_twice(
    receiver: ReceiverProcess, s3_client: Any, bucket: str
) -> None:
    bodies = [event(number) for number in range(500)]
    with receiver.sender() as sender:
        deliveries = send_all(sender, [*bodies, *bodies[:100]], 50)
    assert all(delivery.accepted for delivery in deliveries)
    stored = kept_in(s3_client, bucket)
    assert bodies_of(stored) == sorted(bodies)
    assert {verify_stored(each, KEYS) for each in stored} == {API_KEY}
    # A write that took too long for its answer counts when it is found by the next try.
    assert receiver.metric("webhooks_stored_total") + receiver.metric("webhooks_already_stored_total") == 600
    assert receiver.metric("webhooks_already_stored_total") >= 100


def test_the_recovery_finds_what_the_receiver_stored(
    receiver: ReceiverProcess, store: S3ObjectStore, bucket: str
) -> None:
    now = datetime.now(UTC)
    with receiver.sender() as sender:
        assert sender.send(event(1)).accepted
        assert sender.send(event(2, event="egress_updated")).accepted
    reader = IntakeReader()
    window = Window(start=now - timedelta(hours=1), end=now + timedelta(hours=1))
    for prefix in inbox_prefixes(f"s3://{bucket}/inbox", ReceiverSettings(inbox="s3://b").inbox_layout, window):
        reader.read(store, list(store.list_keys(prefix)))
    found = reader.result()
    assert [backup.egress_id for backup in found.backups] == ["EG_000001"]
    assert not found.unreadable


def test_it_is_healthy_and_ready_and_stays_healthy_without_its_inbox(
    receiver: ReceiverProcess, s3_server: EmbeddedS3, tmp_path: Path
) -> None:
    assert (receiver.get("/health"), receiver.get("/ready")) == (200, 200)
    with ReceiverProcess(s3_server, "no-such-bucket", tmp_path / "other.log") as other:
        assert (other.get("/health"), other.get("/ready")) == (200, 503)
        assert other.ask("POST", "/webhook", b"{}")[0] == 415
        with other.sender(scale=0.0) as sender:
            assert sender.send(event(1)).statuses == (503,) * 5
        assert "NoSuchBucket" in (tmp_path / "other.log").read_text()


def test_the_s3_server_stops_in_the_middle_of_a_load_and_every_event_is_stored_once(
    bucket: str, tmp_path: Path
) -> None:
    """LiveKit's own schedule, at half its pace: the server takes ten seconds and more to be back on a busy machine."""
    bodies = [event(number) for number in range(300)]
    with (
        EmbeddedS3(tmp_path / "s3", venv_dir=ROOT / ".embedded-s3" / "venv") as s3,
        ReceiverProcess(s3, "events", tmp_path / "receiver.log") as receiver,
        receiver.sender(scale=2.0) as sender,
    ):
        s3.client().create_bucket(Bucket="events")
        enough = threading.Event()

        def break_and_mend() -> None:
            assert enough.wait(60)
            s3.kill()
            time.sleep(1.0)
            s3.start()

        breaking = threading.Thread(target=break_and_mend)
        breaking.start()
        watching = threading.Thread(target=_when_stored, args=(receiver, 60, enough))
        watching.start()
        deliveries = send_all(sender, bodies, 30)
        breaking.join()
        watching.join()
        listed = bodies_of(kept_in(s3.client(), "events"))
        # Swift forgets to list an object when it is killed right after it has written it; so each is asked for.
        found = {key: StoredWebhook.model_validate_json(body) for key, body in _objects(s3.client(), bodies).items()}
    assert any(delivery.statuses[0] == 503 for delivery in deliveries), "it was away while events came"
    assert all(delivery.accepted for delivery in deliveries), [each.statuses for each in deliveries]
    assert bodies_of(list(found.values())) == sorted(bodies)
    assert len(set(listed)) == len(listed) and set(listed) <= set(bodies), "none twice, and nothing else"


def _objects(client: Any, bodies: list[bytes]) -> dict[str, bytes]:
    """The object of each event, where it has to be."""
    found = {}
    for body in bodies:
        read = json.loads(body)
        hour = datetime.fromtimestamp(int(read["createdAt"]), UTC)
        name = f"{read['egressInfo']['egressId']}-egress_ended-{hashlib.sha256(body).hexdigest()}"
        key = f"inbox/{hour:%Y/%m/%d/%H}/{name}.json"
        found[key] = client.get_object(Bucket="events", Key=key)["Body"].read()
    return found


def _when_stored(receiver: ReceiverProcess, count: int, reached: threading.Event) -> None:
    while receiver.metric("webhooks_stored_total") < count:
        time.sleep(0.01)
    reached.set()


def test_sigterm_in_the_middle_of_a_load_loses_nothing_that_was_accepted(
    receiver: ReceiverProcess, s3_client: Any, bucket: str
) -> None:
    bodies = [event(number) for number in range(600)]
    reached = threading.Event()
    watching = threading.Thread(target=_when_stored, args=(receiver, 100, reached))
    watching.start()

    def stop() -> None:
        assert reached.wait(60)
        receiver.terminate()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with receiver.sender(scale=0.0) as sender:
        deliveries = send_all(sender, bodies, 50)
    stopping.join()
    watching.join()
    receiver.process.wait(40)
    accepted = sorted(delivery.body for delivery in deliveries if delivery.accepted)
    stored = set(bodies_of(kept_in(s3_client, bucket)))
    assert 100 <= len(accepted) < 600
    assert set(accepted) <= stored


def test_keys_in_a_file_are_rotated_without_a_restart(s3_server: EmbeddedS3, bucket: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"APIold: {SECRET}\n")
    without = {"LIVEKIT_API_KEY": "", "LIVEKIT_API_SECRET": ""}
    arguments = ["--keys-file", str(file)]
    body = event(1)
    with ReceiverProcess(s3_server, bucket, tmp_path / "log", arguments, without) as receiver:

        def status(key: str) -> int:
            headers = {"Content-Type": CONTENT_TYPE, "Authorization": sign_webhook(body, key, SECRET)}
            return receiver.ask("POST", "/webhook", body, headers)[0]

        assert (status("APIold"), status("APInew")) == (200, 401)
        file.write_text(f"APInew: {SECRET}\n")
        until = time.monotonic() + 20
        while status("APInew") != 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert status("APIold") == 401


def raw(receiver: ReceiverProcess, request: bytes) -> bytes:
    """What is answered to bytes as they are."""
    with socket.create_connection(("127.0.0.1", receiver.port), 20) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


def test_hostile_requests_on_the_wire(receiver: ReceiverProcess, s3_client: Any, bucket: str) -> None:
    body = event(1)
    token = sign_webhook(body, API_KEY, SECRET)
    head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: {CONTENT_TYPE}\r\nAuthorization: {token}\r\n"

    def status(request: bytes) -> bytes:
        return raw(receiver, request).partition(b"\r\n")[0].split(b" ")[1]

    assert status(f"{head}Content-Length: 99999999\r\n\r\n".encode()) == b"413"
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    assert status(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 17) == b"413"
    both = f"{head}Content-Length: {len(body)}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"
    assert status(both.encode()) in (b"400", b"401")
    assert status(b"GET /webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == b"405"
    assert status(b"\x16\x03\x01 this is TLS\r\n\r\n") == b"400"
    assert not kept_in(s3_client, bucket)
    assert receiver.get("/health") == 200


def test_one_connection_serves_many_requests(receiver: ReceiverProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=20)
    with contextlib.closing(connection):
        for number in range(5):
            body = event(number)
            good = sign_webhook(body, API_KEY, SECRET)
            for token, expected in (("nonsense", 401), (good, 200)):
                connection.request("POST", "/webhook", body, {"Content-Type": CONTENT_TYPE, "Authorization": token})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == expected


def test_the_log_has_requests_without_queries_and_secrets(receiver: ReceiverProcess) -> None:
    body = event(1)
    token = sign_webhook(body, API_KEY, SECRET)
    headers = {"Content-Type": CONTENT_TYPE, "Authorization": token}
    assert receiver.ask("POST", "/webhook?secret=hunter2", body, headers)[0] == 200
    forged = sign_webhook(body, API_KEY, "some-other-secret-of-more-than-32-bytes")
    assert receiver.ask("POST", "/webhook", body, {**headers, "Authorization": forged})[0] == 401
    receiver.terminate()
    receiver.process.wait(40)
    log = receiver.log.read_text()
    assert '"POST /webhook HTTP/1.1" 200' in log
    assert "wrong_signature" in log
    assert not [secret for secret in ("hunter2", token, forged, SECRET) if secret in log]


def test_a_signature_of_a_year_ago_verifies_from_the_inbox_alone(
    any_s3: S3Endpoint, any_store: S3ObjectStore, any_client: Any
) -> None:
    """Stored then by the receiver's own filing, read back now as bytes of an object."""
    bucket = f"b-{hashlib.sha256(any_s3.endpoint_url.encode()).hexdigest()[:12]}"
    any_client.create_bucket(Bucket=bucket)
    year_ago = datetime(2025, 11, 23, 13, 59, 30, tzinfo=UTC)
    body = event(1, createdAt=str(int(year_ago.timestamp())))
    authorization = sign_webhook(body, API_KEY, SECRET, at=year_ago)
    token = read_token(authorization, KEYS, year_ago)
    settings = ReceiverSettings(inbox=f"s3://{bucket}/inbox")
    uri, stored = file_event(settings, read_event(body), token, authorization, year_ago)
    put = {"content_type": "application/json", "metadata": {}}
    blind = any_store.without_looking()
    assert blind.put_new(uri, stored.model_dump_json().encode(), **put)
    assert not blind.put_new(uri, b"{}", **put), "evidence is never replaced"

    kept = any_store.get(uri)
    assert kept is not None and "/2025/11/23/13/" in uri
    assert verify_stored(StoredWebhook.model_validate_json(kept), KEYS) == API_KEY
    for old, new in ((b"EG_000001", b"EG_000002"), (b"2025-11-23", b"2025-11-24"), (API_KEY.encode(), b"APIother")):
        assert old in kept
        with pytest.raises(WebhookRefusedError):
            verify_stored(StoredWebhook.model_validate_json(kept.replace(old, new)), KEYS)
