"""Peak memory of the tasks that recover one file, over that of an idle task, by the file's size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from livekit_backup.core.bundling import bundle
from livekit_backup.core.inbox import IntakeReader, load_backup_events
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.manifest_client import ManifestClient
from livekit_backup.core.planning import plan_backup
from livekit_backup.core.resolution import resolve_backup
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.settings import Settings
from livekit_backup.testing import FakeLiveKit
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from table import Table

GOAL_MIB = 128
MIB = 1024 * 1024
SIZES = (1 * MIB, 256 * MIB, 5 * 1024 * MIB)
ROOT = Path(__file__).resolve().parent.parent


def measure() -> Table:
    return measure_sizes(SIZES)


def measure_sizes(sizes: tuple[int, ...]) -> Table:
    """Recover one file of each size in a process of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedS3(Path(folder) / "s3", venv_dir=ROOT / ".embedded-s3" / "venv") as s3,
        FakeLiveKit() as livekit,
    ):
        os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = s3.airflow_connection()
        s3.client().create_bucket(Bucket="bench")
        idle = _process("idle")["peak_mib"]
        rows, reached = [["idle task", "", f"{idle:.0f}", "", ""]], True
        for size in sizes:
            taken = _process("recover", _prepare(livekit, size))
            assert (taken["result"]["landed"], taken["result"]["bytes"]) == (1, size), taken
            over = taken["peak_mib"] - idle
            reached = reached and over <= GOAL_MIB
            rows.append(
                [
                    f"{size // MIB} MiB",
                    f"{size / MIB / taken['seconds']:.0f}",
                    f"{taken['peak_mib']:.0f}",
                    f"{over:.0f}",
                    f"{taken['cpu_seconds']:.1f}",
                ]
            )
    return Table(
        "Peak memory of download and verify_and_land in one process",
        f"at most {GOAL_MIB} MiB over an idle task",
        reached,
        ["file", "MiB/s", "peak MiB", "over idle", "CPU s"],
        rows,
    )


def _prepare(livekit: FakeLiveKit, size: int) -> str:
    """Store a recording's event and what the mapped task for it works on, and return that one's id."""
    hosts = livekit.base_url.removeprefix("http://")
    os.environ.update(
        AIRFLOW__LIVEKIT_BACKUP__INBOX="s3://bench/inbox",
        AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE="s3://bench/warehouse",
        AIRFLOW__LIVEKIT_BACKUP__ALLOWED_HOSTS=hosts,
    )
    settings = Settings(
        inbox="s3://bench/inbox",
        warehouse="s3://bench/warehouse",
        ledger="s3://bench/warehouse/_livekit_backup",
        allowed_hosts=(hosts,),
    )
    store = S3ObjectStore("aws_default")
    recording = livekit.record_file(f"egress/{size}.mp4", size=size)
    _ = recording.files[f"egress/{size}.mp4"].etag
    keys: list[str] = []

    def put(key: str, body: bytes) -> None:
        keys.append(f"s3://bench/inbox/{key}")
        store.put(keys[-1], body)

    livekit.store_event(put, recording.event())
    reader = IntakeReader()
    reader.read(store, keys)
    (ref,) = reader.result().backups
    with ManifestClient(settings.allowed_hosts) as client:
        resolved = resolve_backup(load_backup_events(store, ref), client.fetch)
    (file,) = plan_backup(ref, resolved, settings, lambda _: None, datetime.now(UTC)).to_recover
    (made,) = bundle([file], settings, 1, datetime.now(UTC))
    Ledger(store, settings.ledger).write_bundles("bench", "bench", [made])
    return made.bundle_id


def _process(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("task_process.py")), *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))
