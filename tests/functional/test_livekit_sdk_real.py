"""LiveKit's own packages as the oracle: what they sign we accept, what we sign they accept, what they write we read."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson, Parse
from livekit import api
from livekit.protocol.egress import EgressInfo, EgressStatus
from livekit.protocol.webhook import WebhookEvent

from livekit_backup.core.webhook_tokens import verify, verify_stored
from livekit_backup.errors import WebhookRefusedError
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.webhook_sender import CONTENT_TYPE, sign_webhook

from ..conftest import ROOT
from .receiver_process import API_KEY, SECRET, ReceiverProcess, event, kept_in

SDK = "livekit-server-sdk"
SDK_VERSION = "2.19.2"
OTHER = "some-other-secret-of-more-than-32-bytes"
KEYS = {API_KEY: SECRET}
SCRIPT = """
import { AccessToken, WebhookReceiver } from "livekit-server-sdk";
import { createHash } from "node:crypto";
const { does, key, secret, body, token } = JSON.parse(process.argv[2]);
if (does === "sign") {
  const made = new AccessToken(key, secret, { ttl: "5m" });
  made.sha256 = createHash("sha256").update(body).digest("base64");
  console.log(JSON.stringify(await made.toJwt()));
} else {
  try {
    const event = await new WebhookReceiver(key, secret).receive(body, token);
    console.log(JSON.stringify(event.toJson()));
  } catch (error) {
    console.log(JSON.stringify({ refused: String(error.message) }));
  }
}
"""


def event_message() -> WebhookEvent:
    """An event as LiveKit's own protobuf has it."""
    info = EgressInfo(
        egress_id="EG_real",
        room_name="Café ☕",
        status=EgressStatus.EGRESS_COMPLETE,
        started_at=1732135319356232371,
        backup_storage_used=True,
        manifest_location="https://example.com/manifest.json?X-Amz-Signature=00ff",
    )
    return WebhookEvent(event="egress_ended", id="EV_real", created_at=int(time.time()), egress_info=info)


def signed_by_livekit_api(body: str, key: str = API_KEY, secret: str = SECRET) -> str:
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    return api.AccessToken(key, secret).with_sha256(digest).with_ttl(timedelta(minutes=5)).to_jwt()


@pytest.fixture(scope="module")
def node() -> Any:
    """Runs a function of the real livekit-server-sdk; its package is installed once, into a folder of the checkout."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("node and npm are not installed")
    home = ROOT / ".cache" / f"{SDK}-{SDK_VERSION}"
    if not home.is_dir():
        home.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=home.parent))
        (fresh / "package.json").write_text('{"private": true}')
        (fresh / "main.mjs").write_text(SCRIPT)
        install = [npm, "install", "--no-package-lock", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(
            [*install, f"{SDK}@{SDK_VERSION}"], cwd=fresh, capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            shutil.rmtree(fresh)
            pytest.skip(f"{SDK} cannot be installed here")
        fresh.rename(home)
    (home / "main.mjs").write_text(SCRIPT)

    def run(does: str, body: str, key: str = API_KEY, secret: str = SECRET, token: str = "") -> Any:
        asked = json.dumps({"does": does, "key": key, "secret": secret, "body": body, "token": token})
        done = subprocess.run([node, "main.mjs", asked], cwd=home, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def inbox(s3_client: Any) -> str:
    s3_client.create_bucket(Bucket="signed-by-others")
    return "signed-by-others"


@pytest.fixture(scope="module")
def receiver(s3_server: EmbeddedS3, inbox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    with ReceiverProcess(s3_server, inbox, tmp_path_factory.mktemp("receiver") / "log") as process:
        yield process


def deliver(receiver: ReceiverProcess, body: str, token: str) -> int:
    headers = {"Content-Type": CONTENT_TYPE, "User-Agent": "LiveKit", "Authorization": token}
    return receiver.ask("POST", "/webhook", body.encode(), headers)[0]


def assert_kept(s3_client: Any, inbox: str, body: str) -> None:
    """It is there byte for byte, in the present hour, and its signature holds from the object alone."""
    (stored,) = [each for each in kept_in(s3_client, inbox) if each.body == body]
    assert verify_stored(stored, KEYS) == API_KEY
    name = hashlib.sha256(body.encode()).hexdigest()
    listed = s3_client.list_objects_v2(Bucket=inbox, Prefix="inbox/")["Contents"]
    (key,) = [item["Key"] for item in listed if name in item["Key"]]
    made = datetime.fromtimestamp(int(json.loads(body)["createdAt"]), UTC)
    assert key.startswith(f"inbox/{made:%Y/%m/%d/%H}/EG_real-egress_ended-")
    assert Parse(stored.body, WebhookEvent()).egress_info.backup_storage_used


def test_what_livekit_api_signs_is_accepted_and_stored(receiver: ReceiverProcess, s3_client: Any, inbox: str) -> None:
    body = MessageToJson(event_message())
    assert deliver(receiver, body, signed_by_livekit_api(body)) == 200
    assert_kept(s3_client, inbox, body)


def test_what_livekit_api_signs_for_another_is_refused(receiver: ReceiverProcess) -> None:
    body = MessageToJson(event_message())
    assert deliver(receiver, body, signed_by_livekit_api(body, secret=OTHER)) == 401
    assert deliver(receiver, body, signed_by_livekit_api(body, key="APIother")) == 401
    assert deliver(receiver, body + " ", signed_by_livekit_api(body)) == 401
    assert deliver(receiver, body, api.AccessToken(API_KEY, SECRET).to_jwt()) == 401, "a token for a room"


def test_what_we_sign_livekit_api_accepts() -> None:
    body = event(1).decode()
    theirs = api.WebhookReceiver(api.TokenVerifier(API_KEY, SECRET))
    read = theirs.receive(body, sign_webhook(body.encode(), API_KEY, SECRET))
    assert (read.event, read.egress_info.egress_id) == ("egress_ended", "EG_000001")
    assert read.egress_info.backup_storage_used
    with pytest.raises(Exception, match="hash mismatch"):
        theirs.receive(body + " ", sign_webhook(body.encode(), API_KEY, SECRET))


def test_what_livekit_server_sdk_signs_is_accepted_and_stored(
    node: Any, receiver: ReceiverProcess, s3_client: Any, inbox: str
) -> None:
    body = MessageToJson(event_message(), indent=None)
    assert deliver(receiver, body, node("sign", body)) == 200
    assert_kept(s3_client, inbox, body)


def test_what_livekit_server_sdk_signs_for_another_is_refused(node: Any) -> None:
    body = event(1).decode()
    with pytest.raises(WebhookRefusedError):
        verify(node("sign", body, secret=OTHER), body.encode(), KEYS, datetime.now(UTC))


def test_what_we_sign_livekit_server_sdk_accepts(node: Any) -> None:
    body = MessageToJson(event_message(), indent=None)
    token = sign_webhook(body.encode(), API_KEY, SECRET)
    read = node("receive", body, token=token)
    assert read["egressInfo"]["egressId"] == "EG_real" and read["egressInfo"]["backupStorageUsed"] is True
    assert "checksum" in node("receive", body + " ", token=token)["refused"]
