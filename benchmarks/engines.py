"""The ways to bring recordings from signed URLs into a bucket that the bench compares.

Each is a function that imports what it needs and returns what moves one job. Imports and connections that
an Airflow task has open before its work begins are therefore not counted; clients and TLS sessions are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Job:
    """One recording to move."""

    name: str
    size: int
    url: str
    destination: str
    """``s3://bucket/key``."""

    @property
    def place(self) -> tuple[str, str]:
        """Bucket and key."""
        bucket, _, key = self.destination.removeprefix("s3://").partition("/")
        return bucket, key


Move = Callable[[Job], None]


def livekit_backup() -> Move:
    """Ours: what ``download`` and ``verify_and_land`` do for one file, with every check on."""
    from our_engine import abilities_of_sink, open_engine

    return open_engine(abilities_of_sink())


def http_to_s3() -> Move:
    """Airflow's own operator, made anew for each file, as each is a task of its own."""
    return _http_to_s3({})


def http_to_s3_with_one_client() -> Move:
    """The same with one S3 client for all files, which no DAG can have: what its way of moving bytes alone costs."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    return _http_to_s3({"s3_hook": S3Hook("aws_default")})


def _http_to_s3(hooks: dict[str, object]) -> Move:
    from airflow.providers.amazon.aws.transfers.http_to_s3 import HttpToS3Operator

    def move(job: Job) -> None:
        url = urlsplit(job.url)
        bucket, key = job.place
        operator = HttpToS3Operator(task_id="move", endpoint=f"{url.path}?{url.query}", s3_bucket=bucket, s3_key=key)
        # Where a cached property keeps its value.
        vars(operator).update(hooks)
        operator.execute({})

    return move


def naive() -> Move:
    """httpx to a file, then boto3's upload_file: what most people would write."""
    import boto3
    import httpx

    s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"])

    def move(job: Job) -> None:
        with tempfile.NamedTemporaryFile() as file:
            with httpx.stream("GET", job.url) as response:
                response.raise_for_status()
                for chunk in response.iter_bytes():
                    file.write(chunk)
            file.flush()
            s3.upload_file(file.name, *job.place)

    return move


def rclone() -> Move:
    """``rclone copyurl`` with its defaults, a process a file."""
    options = [
        "--config=",
        f"--ca-cert={os.environ['SSL_CERT_FILE']}",
        "--disable-http2",
        "--s3-provider=AWS",
        "--s3-env-auth",
        f"--s3-endpoint={os.environ['AWS_ENDPOINT_URL_S3']}",
        f"--s3-region={os.environ['AWS_DEFAULT_REGION']}",
        "--s3-force-path-style",
        "--s3-no-check-bucket",
    ]

    def move(job: Job) -> None:
        target = ":s3:" + "/".join(job.place)
        subprocess.run([find_rclone(), "copyurl", job.url, target, *options], check=True, timeout=600)

    return move


def find_rclone() -> str | None:
    """Where rclone is: that of the wheel first, as its version is pinned."""
    return shutil.which("rclone", path=Path(sys.executable).parent) or shutil.which("rclone")


def read_and_discard() -> Move:
    """Half of the floor: the bytes are read and dropped."""
    return lambda job: _read(job, None)


def read_and_hash() -> Move:
    """The floor: the bytes are read and their SHA-256 is taken, in one thread."""
    return lambda job: _read(job, hashlib.sha256())


def _read(job: Job, digest: hashlib._Hash | None) -> None:
    from tls_stream import TlsStream

    url = urlsplit(job.url)
    with socket.create_connection((url.hostname, url.port), 10) as connection:
        stream = TlsStream(connection, ssl.create_default_context(), server_hostname=url.hostname)
        stream.send(f"GET {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
        head = stream.read_head() or [""]
        assert " 200 " in head[0], head
        stream.drain(job.size, digest.update if digest else None)


ENGINES: dict[str, Callable[[], Move]] = {
    "livekit_backup": livekit_backup,
    "HttpToS3Operator": http_to_s3,
    "HttpToS3Operator, one client": http_to_s3_with_one_client,
    "httpx + upload_file": naive,
    "rclone copyurl": rclone,
    "read and discard": read_and_discard,
    "read and SHA-256": read_and_hash,
}
"""By the name under which each stands in the tables."""


def installed_engines() -> list[str]:
    """The names of those that can run here."""
    return [name for name in ENGINES if find_rclone() or not name.startswith("rclone")]
