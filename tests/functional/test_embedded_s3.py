"""The embedded S3 server keeps the promises that the demo and the other tests build on."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from livekit_backup.testing import embedded_s3
from livekit_backup.testing.embedded_s3 import EmbeddedS3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

VENV = Path(__file__).resolve().parents[2] / ".embedded-s3" / "venv"
PART = os.urandom(5 * 1024 * 1024)  # the smallest part that S3 lets another one follow
TAIL = b"the last part may be short"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """Share one server among all tests that do not stop it."""
    with EmbeddedS3(tmp_path_factory.mktemp("s3"), venv_dir=VENV) as server:
        yield server


@pytest.fixture(scope="session")
def client(s3: EmbeddedS3) -> Any:
    """Share a client that sends each request once."""
    return connect(s3)


@pytest.fixture
def bucket(client: Any) -> str:
    """Create a bucket of the test's own."""
    name = f"test-{uuid.uuid4()}"
    client.create_bucket(Bucket=name)
    return name


def connect(server: EmbeddedS3, secret: str | None = None) -> Any:
    """Build a client of *server*."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=secret or server.secret_key,
        region_name=server.region,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
        ),
    )


def refusal(call: Callable[..., object], **arguments: object) -> tuple[str, int]:
    """Return the error code and status that *call* is answered with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def upload(client: Any, bucket: str, key: str, parts: Sequence[bytes], **create: object) -> dict[str, Any]:
    """Open an upload, send *parts*, and return what completes it."""
    upload_id = client.create_multipart_upload(Bucket=bucket, Key=key, **create)["UploadId"]
    target = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
    sent = [
        {"PartNumber": n, "ETag": client.upload_part(**target, PartNumber=n, Body=body)["ETag"]}
        for n, body in enumerate(parts, 1)
    ]
    return {**target, "MultipartUpload": {"Parts": sent}}


def target_of(opened: Mapping[str, Any]) -> dict[str, Any]:
    """Return bucket, key and upload id of an open upload."""
    return {name: opened[name] for name in ("Bucket", "Key", "UploadId")}


def quoted_md5(body: bytes) -> str:
    """Return the ETag of a body sent in one go."""
    return f'"{hashlib.md5(body).hexdigest()}"'


def multipart_etag(parts: Sequence[bytes]) -> str:
    """Return the ETag of an object made of *parts*."""
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(parts)}"'


def content_md5(body: bytes) -> str:
    """Return the value of the Content-MD5 header of *body*."""
    return base64.b64encode(hashlib.md5(body).digest()).decode()


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    """GET *url* and return status and body, whatever the status."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): v for name, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def processes_naming(directory: Path) -> set[int]:
    """Return the live processes with *directory* in their arguments."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(directory).encode() in entry.read_bytes():
                found.add(int(entry.parent.name))
    return found - {os.getpid()}


class TestMultipart:
    """What the landing of a recording relies on."""

    def test_completed_object_has_size_etag_and_the_metadata_given_at_create(self, client: Any, bucket: str) -> None:
        metadata = {"source": "livekit", "long": "x" * 1500}
        opened = upload(client, bucket, "a/b c+ü.mp4", [PART, TAIL], Metadata=metadata)
        etag = multipart_etag([PART, TAIL])
        assert client.complete_multipart_upload(**opened)["ETag"] == etag
        head = client.head_object(Bucket=bucket, Key="a/b c+ü.mp4")
        assert (head["ETag"], head["ContentLength"]) == (etag, len(PART + TAIL))
        assert head["Metadata"] == metadata
        listed = client.list_objects_v2(Bucket=bucket)["Contents"]
        assert [(o["Key"], o["ETag"], o["Size"]) for o in listed] == [("a/b c+ü.mp4", etag, len(PART + TAIL))]

    def test_completes_with_a_single_empty_part(self, client: Any, bucket: str) -> None:
        client.complete_multipart_upload(**upload(client, bucket, "empty", [b""]))
        head = client.head_object(Bucket=bucket, Key="empty")
        assert (head["ETag"], head["ContentLength"]) == (multipart_etag([b""]), 0)
        assert client.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""

    def test_refuses_a_short_part_before_the_last(self, client: Any, bucket: str) -> None:
        opened = upload(client, bucket, "short", [TAIL, TAIL])
        assert refusal(client.complete_multipart_upload, **opened) == ("EntityTooSmall", 400)

    def test_allows_ten_thousand_parts(self, client: Any, bucket: str) -> None:
        last = target_of(upload(client, bucket, "many", []))
        assert client.upload_part(**last, PartNumber=10_000, Body=b"x")["ETag"] == quoted_md5(b"x")
        assert refusal(client.upload_part, **last, PartNumber=10_001, Body=b"x") == ("InvalidArgument", 400)

    def test_lists_open_uploads_by_prefix_and_parts_with_etag_and_size(self, client: Any, bucket: str) -> None:
        one = upload(client, bucket, "one/a", [PART, TAIL])
        upload(client, bucket, "two/a", [])
        found = client.list_multipart_uploads(Bucket=bucket, Prefix="one/")["Uploads"]
        assert [(u["Key"], u["UploadId"]) for u in found] == [("one/a", one["UploadId"])]
        assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket, Prefix="three/")
        parts = client.list_parts(**target_of(one))["Parts"]
        assert [(p["PartNumber"], p["ETag"], p["Size"]) for p in parts] == [
            (1, quoted_md5(PART), len(PART)),
            (2, quoted_md5(TAIL), len(TAIL)),
        ]

    def test_checks_the_md5_of_a_part(self, client: Any, bucket: str) -> None:
        target = target_of(upload(client, bucket, "md5", []))
        wrong = refusal(client.upload_part, **target, PartNumber=1, Body=b"x", ContentMD5=content_md5(b"y"))
        assert wrong == ("BadDigest", 400)
        client.upload_part(**target, PartNumber=1, Body=b"x", ContentMD5=content_md5(b"x"))

    def test_completing_again_answers_the_same(self, client: Any, bucket: str) -> None:
        opened = upload(client, bucket, "twice", [TAIL])
        first = client.complete_multipart_upload(**opened, IfNoneMatch="*")
        assert client.complete_multipart_upload(**opened, IfNoneMatch="*")["ETag"] == first["ETag"]

    def test_an_aborted_upload_is_gone(self, client: Any, bucket: str) -> None:
        target = target_of(upload(client, bucket, "gone", [TAIL]))
        client.abort_multipart_upload(**target)
        assert refusal(client.upload_part, **target, PartNumber=1, Body=b"x") == ("NoSuchUpload", 404)
        assert refusal(client.abort_multipart_upload, **target) == ("NoSuchUpload", 404)


