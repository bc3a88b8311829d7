"""Runs of many files on a real Airflow (PostgreSQL, LocalExecutor), against a DAG of the same shape that does nothing.

All of Airflow, the database, LiveKit's stand-in and the S3 server share the machine, so the S3 server is the bench's
own: it keeps objects in memory and takes little of what is measured. One comparison is made on Swift, which is a real
store and takes as much of the machine as the tasks do. ``BENCH_FLOODS=0.1`` takes a tenth of every
number, ``BENCH_FLOODS=10`` ten times as much.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

import flood_plot
from discarding_s3 import CREDENTIALS, airflow_connection
from livekit_backup.testing import FakeLiveKit, Recording
from livekit_backup.testing.embedded_airflow import EmbeddedAirflow
from livekit_backup.testing.embedded_postgres import embedded_postgres, postgres_drivers, postgres_programs
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from local_server import LocalServer
from table import Table, spread

ROOT = Path(__file__).resolve().parent.parent
SCALE = float(os.environ.get("BENCH_FLOODS", "1"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
MIB = 1024 * 1024
OURS, NOTHING = "livekit_backup_recovery", "doing_nothing"
FILES, SEGMENTS = (20, 200, 2_000, 10_000), (200, 2_000, 20_000)
SEGMENT_BYTES = 64 * 1024
BUNDLE = 64
GOAL_RATIO, GOAL_SEGMENT_SECONDS = 1.15, 0.15
PARALLELISM = 16
CLIENT = {
    "aws_access_key_id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
    "aws_secret_access_key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    "region_name": CREDENTIALS["AWS_DEFAULT_REGION"],
    "config": Config(s3={"addressing_style": "path"}),
}
LAST_HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)


@dataclass
class FloodBed:
    """A warehouse, a fake LiveKit and an Airflow."""

    airflow: EmbeddedAirflow
    livekit: FakeLiveKit
    s3: Any
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def recover(self, recordings: Callable[[], Iterator[Recording]]) -> tuple[float, dict[str, Any]]:
        """Store events of new recordings in an hour of their own and run the DAG over it."""
        hour = LAST_HOUR - timedelta(hours=next(self.numbers))

        def put(key: str, body: bytes) -> None:
            self.s3.put_object(Bucket="events", Key=f"livekit/{key}", Body=body)

        expected = 0
        for recording in recordings():
            self.livekit.store_event(put, recording.event(), when=hour)
            expected += len(recording.files)
        window = {"start": hour.isoformat(), "end": (hour + timedelta(hours=1)).isoformat()}
        seconds, run_id = self.run(OURS, window)
        report = self._xcom(run_id, "report")
        if report["totals"] != {"landed": expected}:
            raise RuntimeError(f"{expected} files were to land: {report}")
        return seconds, {name: len(str(self._xcom(run_id, name))) for name in ("resolve_manifests", "report")}

    def run(self, dag_id: str, conf: dict[str, Any]) -> tuple[float, str]:
        began = time.monotonic()
        run_id = self.airflow.trigger(dag_id, conf=conf)
        state = self.airflow.wait(dag_id, run_id, seconds=3600)
        seconds = time.monotonic() - began
        if state != "success":
            raise RuntimeError(f"{dag_id} ended {state}\n{self.airflow.log_tail()}")
        return seconds, run_id

    def _xcom(self, run_id: str, task_id: str) -> Any:
        path = f"dags/{OURS}/dagRuns/{run_id.replace(':', '%3A').replace('+', '%2B')}/taskInstances/{task_id}"
        return self.airflow.api("GET", f"{path}/xcomEntries/return_value?deserialize=true")["value"]


def measure() -> list[Table]:
    with _bed(_bench_store) as bed:
        files = [_against_nothing(bed, _scaled(count)) for count in FILES]
        segments = [_segments(bed, _scaled(count)) for count in SEGMENTS]
    with _bed(_swift) as bed:
        on_swift = _against_nothing(bed, _scaled(FILES[1]), rounds=1)
    flood_plot.draw(
        [(row.count, statistics.median(row.ours), statistics.median(row.nothing)) for row in files],
        [(count, seconds) for count, seconds, _ in segments],
    )
    return [_files_table(files, on_swift), _segments_table(segments)]


@dataclass
class Against:
    """The seconds of both DAGs over as many files."""

    count: int
    tasks: int
    ours: list[float] = field(default_factory=list)
    nothing: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [mine / idle for mine, idle in zip(self.ours, self.nothing, strict=True)]


def _against_nothing(bed: FloodBed, count: int, rounds: int = ROUNDS) -> Against:
    tasks = count if count <= 1024 else -(-count // BUNDLE)
    measured = Against(count, tasks)
    for number in range(rounds if count <= 200 else 1):

        def ours() -> None:
            measured.ours.append(bed.recover(lambda: _files(bed.livekit, count))[0])

        def nothing() -> None:
            measured.nothing.append(bed.run(NOTHING, {"bundles": tasks})[0])

        for run in (ours, nothing) if number % 2 else (nothing, ours):
            run()
    return measured


def _segments(bed: FloodBed, count: int) -> tuple[int, float, dict[str, Any]]:
    seconds, sizes = bed.recover(lambda: iter([_hls(bed.livekit, count)]))
    return count, seconds, sizes


def _files_table(files: list[Against], on_swift: Against) -> Table:
    rows = [
        [
            f"{row.count:,}{'' if row in files else ', on Swift'}",
            f"{row.tasks:,}",
            spread(row.nothing),
            spread(row.ours),
            f"{spread(row.ratios, 2)} x",
            f"{statistics.median(row.ours) / row.count:.3f}",
        ]
        for row in (*files, on_swift)
    ]
    main = files[1]
    return Table(
        "Recordings of 1 MiB, each an egress of its own; over 1,024 they share tasks",
        f"{main.count} files at most {GOAL_RATIO} x",
        statistics.median(main.ratios) <= GOAL_RATIO,
        ["files", "mapped instances", "a DAG doing nothing, s", "recovery, s", "recovery over it", "s a file"],
        rows,
    )


def _segments_table(segments: list[tuple[int, float, dict[str, Any]]]) -> Table:
    rows = [
        [
            f"{count:,}",
            f"{seconds:.0f}",
            f"{seconds / count:.3f}",
            f"{sizes['resolve_manifests']:,}",
            f"{sizes['report']:,}",
        ]
        for count, seconds, sizes in segments
    ]
    count, seconds, _ = segments[1]
    return Table(
        f"One egress with so many segments of {SEGMENT_BYTES // 1024} KiB",
        f"{count:,} segments at most {GOAL_SEGMENT_SECONDS} s each",
        seconds / count <= GOAL_SEGMENT_SECONDS,
        ["segments", "s", "s a segment", "XCom of resolve_manifests, characters", "XCom of report, characters"],
        rows,
    )


def _files(livekit: FakeLiveKit, count: int) -> Iterator[Recording]:
    for number in range(count):
        yield livekit.record_file(f"egress/{time.time_ns()}-{number}.mp4", size=MIB)


def _hls(livekit: FakeLiveKit, count: int) -> Recording:
    return livekit.record_hls(f"hls/{time.time_ns()}", segments=count, segment_size=SEGMENT_BYTES)


def _scaled(count: int) -> int:
    return max(1, round(count * SCALE))


@dataclass(frozen=True)
class Store:
    """An S3 server."""

    client: Any
    connection: str
    """Ready for ``AIRFLOW_CONN_AWS_DEFAULT``."""


@contextlib.contextmanager
def _bench_store(_: Path) -> Iterator[Store]:
    with LocalServer("discarding_s3.py") as server:
        url = server.answer["url"]
        yield Store(boto3.client("s3", endpoint_url=url, **CLIENT), airflow_connection(url))


@contextlib.contextmanager
def _swift(folder: Path) -> Iterator[Store]:
    with EmbeddedS3(folder / "s3", venv_dir=ROOT / ".embedded-s3" / "venv") as s3:
        yield Store(s3.client(), s3.airflow_connection())


@contextlib.contextmanager
def _bed(open_store: Callable[[Path], AbstractContextManager[Store]]) -> Iterator[FloodBed]:
    programs = postgres_programs()
    if programs is None:
        raise RuntimeError("no PostgreSQL is installed: apt-get install postgresql")
    drivers = postgres_drivers(ROOT / ".cache" / "compose-drivers")
    with (
        tempfile.TemporaryDirectory(prefix="livekit-backup-floods-") as folder,
        open_store(Path(folder)) as store,
        FakeLiveKit() as livekit,
        embedded_postgres(programs) as database,
    ):
        for bucket in ("events", "recordings"):
            store.client.create_bucket(Bucket=bucket)
        dags = Path(folder) / "dags"
        dags.mkdir()
        for source in (ROOT / "dags" / f"{OURS}.py", ROOT / "benchmarks" / "dags" / f"{NOTHING}.py"):
            shutil.copy(source, dags)
        airflow = EmbeddedAirflow(
            Path(folder) / "airflow",
            dags=dags,
            environment={
                "PYTHONPATH": str(drivers),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url,
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
                "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(PARALLELISM),
                "AIRFLOW_CONN_AWS_DEFAULT": store.connection,
                "AIRFLOW__LIVEKIT_BACKUP__INBOX": "s3://events/livekit",
                "AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE": "s3://recordings/r",
                "AIRFLOW__LIVEKIT_BACKUP__ALLOWED_HOSTS": livekit.base_url.removeprefix("http://"),
                "AIRFLOW__LIVEKIT_BACKUP__GRACE": "1",
            },
        )
        with airflow:
            for dag_id in (OURS, NOTHING):
                airflow.await_dag(dag_id)
                airflow.unpause(dag_id)
            bed = FloodBed(airflow, livekit, store.client)
            # The first tasks of a cold Airflow take longer.
            bed.run(NOTHING, {"bundles": 8})
            bed.recover(lambda: _files(livekit, 8))
            yield bed
