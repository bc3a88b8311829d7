"""The strict S3 server refuses what the other one lets pass, and stays within its own directory."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from awscrt import checksums
from botocore.config import Config
from botocore.exceptions import ClientError

from livekit_backup.testing import embedded_localstack
from livekit_backup.testing.embedded_localstack import EmbeddedLocalStack
from livekit_backup.testing.embedded_s3_install import find_python
from livekit_backup.testing.s3_endpoint import S3Endpoint

PARTS = (os.urandom(5 * 1024 * 1024), b"the last part may be short")
WHOLE = b"".join(PARTS)
FULL_OBJECT = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"}


def crc64nvme(body: bytes) -> str:
    return base64.b64encode(checksums.crc64nvme(body).to_bytes(8, "big")).decode()


def connect(server: S3Endpoint) -> Any:
    """A client that sends each request once, and no checksum that a test has not asked for."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
        ),
    )


def new_bucket(client: Any) -> str:
    name = f"test-{uuid.uuid4()}"
    client.create_bucket(Bucket=name)
    return name


def refusal(call: Callable[..., object], **arguments: object) -> tuple[str, int]:
    """The error code and status that *call* is answered with."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture(scope="module")
def client(strict_s3: EmbeddedLocalStack) -> Any:
    return connect(strict_s3)


@pytest.fixture
def bucket(client: Any) -> str:
    return new_bucket(client)


@dataclass
class Upload:
    """An open upload with its parts sent."""

    client: Any
    target: dict[str, str]
    parts: dict[str, Any]

    def complete(self, **changes: object) -> Any:
        """Complete it as it should be, but for *changes*."""
        right = {
            "ChecksumCRC64NVME": crc64nvme(WHOLE),
            "ChecksumType": "FULL_OBJECT",
            "MpuObjectSize": len(WHOLE),
            "IfNoneMatch": "*",
        }
        return self.client.complete_multipart_upload(**self.target, MultipartUpload=self.parts, **right | changes)


def start_upload(client: Any, bucket: str, key: str = "k", **create: object) -> dict[str, str]:
    upload_id = client.create_multipart_upload(Bucket=bucket, Key=key, **create)["UploadId"]
    return {"Bucket": bucket, "Key": key, "UploadId": upload_id}


def send_all(client: Any, bucket: str, key: str = "k") -> Upload:
    target = start_upload(client, bucket, key, **FULL_OBJECT)
    sent = []
    for number, body in enumerate(PARTS, 1):
        declared = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumCRC64NVME": crc64nvme(body)}
        answer = client.upload_part(**target, PartNumber=number, Body=body, **declared)
        sent.append({"PartNumber": number, "ETag": answer["ETag"]})
    return Upload(client, target, {"Parts": sent})


class TestChecksums:
    """Why there is a second server."""

    def test_refuses_a_wrong_checksum_or_size_of_the_whole_and_leaves_the_upload_open(
        self, client: Any, bucket: str
    ) -> None:
        upload = send_all(client, bucket)
        assert refusal(upload.complete, ChecksumCRC64NVME=crc64nvme(b"other")) == ("BadDigest", 400)
        assert refusal(upload.complete, MpuObjectSize=len(WHOLE) + 1) == ("InvalidRequest", 400)
        assert refusal(client.head_object, Bucket=bucket, Key="k") == ("404", 404)
        answer = upload.complete()
        assert answer["ChecksumCRC64NVME"] == crc64nvme(WHOLE)
        digests = b"".join(hashlib.md5(part).digest() for part in PARTS)
        assert answer["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"'

    def test_refuses_a_wrong_checksum_of_a_part(self, client: Any, bucket: str) -> None:
        target = start_upload(client, bucket, **FULL_OBJECT)
        wrong = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumCRC64NVME": crc64nvme(b"other")}
        assert refusal(client.upload_part, **target, PartNumber=1, Body=b"x", **wrong) == ("BadDigest", 400)
        # An upload that was declared with checksums takes no part without one.
        assert refusal(client.upload_part, **target, PartNumber=1, Body=b"x") == ("InvalidRequest", 400)
        assert "Parts" not in client.list_parts(**target)

    def test_refuses_a_wrong_md5_of_a_part(self, client: Any, bucket: str) -> None:
        target = start_upload(client, bucket)
        wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
        assert refusal(client.upload_part, **target, PartNumber=1, Body=b"x", ContentMD5=wrong) == ("BadDigest", 400)

    def test_lists_parts_and_heads_objects_with_their_checksums(self, client: Any, bucket: str) -> None:
        upload = send_all(client, bucket)
        parts = client.list_parts(**upload.target)["Parts"]
        assert [part["ChecksumCRC64NVME"] for part in parts] == [crc64nvme(part) for part in PARTS]
        upload.complete()
        head = client.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == (crc64nvme(WHOLE), "FULL_OBJECT")
        assert "ChecksumCRC64NVME" not in client.head_object(Bucket=bucket, Key="k")

    def test_copies_parts_with_their_checksums(self, client: Any, bucket: str) -> None:
        send_all(client, bucket, "source").complete()
        etag = client.head_object(Bucket=bucket, Key="source")["ETag"]
        source = {"CopySource": {"Bucket": bucket, "Key": "source"}, "CopySourceRange": "bytes=10-5242889"}
        elsewhere = new_bucket(client)
        target = start_upload(client, elsewhere, **FULL_OBJECT)
        copied = client.upload_part_copy(**target, PartNumber=1, **source, CopySourceIfMatch=etag)["CopyPartResult"]
        assert copied["ETag"] == f'"{hashlib.md5(WHOLE[10:5242890]).hexdigest()}"'
        assert copied["ChecksumCRC64NVME"] == crc64nvme(WHOLE[10:5242890])
        wrong = {"CopySourceIfMatch": f'"{hashlib.md5(b"other").hexdigest()}"'}
        assert refusal(client.upload_part_copy, **target, PartNumber=2, **source, **wrong) == (
            "PreconditionFailed",
            412,
        )


class TestOtherAbilities:
    """What else the other server has not, and what both must have."""

    def test_keeps_tags(self, client: Any, bucket: str) -> None:
        client.put_object(Bucket=bucket, Key="k", Body=b"x")
        tags = [{"Key": "source", "Value": "livekit"}]
        client.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
        assert client.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags

    def test_refuses_altered_and_expired_urls(self, client: Any, bucket: str) -> None:
        client.put_object(Bucket=bucket, Key="k", Body=b"x")
        url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=2)
        assert status_of(url) == 200
        assert status_of(url.replace("/k?", "/l?")) == 403
        time.sleep(3.1)
        assert status_of(url) == 403

    def test_both_servers_land_once_and_never_overwrite(self, any_s3: S3Endpoint) -> None:
        client = connect(any_s3)
        bucket = new_bucket(client)
        first, second = send_all(client, bucket), send_all(client, bucket)
        first.complete()
        assert refusal(second.complete) == ("PreconditionFailed", 412)
        assert len(client.list_parts(**second.target)["Parts"]) == 2
        assert refusal(client.put_object, Bucket=bucket, Key="k", Body=b"x", IfNoneMatch="*") == (
            "PreconditionFailed",
            412,
        )

    def test_both_servers_read_a_range_on_a_condition(self, any_s3: S3Endpoint) -> None:
        client = connect(any_s3)
        bucket = new_bucket(client)
        etag = send_all(client, bucket).complete()["ETag"]
        part = {"Bucket": bucket, "Key": "k", "Range": "bytes=5242870-5242889"}
        assert client.get_object(**part, IfMatch=etag)["Body"].read() == WHOLE[5242870:5242890]
        assert refusal(client.get_object, **part, IfMatch='"other"') == ("PreconditionFailed", 412)


class TestLife:
    """Starting, stopping, and leaving no traces."""

    def test_listens_on_one_address_and_writes_into_its_directory(
        self, strict_s3: EmbeddedLocalStack, bucket: str
    ) -> None:
        port = int(strict_s3.endpoint_url.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), timeout=5):
            pass
        assert [found.name for found in strict_s3.data_dir.glob(f"scratch/tmp/objects/{bucket}")] == [bucket]

    def test_starts_again_empty_on_the_same_port_after_being_killed(
        self, strict_s3: EmbeddedLocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in (("SERVICES", "none"), ("DEBUG", "1"), ("PYTHONPATH", str(tmp_path))):
            monkeypatch.setenv(name, value)
        with EmbeddedLocalStack(tmp_path / "my data $x", venv_dir=strict_s3.venv_dir) as server:
            endpoint = server.endpoint_url
            new_bucket(connect(server))
            server.kill()
            assert not server.is_running()
            server.start()
            server.start()
            assert server.endpoint_url == endpoint
            assert connect(server).list_buckets()["Buckets"] == []
            second = EmbeddedLocalStack(server.data_dir, venv_dir=strict_s3.venv_dir)
            with pytest.raises(RuntimeError, match="in use"):
                second.start()
            second.stop()
            assert server.is_running()
        assert not server.is_running()
        assert {found.name for found in server.data_dir.iterdir()} == {"localstack.log", "owner.lock"}

    def test_dies_with_an_owner_that_was_killed(self, strict_s3: EmbeddedLocalStack, tmp_path: Path) -> None:
        script = (
            "import os, sys; from pathlib import Path\n"
            "from livekit_backup.testing.embedded_localstack import EmbeddedLocalStack\n"
            "server = EmbeddedLocalStack(Path(sys.argv[1]), venv_dir=Path(sys.argv[2])); server.start()\n"
            "print(server._child.pid, flush=True); os.kill(os.getpid(), 9)"
        )
        arguments = [sys.executable, "-c", script, str(tmp_path), str(strict_s3.venv_dir)]
        owner = subprocess.run(arguments, check=False, stdout=subprocess.PIPE, text=True)
        assert owner.returncode == -signal.SIGKILL
        left = Path("/proc", owner.stdout.strip(), "cmdline")
        deadline = time.monotonic() + 10
        while left.exists() and left.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left.exists() or not left.read_bytes()

    def test_a_taken_port_is_an_error(self, strict_s3: EmbeddedLocalStack, tmp_path: Path) -> None:
        port = int(strict_s3.endpoint_url.rpartition(":")[2])
        with pytest.raises(RuntimeError, match=f"port {port} is taken"):
            EmbeddedLocalStack(tmp_path, venv_dir=strict_s3.venv_dir, port=port).start()

    def test_a_server_that_ends_shows_its_log(
        self, strict_s3: EmbeddedLocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(embedded_localstack, "_RUN_SERVER", "raise SystemExit('no such luck')")
        with pytest.raises(RuntimeError, match=r"(?s)ended while starting.*no such luck"):
            EmbeddedLocalStack(tmp_path, venv_dir=strict_s3.venv_dir).start()


class TestPython:
    """It needs a Python of its own, which may be missing, or only seem to be there."""

    def test_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert find_python("3.99") is None
        monkeypatch.setattr(embedded_localstack, "find_python", lambda version: None)
        with pytest.raises(RuntimeError, match=r"needs Python 3\.13"):
            EmbeddedLocalStack(tmp_path).start()

    def test_passes_over_what_does_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = {"refusing": "exit 127", "lying": "echo 2.7 /usr/bin/python2", "right": "echo 3.99 /opt/python"}
        for name, answer in answers.items():
            program = tmp_path / name / "python3.99"
            program.parent.mkdir()
            program.write_text(f"#!/bin/sh\n{answer}\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in answers))
        assert find_python("3.99") == Path("/opt/python")