class TestConditions:
    """Nothing that landed is overwritten by one who asks not to."""

    def test_put_does_not_replace_an_existing_object(self, client: Any, bucket: str) -> None:
        client.put_object(Bucket=bucket, Key="k", Body=b"first", IfNoneMatch="*")
        wrong = refusal(client.put_object, Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*")
        assert wrong == ("PreconditionFailed", 412)
        assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"first"

    def test_complete_does_not_replace_and_leaves_the_upload_open(self, client: Any, bucket: str) -> None:
        client.put_object(Bucket=bucket, Key="k", Body=b"first")
        opened = upload(client, bucket, "k", [TAIL])
        wrong = refusal(client.complete_multipart_upload, **opened, IfNoneMatch="*")
        assert wrong == ("PreconditionFailed", 412)
        assert len(client.list_parts(**target_of(opened))["Parts"]) == 1
        assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"first"

    def test_pages_of_a_listing_follow_each_other(self, client: Any, bucket: str) -> None:
        keys = [f"page/{n}" for n in range(5)]
        for key in keys:
            client.put_object(Bucket=bucket, Key=key, Body=b"")
        seen: list[str] = []
        token: dict[str, str] = {}
        for size in (2, 2, 1):
            page = client.list_objects_v2(Bucket=bucket, Prefix="page/", MaxKeys=2, **token)
            assert len(page["Contents"]) == size
            seen += [found["Key"] for found in page["Contents"]]
            token = {"ContinuationToken": page.get("NextContinuationToken", "")}
        assert (seen, page["IsTruncated"]) == (keys, False)


class TestSignatures:
    """Links expire and secrets matter, as with a real store."""

    def test_refuses_a_wrong_secret(self, s3: EmbeddedS3, bucket: str) -> None:
        stranger = connect(s3, secret="wrong")
        assert refusal(stranger.list_objects_v2, Bucket=bucket) == ("SignatureDoesNotMatch", 403)

    def test_honours_a_presigned_get_with_range_and_condition(self, client: Any, bucket: str) -> None:
        client.complete_multipart_upload(**upload(client, bucket, "k", [PART, TAIL]))
        url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
        assert fetch(url) == (200, PART + TAIL)
        across = f"bytes={len(PART) - 2}-{len(PART) + 1}"
        assert fetch(url, Range=across, If_Match=multipart_etag([PART, TAIL])) == (206, PART[-2:] + TAIL[:2])
        assert fetch(url, Range=across, If_Match='"other"')[0] == 412

    def test_refuses_an_altered_and_an_expired_url(self, client: Any, bucket: str) -> None:
        client.put_object(Bucket=bucket, Key="k", Body=b"x")
        url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=1)
        assert fetch(url.replace("/k?", "/l?"))[0] == 403
        # The signature counts whole seconds, so that one second can last almost two.
        time.sleep(2.1)
        assert fetch(url)[0] == 403


