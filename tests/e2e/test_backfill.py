"""A bad week, backfilled twice over and backwards: the same objects, the same ledger, the same statement each time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from livekit_backup.testing import FakeLiveKit, Fault
from livekit_backup.testing.embedded_airflow import AirflowApiError, EmbeddedAirflow
from livekit_backup.testing.embedded_postgres import embedded_postgres, postgres_drivers, postgres_programs
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.recordings import Recording

from .conftest import ROOT, Site

DAG_ID = "daily_recovery"
DAY = timedelta(days=1)
FIRST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 9 * DAY
LAST = FIRST + 6 * DAY
FOREIGN = b"somebody else's recording"
DEAD = FIRST - DAY
"""When links began to live that are dead by now."""


@dataclass
class Week:
    """Forty backups: three dead, two of them without a manifest, and one whose key is taken."""

    site: Site
    recordings: list[Recording] = field(default_factory=list)
    dead: list[Recording] = field(default_factory=list)

    def add(self, recording: Recording, day: int, hour: int) -> Recording:
        """Store its event in an hour of the week."""
        when = FIRST + timedelta(days=day, hours=hour)

        def put(key: str, body: bytes) -> None:
            self.site.s3.put_object(Bucket=self.site.events, Key=f"livekit/{key}", Body=body)

        self.site.livekit.store_event(put, recording.event(), when=when)
        self.recordings.append(recording)
        return recording

    def alive(self) -> list[Recording]:
        """The recordings that can be recovered."""
        return [recording for recording in self.recordings if recording not in self.dead]

    def objects(self, prefix: str = "r/dt=") -> dict[str, dict[str, Any]]:
        """What the warehouse holds, by key."""
        pages = self.site.s3.get_paginator("list_objects_v2").paginate(Bucket=self.site.recordings, Prefix=prefix)
        return {item["Key"]: item for page in pages for item in page.get("Contents", ())}

    def read(self, key: str) -> bytes:
        """An object's bytes."""
        return bytes(self.site.s3.get_object(Bucket=self.site.recordings, Key=key)["Body"].read())

    def entries(self) -> list[dict[str, Any]]:
        """The ledger's documents of files."""
        return [json.loads(self.read(key)) for key in self.objects("r/_livekit_backup/files/")]

    def statements(self) -> dict[str, list[dict[str, Any]]]:
        """What each day's report says of its files, but for when, by which try, and whether landed now or before."""
        reports = [
            json.loads(self.read(key))
            for key in self.objects("r/_livekit_backup/runs/")
            if key.endswith("/report.json")
        ]
        names = ("egress_id", "run", "filename", "reason", "size", "sha256", "landed_uri", "deadline", "was_lost")
        return {
            report["window"]["start"]: [
                {name: line[name] for name in names} | {"outcome": line["outcome"].removeprefix("already_")}
                for line in report["lines"]
            ]
            for report in reports
        }

    def backfill(self, *options: str) -> list[dict[str, Any]]:
        """Backfill the week and wait for it; return the runs that it made or took up again."""
        began = datetime.now(UTC)
        airflow = self.site.airflow
        created = subprocess.run(
            [
                *(sys.executable, "-m", "airflow", "backfill", "create", "--dag-id", DAG_ID),
                *("--from-date", FIRST.isoformat(), "--to-date", LAST.isoformat(), "--max-active-runs", "4"),
                *options,
            ],
            env=airflow.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert created.returncode == 0, created.stderr[:2000] + created.stderr[-2000:]
        until = time.monotonic() + 300
        while time.monotonic() < until:
            runs = airflow.api("GET", f"dags/{DAG_ID}/dagRuns?run_type=backfill")["dag_runs"]
            if len(runs) == 7 and all(run["state"] in ("success", "failed") for run in runs):
                break
            time.sleep(0.5)
        else:
            pytest.fail(f"the backfill did not end: {[run['state'] for run in runs]}")
        for backfill in airflow.api("GET", f"backfills?dag_id={DAG_ID}")["backfills"]:
            # The scheduler would say within half a minute that it is complete; there can be one at a time.
            with contextlib.suppress(AirflowApiError):
                airflow.api("PUT", f"backfills/{backfill['id']}/cancel")
        assert {run["state"] for run in runs} == {"success"}, runs
        return [run for run in runs if datetime.fromisoformat(run["start_date"]) > began]


@pytest.fixture(scope="module")
def daily_site(s3_server: EmbeddedS3, s3_client: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site on PostgreSQL: SQLite answers ``airflow backfill create`` beside a live scheduler that it is locked."""
    programs = postgres_programs()
    drivers = postgres_drivers(ROOT / ".cache" / "compose-drivers") if programs else None
    if not programs or not drivers:
        pytest.skip("no PostgreSQL is installed here")
    mark = uuid.uuid4().hex[:8]
    events, recordings = f"week-events-{mark}", f"week-recordings-{mark}"
    for bucket in (events, recordings):
        s3_client.create_bucket(Bucket=bucket)
    dags = tmp_path_factory.mktemp("week-dags")
    shutil.copy(Path(__file__).with_name("daily_recovery.py"), dags)
    with FakeLiveKit(seed=mark) as livekit, embedded_postgres(programs) as database:
        airflow = EmbeddedAirflow(
            tmp_path_factory.mktemp("week-airflow"),
            dags=dags,
            environment={
                "SHIPPED_DAG": str(ROOT / "dags" / "livekit_backup_recovery.py"),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url,
                "AIRFLOW__CORE__PARALLELISM": "8",
                "PYTHONPATH": os.pathsep.join(filter(None, [str(drivers), os.environ.get("PYTHONPATH")])),
                "AIRFLOW_CONN_AWS_DEFAULT": s3_server.airflow_connection(),
                "AIRFLOW__LIVEKIT_BACKUP__INBOX": f"s3://{events}/livekit",
                "AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE": f"s3://{recordings}/r",
                "AIRFLOW__LIVEKIT_BACKUP__ALLOWED_HOSTS": livekit.base_url.removeprefix("http://"),
                "AIRFLOW__LIVEKIT_BACKUP__GRACE": "5",
            },
        )
        with airflow:
            airflow.await_dag(DAG_ID)
            airflow.unpause(DAG_ID)
            yield Site(airflow, livekit, s3_client, events, recordings)


@pytest.fixture(scope="module")
def week(daily_site: Site) -> Week:
    week = Week(daily_site)
    livekit = daily_site.livekit
    for number, day in enumerate((0, 0, 1)):
        dead = livekit.record_file(f"egress/dead-{number}.mp4", size=1000, uploaded_at=DEAD)
        week.dead.append(week.add(dead, day, number))
    for dead in week.dead[:2]:
        livekit.break_(dead.manifest_object, Fault.NOT_FOUND)
    for day in (2, 4, 6):
        key = f"egress/{day}.mp4"
        week.add(livekit.record_file("egress/same-name.mp4", size=3000, key=key, room_name=f"Day {day}"), day, 23)
    taken = week.recordings[-1]
    key = f"r/dt={taken.started_at:%Y-%m-%d}/{taken.egress_id}/egress/same-name.mp4"
    daily_site.s3.put_object(Bucket=daily_site.recordings, Key=key, Body=FOREIGN)
    while len(week.recordings) < 40:
        number = len(week.recordings)
        week.add(livekit.record_images(f"thumbs/{number}", count=1, size=500), 2 + number % 5, number % 24)
    return week


def test_a_bad_week_is_backfilled_twice_over_and_backwards(week: Week) -> None:
    assert len(week.backfill()) == 7
    objects, statements = week.objects(), week.statements()
    _holds_exactly_the_recordings(week)
    lines = [line for of_day in statements.values() for line in of_day]
    assert len(lines) == 40
    assert {line["egress_id"] for line in lines if line["outcome"] == "expired"} == {
        dead.egress_id for dead in week.dead
    }
    assert all(line["was_lost"] == (line["outcome"] == "expired") for line in lines)
    assert {line["outcome"] for line in lines} == {"landed", "expired"}
    for options in (["--reprocess-behavior", "completed"], ["--reprocess-behavior", "completed", "--run-backwards"]):
        assert len(week.backfill(*options)) == 7, options
        assert week.statements() == statements, options
        assert {key: (item["ETag"], item["LastModified"]) for key, item in week.objects().items()} == {
            key: (item["ETag"], item["LastModified"]) for key, item in objects.items()
        }, options
        _holds_exactly_the_recordings(week)
    for behaviour in ("none", "failed"):
        assert week.backfill("--reprocess-behavior", behaviour) == [], "no day is missing, and none has failed"
    assert not week.site.s3.list_multipart_uploads(Bucket=week.site.recordings, Prefix="r/").get("Uploads", [])


def _holds_exactly_the_recordings(week: Week) -> None:
    digests = sorted(hashlib.sha256(week.read(key)).hexdigest() for key in week.objects())
    originals = [recording.sha256(name) for recording in week.alive() for name in recording.files]
    assert digests == sorted([*originals, hashlib.sha256(FOREIGN).hexdigest()])
    entries = {(entry["egress_id"], entry["filename"]): entry for entry in week.entries()}
    assert len(entries) == len(week.entries()) == 40
    for recording in week.alive():
        for name in recording.files:
            entry = entries[recording.egress_id, name]
            assert (entry["outcome"], entry["sha256"]) == ("landed", recording.sha256(name))
            key = entry["landed_uri"].removeprefix(f"s3://{week.site.recordings}/")
            assert hashlib.sha256(week.read(key)).hexdigest() == entry["sha256"]
    beside = [entry["landed_uri"] for entry in entries.values() if "~" in entry["landed_uri"]]
    assert len(beside) == 1, "one key was taken"


def test_a_day_of_dead_links_ends_at_once_and_by_name(week: Week) -> None:
    """After the backfills above, or with one of its own."""
    if not week.entries():
        week.backfill()
    (run,) = [
        run
        for run in week.site.airflow.api("GET", f"dags/{DAG_ID}/dagRuns?run_type=backfill")["dag_runs"]
        if datetime.fromisoformat(run["logical_date"]) == FIRST
    ]
    tasks = week.site.airflow.task_instances(DAG_ID, run["dag_run_id"])
    states = {task["task_id"]: task["state"] for task in tasks}
    assert states == {
        "wait_for_events": "success",
        "ingest_events": "success",
        "resolve_manifests": "success",
        "recover_files.download": "skipped",
        "recover_files.verify_and_land": "skipped",
        "report": "success",
        "all_safe": "success",
    }
    asked = {request.path for request in week.site.livekit.requests}
    for dead in week.dead:
        assert not asked & {dead.manifest_object.path, *(stored.path for stored in dead.files.values())}


def test_plan_only_prints_the_plan_and_writes_nothing(week: Week) -> None:
    fresh = week.site.livekit.record_file("egress/planned.mp4", size=12_000_000, room_name="Planned")
    week.add(fresh, 5, 12)
    week.recordings.pop()
    before = week.objects("")
    airflow = week.site.airflow
    conf = {
        "start": (FIRST + 5 * DAY).isoformat(),
        "end": (LAST + DAY).isoformat(),
        "egress_ids": [fresh.egress_id],
        "plan_only": True,
    }
    for logical_date in (None, datetime.now(UTC).isoformat()):
        run_id = airflow.trigger(DAG_ID, conf=conf, logical_date=logical_date)
        assert airflow.wait(DAG_ID, run_id) == "success"
        tasks = {task["task_id"]: task["state"] for task in airflow.task_instances(DAG_ID, run_id)}
        assert tasks.pop("wait_for_events") == tasks.pop("ingest_events") == "success"
        assert set(tasks.values()) == {"skipped"}
        ingest = f"dags/{DAG_ID}/dagRuns/{quote(run_id, safe='')}/taskInstances/ingest_events"
        xcom = airflow.api("GET", f"{ingest}/xcomEntries/return_value")
        assert "'totals': {'recover': 1}" in str(xcom["value"]).replace('"', "'")
        log = json.dumps(airflow.api("GET", f"{ingest}/logs/1"))
        assert "1 file of 1 backup: 1 recover; 11.4 MiB to download in 1 task" in log
        assert f"{fresh.egress_id} \\u00b7 Planned" in log and f"/{fresh.egress_id}/egress/planned.mp4" in log
        assert "X-Amz-Signature" not in log
    assert week.objects("") == before
    events = airflow.api("GET", f"assets/events?source_dag_id={DAG_ID}&limit=100")["asset_events"]
    assert run_id not in {event["source_run_id"] for event in events}
