"""What a killed task fetches again: SIGKILL when the source has sent 10, 50 and 90 %, then the same task once more.

Against a real store, since the parts must survive. Counted at the source: all bytes that it sent, also those
that were still on their way when the process died, less the recording's size.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines import Job
from livekit_backup.testing.backup_server import BackupServer
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from synthetic_recordings import recording_content, recording_name
from table import Table
from tls_source import inventing_source, signed_url

MIB = 1024 * 1024
SIZE = 1024 * MIB
KILLED_AT = (0.1, 0.5, 0.9)
GOAL_MIB = 80
"""All buffers of a transfer hold 64 MiB; the rest is in the sockets' buffers."""
RUN_SECONDS = 300.0
ROOT = Path(__file__).resolve().parent.parent


def measure() -> Table:
    rows, reached = [], True
    # A number each: another recording, and so another landing.
    names = [recording_name(SIZE, number) for number in range(len(KILLED_AT))]
    with (
        tempfile.TemporaryDirectory(prefix="livekit-backup-bench-") as folder,
        EmbeddedS3(Path(folder) / "s3", venv_dir=ROOT / ".embedded-s3" / "venv") as s3,
        inventing_source(None, names) as source,
    ):
        for bucket in ("warehouse", "ledger"):
            s3.client().create_bucket(Bucket=bucket)
        (Path(folder) / "airflow").mkdir()
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(Path(folder) / "airflow"),
            "AIRFLOW_CONN_AWS_DEFAULT": s3.airflow_connection(),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        for name, fraction in zip(names, KILLED_AT, strict=True):
            job = Job(name, SIZE, signed_url(source.base_url, name), f"s3://warehouse/{name}")
            sent = _kill_at(int(fraction * SIZE), job, source, environment)
            with _process(job, environment) as process:
                assert process.wait(RUN_SECONDS) == 0, f"the second run of {name} failed"
            again = sum(request.bytes_sent for request in source.requests) - SIZE
            source.requests.clear()
            right = _landed_sha256(s3.client(), name) == _sha256(name)
            reached = reached and right and again <= GOAL_MIB * MIB
            rows.append(
                [
                    f"{100 * fraction:.0f} %",
                    f"{sent / MIB:.0f}",
                    f"{again / MIB:.0f}",
                    f"{100 * again / SIZE:.1f} %",
                    "yes" if right else "**no**",
                ]
            )
    return Table(
        "Bytes fetched again after SIGKILL, recording of 1 GiB",
        f"at most {GOAL_MIB} MiB wherever it was killed",
        reached,
        ["killed at", "MiB sent by then", "MiB fetched again", "of the recording", "landed right"],
        rows,
    )


def _kill_at(count: int, job: Job, source: BackupServer, environment: dict[str, str]) -> int:
    """Run until the source has sent so many bytes, kill, and return how many it had sent when all was still."""
    with _process(job, environment) as process:
        deadline = time.monotonic() + RUN_SECONDS
        while sum(request.bytes_sent for request in source.requests) < count:
            assert process.poll() is None, f"{job.name} ended before it was to be killed"
            assert time.monotonic() < deadline, f"{job.name} is too slow to be killed"
            time.sleep(0.002)
        process.kill()
        process.wait()
    while source.connections and time.monotonic() < deadline:
        time.sleep(0.01)
    return sum(request.bytes_sent for request in source.requests)


@contextlib.contextmanager
def _process(job: Job, environment: dict[str, str]) -> Any:
    script = str(Path(__file__).with_name("resume_process.py"))
    process = subprocess.Popen([sys.executable, script, json.dumps(asdict(job))], env=environment, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _landed_sha256(client: Any, name: str) -> str:
    digest = hashlib.sha256()
    for chunk in client.get_object(Bucket="warehouse", Key=name)["Body"].iter_chunks(MIB):
        digest.update(chunk)
    return digest.hexdigest()


def _sha256(name: str) -> str:
    digest = hashlib.sha256()
    for piece in recording_content(name).pieces():
        digest.update(piece)
    return digest.hexdigest()