class TestLife:
    """Starting, stopping, and being killed."""

    def test_survives_being_killed_with_an_upload_open(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "swift.py").write_text("raise SystemExit('the wrong swift')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "nowhere"))
        with EmbeddedS3(tmp_path / "my data", venv_dir=VENV) as server:
            client, endpoint = connect(server), server.endpoint_url
            client.create_bucket(Bucket="kept")
            opened = upload(client, "kept", "open", [PART, TAIL], Metadata={"run": "1"})
            client.put_object(Bucket="kept", Key="done", Body=b"x", Metadata={"run": "2"})
            server.kill()
            assert not server.is_running()
            server.start()
            server.start()
            assert server.endpoint_url == endpoint
            client.complete_multipart_upload(**opened)
            assert client.head_object(Bucket="kept", Key="open")["Metadata"] == {"run": "1"}
            assert client.head_object(Bucket="kept", Key="done")["Metadata"] == {"run": "2"}
            listed = client.list_objects_v2(Bucket="kept")["Contents"]
            assert [found["Key"] for found in listed] == ["done", "open"]

    def test_takes_over_from_an_owner_that_was_killed(self, tmp_path: Path) -> None:
        script = (
            "import os, sys; from pathlib import Path; from livekit_backup.testing.embedded_s3 import *\n"
            "EmbeddedS3(Path(sys.argv[1]), venv_dir=Path(sys.argv[2])).start(); os.kill(os.getpid(), 9)"
        )
        owner = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(VENV)], check=False)
        assert owner.returncode == -signal.SIGKILL
        left = processes_naming(tmp_path)
        assert len(left) == 4
        port = json.loads((tmp_path / "ports.json").read_text())["proxy"]
        with EmbeddedS3(tmp_path, venv_dir=VENV) as server:
            assert server.endpoint_url == f"http://127.0.0.1:{port}"
            now = processes_naming(tmp_path)
            assert len(now) == 4
            assert not now & left
        assert not processes_naming(tmp_path)

    def test_a_second_live_owner_is_refused_and_the_first_goes_on(self, s3: EmbeddedS3, client: Any) -> None:
        second = EmbeddedS3(s3.data_dir, venv_dir=VENV)
        with pytest.raises(RuntimeError, match="in use"):
            second.start()
        second.stop()
        assert s3.is_running()
        client.list_buckets()

    def test_a_reused_process_id_is_left_alone_and_a_broken_server_shows_its_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "run").mkdir()
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
            (tmp_path / "run" / "proxy.pid").write_text(str(stranger.pid))
            monkeypatch.setattr(embedded_s3, "PROXY_PIPELINE", "no_such_filter")
            with pytest.raises(RuntimeError, match=r"(?s)ended while starting.*no_such_filter"):
                EmbeddedS3(tmp_path, venv_dir=VENV).start()
            assert stranger.poll() is None
            stranger.kill()
        assert not processes_naming(tmp_path)

    def test_a_taken_port_is_an_error(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(RuntimeError, match=f"port {port} is taken"):
                EmbeddedS3(tmp_path, venv_dir=VENV, port=port).start()

    def test_a_directory_that_is_not_ours_is_not_cleared(self, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "thesis").touch()
        with pytest.raises(RuntimeError, match="left alone"):
            EmbeddedS3(tmp_path / "data", venv_dir=tmp_path / "home").start()
        assert (tmp_path / "home" / "thesis").exists()

    def test_serves_people_until_told_to_stop(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "livekit_backup.testing.embedded_s3", "serve"]
        command += ["--data-dir", str(tmp_path), "--venv-dir", str(VENV)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
            assert served.stdout is not None
            shown = "".join(served.stdout.readline() for _ in range(4))
            assert "http://127.0.0.1:" in shown
            assert EmbeddedS3.secret_key in shown
            served.terminate()
            assert served.wait(20) == 0
        assert not processes_naming(tmp_path)


def test_several_processes_use_it_at_once(s3: EmbeddedS3, client: Any, bucket: str) -> None:
    script = (
        "import json, os, sys, boto3; from botocore.config import Config\n"
        "o = json.loads(sys.argv[1]); x = o['extra']\n"
        "c = boto3.client('s3', endpoint_url=x['endpoint_url'], region_name=x['region_name'],\n"
        "  aws_access_key_id=o['login'], aws_secret_access_key=o['password'],\n"
        "  config=Config(**x['config_kwargs']))\n"
        "for n in range(10):\n"
        "  key, body = f'{sys.argv[3]}/{n}', os.urandom(100_000)\n"
        "  c.put_object(Bucket=sys.argv[2], Key=key, Body=body)\n"
        "  assert c.get_object(Bucket=sys.argv[2], Key=key)['Body'].read() == body"
    )
    arguments = [sys.executable, "-c", script, s3.airflow_connection(), bucket]
    running = [subprocess.Popen([*arguments, str(n)]) for n in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 40


def test_airflow_connection_carries_what_the_hook_needs(s3: EmbeddedS3) -> None:
    connection = json.loads(s3.airflow_connection())
    assert (connection["conn_type"], connection["login"], connection["password"]) == (
        "aws",
        s3.access_key,
        s3.secret_key,
    )
    assert connection["extra"] == {
        "endpoint_url": s3.endpoint_url,
        "region_name": "us-east-1",
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
