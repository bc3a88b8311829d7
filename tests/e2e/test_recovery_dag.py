"""The DAG as a user runs it: scheduled and manual runs, deferral, clearing, backfill; and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from livekit_backup.testing import Fault
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.fake_api import API_KEYS, STORAGE_SECRET

from .conftest import ALARMS_DAG_ID, DAG_ID, GRACE_SECONDS, Site

HOUR = timedelta(hours=1)
MIB = 1024 * 1024
SKIPPED_WHEN_EMPTY = (
    "ingest_events",
    "resolve_manifests",
    "recover_files.download",
    "recover_files.verify_and_land",
)


@pytest.fixture(scope="module")
def finished(site: Site, hours: Iterator[datetime]) -> tuple[str, datetime]:
    """A finished run over one file, two images and a duplicate event."""
    hour = next(hours)
    meeting = site.livekit.record_file("egress/meeting.mp4", size=11 * MIB, room_name="Meeting")
    site.store(meeting, hour)
    site.put_event(meeting.event(event_id="EV_again"), hour)
    site.store(site.livekit.record_images("thumbs/room", count=2), hour)
    run_id, state = site.run(hour, hour + HOUR)
    assert state == "success", site.states(run_id)
    return run_id, hour


def test_a_run_lands_every_file_and_labels_its_tasks(site: Site, finished: tuple[str, datetime]) -> None:
    run_id, _ = finished
    report = site.report(run_id)
    assert {line["outcome"] for line in report["lines"]} == {"landed"}
    originals = {name: recording.sha256(name) for recording in site.stored for name in recording.files}
    assert all(line["sha256"] == originals[line["filename"]] for line in report["lines"])
    labels = [
        task["rendered_map_index"]
        for task in site.airflow.task_instances(DAG_ID, run_id)
        if task["task_id"] == "recover_files.download"
    ]
    assert any(re.fullmatch(r"Meeting · meeting\.mp4 · 11\.0 MiB · \d+ h left", label) for label in labels), labels


def test_what_landed_is_an_asset_event(site: Site, finished: tuple[str, datetime]) -> None:
    run_id, _ = finished
    events = site.airflow.api("GET", f"assets/events?source_dag_id={DAG_ID}")["asset_events"]
    (event,) = [event for event in events if event["source_run_id"] == run_id]
    assert event["extra"]["files"] == 3
    assert {"egress_id", "room_name", "uri", "key", "size", "sha256"} == set(event["extra"]["landed"][0])


def test_clearing_any_single_task_changes_nothing_and_ends_in_success(
    site: Site, finished: tuple[str, datetime]
) -> None:
    run_id, _ = finished
    before = site.landed()
    for task in site.airflow.task_instances(DAG_ID, run_id):
        mapped = task["map_index"] >= 0
        if mapped and task["map_index"] > 0:
            continue
        task_id: Any = [task["task_id"], task["map_index"]] if mapped else task["task_id"]
        site.airflow.api(
            "POST",
            f"dags/{DAG_ID}/clearTaskInstances",
            {
                "dry_run": False,
                "dag_run_id": run_id,
                "task_ids": [task_id],
                "only_failed": False,
                "reset_dag_runs": True,
            },
        )
        assert site.airflow.wait(DAG_ID, run_id) == "success", task_id
        after = {(other["task_id"], other["map_index"]): other for other in site.airflow.task_instances(DAG_ID, run_id)}
        assert {other["state"] for other in after.values()} == {"success"}, task_id
        assert after[task["task_id"], task["map_index"]]["try_number"] == task["try_number"] + 1, task_id
        assert site.landed() == before, task_id
    assert {line["outcome"] for line in site.report(run_id)["lines"]} == {"landed"}


def test_a_run_over_the_same_window_lands_nothing_twice(site: Site, finished: tuple[str, datetime]) -> None:
    _, hour = finished
    before = site.landed()
    again, state = site.run(hour, hour + HOUR)
    assert state == "success"
    assert {line["outcome"] for line in site.report(again)["lines"]} == {"already_landed"}
    assert site.landed() == before


def test_two_runs_at_once_land_each_file_once(site: Site, hours: Iterator[datetime]) -> None:
    hour = next(hours)
    names = [f"egress/twice-{number}.mp4" for number in range(3)]
    for name in names:
        site.store(site.livekit.record_file(name, size=8 * MIB), hour)
    window = {"start": hour.isoformat(), "end": (hour + HOUR).isoformat()}
    before = site.landed()
    runs = [site.airflow.trigger(DAG_ID, conf=window) for _ in range(2)]
    assert [site.airflow.wait(DAG_ID, run_id) for run_id in runs] == ["success", "success"]
    for run_id in runs:
        lines = site.report(run_id)["lines"]
        assert sorted(line["filename"] for line in lines) == names
        assert {line["outcome"] for line in lines} <= {"landed", "already_landed"}
    assert len(site.landed().keys() - before.keys()) == len(names)


def test_an_interval_without_events_is_a_success_with_the_rest_skipped(site: Site, hours: Iterator[datetime]) -> None:
    hour = next(hours)
    run_id = site.airflow.trigger(DAG_ID, logical_date=hour.isoformat())
    assert site.airflow.wait(DAG_ID, run_id) == "success"
    states = site.states(run_id)
    assert {task: states[task] for task in SKIPPED_WHEN_EMPTY} == dict.fromkeys(SKIPPED_WHEN_EMPTY, "skipped")
    assert states["report"] == "success"
    report = site.report(run_id)
    assert report["lines"] == []
    # Airflow gives a manual run the last whole interval before its logical date.
    assert report["window"]["end"] == f"{hour:%Y-%m-%dT%H:00:00Z}"
    events = site.airflow.api("GET", f"assets/events?source_dag_id={DAG_ID}&limit=100")["asset_events"]
    assert run_id not in {event["source_run_id"] for event in events}, "nothing landed, so nobody is told"


def test_an_open_window_is_waited_for_in_the_triggerer(site: Site) -> None:
    now = datetime.now(UTC)
    recording = site.livekit.record_file("egress/late.ogg", size=1000, room_name="Late")
    site.store(recording, now)
    end = now + timedelta(seconds=15)
    run_id = site.airflow.trigger(
        DAG_ID,
        conf={
            "start": (now - timedelta(minutes=1)).isoformat(),
            "end": end.isoformat(),
            "egress_ids": [recording.egress_id],
        },
    )
    seen = set()
    while datetime.now(UTC) < end:
        seen.add(site.states(run_id).get("wait_for_events"))
        time.sleep(0.5)
    assert "deferred" in seen
    assert site.airflow.wait(DAG_ID, run_id) == "success"
    assert [line["filename"] for line in site.report(run_id)["lines"]] == ["egress/late.ogg"]
    sensor = next(task for task in site.airflow.task_instances(DAG_ID, run_id) if task["task_id"] == "wait_for_events")
    assert datetime.fromisoformat(sensor["end_date"]) >= end + timedelta(seconds=GRACE_SECONDS)


def test_the_sensor_also_pokes_and_is_rescheduled(site: Site) -> None:
    now = datetime.now(UTC)
    recording = site.livekit.record_file("egress/poked.ogg", size=1000)
    site.store(recording, now)
    dag_id = "sensor_modes"
    site.airflow.await_dag(dag_id)
    site.airflow.unpause(dag_id)
    window = {"start": (now - timedelta(minutes=1)).isoformat(), "end": (now + timedelta(seconds=12)).isoformat()}
    found = site.airflow.trigger(dag_id, conf={**window, "egress_ids": [recording.egress_id]})
    nothing = site.airflow.trigger(dag_id, conf={**window, "egress_ids": ["EG_other"]})
    seen = set()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        tasks = site.airflow.task_instances(dag_id, found)
        seen.update((task["task_id"], task["state"]) for task in tasks)
        time.sleep(0.5)
    assert {("poke", "running"), ("reschedule", "up_for_reschedule")} <= seen
    for run_id, state in ((found, "success"), (nothing, "skipped")):
        site.airflow.wait(dag_id, run_id)
        states = {task["task_id"]: task["state"] for task in site.airflow.task_instances(dag_id, run_id)}
        assert states == {"poke": state, "reschedule": state}


def test_what_is_not_safe_is_named_and_fails_the_run(site: Site, hours: Iterator[datetime]) -> None:
    hour = next(hours)
    broken = site.livekit.record_file("egress/broken.mp4", size=6 * MIB, room_name="Broken")
    site.livekit.break_(broken, Fault.WRONG_BYTES)
    gone = site.livekit.record_file("egress/gone.mp4", size=1000)
    site.livekit.break_(gone, Fault.NOT_FOUND)
    good = site.livekit.record_file("egress/good.mp4", size=1000)
    for recording in (broken, gone, good):
        site.store(recording, hour)
    site.put_event(good.event(backup_storage_used=False, status="EGRESS_FAILED") | {"id": "EV_other"}, hour)
    site.s3.put_object(
        Bucket=site.events,
        Key=f"livekit/{hour:%Y/%m/%d/%H}/dump.txt",
        Body=b"{\npayload: { event: 'egress_ended', backupStorageUsed: true } }",
    )
    run_id, state = site.run(hour, hour + HOUR)
    assert state == "failed"
    states = site.states(run_id)
    assert (states["report"], states["all_safe"]) == ("success", "failed")
    report = site.report(run_id)
    assert {line["filename"]: line["outcome"] for line in report["lines"]} == {
        "egress/broken.mp4": "corrupt",
        "egress/gone.mp4": "missing",
        "egress/good.mp4": "landed",
    }
    (unreadable,) = report["unreadable"]
    assert unreadable["uri"].endswith("/dump.txt") and unreadable["may_be_backup"]
    failed = [
        task
        for task in site.airflow.task_instances(DAG_ID, run_id)
        if task["state"] == "failed" and task["map_index"] >= 0
    ]
    assert all(task["try_number"] == 1 for task in failed), "what cannot succeed is not retried"


def test_what_may_succeed_later_is_retried(site: Site, hours: Iterator[datetime]) -> None:
    hour = next(hours)
    recording = site.livekit.record_file("egress/flaky.mp4", size=6 * MIB, room_name="Flaky")
    site.livekit.break_(recording, Fault.SERVER_ERROR, times=1)
    site.store(recording, hour)
    run_id, state = site.run(hour, hour + HOUR)
    assert state == "success"
    (download,) = [
        task for task in site.airflow.task_instances(DAG_ID, run_id) if task["task_id"] == "recover_files.download"
    ]
    assert download["try_number"] == 2


def test_a_killed_download_shows_how_far_it_is_and_goes_on_there(site: Site, hours: Iterator[datetime]) -> None:
    hour = next(hours)
    recording = site.livekit.record_file("egress/killed.mp4", size=40 * MIB, room_name="Killed")
    site.livekit.break_(recording, Fault.SLOW, times=1, bytes_per_second=5 * MIB // 2)
    site.store(recording, hour)
    run_id = site.airflow.trigger(DAG_ID, conf={"start": hour.isoformat(), "end": (hour + HOUR).isoformat()})
    label, until = "", time.monotonic() + 120
    while "%" not in label and time.monotonic() < until:
        time.sleep(0.2)
        label = next(iter(_downloads(site, run_id)), {}).get("rendered_map_index") or ""
    assert re.fullmatch(r"Killed · killed\.mp4 · 40\.0 MiB · \d+ h left · \d+ %, 2\.\d MiB/s", label), label
    os.kill(_process_that_reads_from(int(site.livekit.base_url.rpartition(":")[2])), signal.SIGKILL)
    assert site.airflow.wait(DAG_ID, run_id) == "success"
    (download,) = _downloads(site, run_id)
    assert download["try_number"] == 2
    assert "%" not in download["rendered_map_index"]
    ranges = [request.range for request in site.livekit.requests if request.path.endswith("killed.mp4")]
    assert ranges[0] is None
    assert int(re.fullmatch(r"bytes=(\d+)-", ranges[1] or "")[1]) >= 15 * MIB
    (line,) = site.report(run_id)["lines"]
    assert (line["outcome"], line["sha256"]) == ("landed", recording.sha256("egress/killed.mp4"))


def _downloads(site: Site, run_id: str) -> list[dict[str, Any]]:
    tasks = site.airflow.task_instances(DAG_ID, run_id)
    return [task for task in tasks if task["task_id"] == "recover_files.download" and task["map_index"] >= 0]


def _process_that_reads_from(port: int) -> int:
    """The process with an open connection to a local port, as the kernel knows it."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01"}
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(handle.readlink()) in established:
                return int(handle.parts[2])
    raise AssertionError(f"nobody is connected to port {port}")


def test_a_backfill_recovers_missed_hours(site: Site, hours: Iterator[datetime]) -> None:
    hour = next(hours)
    recording = site.livekit.record_file("egress/missed.mp4", size=1000, room_name="Missed")
    site.store(recording, hour)
    subprocess.run(
        [
            *(sys.executable, "-m", "airflow", "backfill", "create", "--dag-id", DAG_ID),
            *("--from-date", hour.isoformat(), "--to-date", hour.isoformat()),
        ],
        env=site.airflow.environment,
        check=True,
        capture_output=True,
        timeout=120,
    )
    until = time.monotonic() + 120
    while time.monotonic() < until:
        runs = site.airflow.api("GET", f"dags/{DAG_ID}/dagRuns?run_type=backfill")["dag_runs"]
        if runs and all(run["state"] in ("success", "failed") for run in runs):
            break
        time.sleep(1)
    (run,) = runs
    assert run["state"] == "success"
    assert [line["outcome"] for line in site.report(run["dag_run_id"])["lines"]] == ["landed"]


def test_no_upload_is_left_open(site: Site, finished: tuple[str, datetime]) -> None:
    assert not site.s3.list_multipart_uploads(Bucket=site.recordings).get("Uploads", [])


def test_no_signature_and_no_secret_is_left_anywhere(site: Site, finished: tuple[str, datetime]) -> None:
    """Runs last: after everything above and a round of alarms, with logs at DEBUG."""
    site.airflow.await_dag(ALARMS_DAG_ID)
    site.airflow.unpause(ALARMS_DAG_ID)
    assert site.airflow.wait(ALARMS_DAG_ID, site.airflow.trigger(ALARMS_DAG_ID)) == "success"
    signatures = {
        match.encode()
        for recording in site.livekit.recordings
        for match in re.findall(
            r"X-Amz-Signature=([0-9a-f]{64})",
            json.dumps(recording.event()) + json.dumps(recording.manifest()),
        )
    }
    assert len(signatures) > 10
    # What signs at LiveKit's API, the tokens that were sent to it, the storage keys that stand in the requests which it
    # lists, and what signs at the store.
    tokens = {
        request.headers["Authorization"] for request in site.livekit.requests if "Authorization" in request.headers
    }
    secrets = {
        *API_KEYS.values(),
        STORAGE_SECRET,
        EmbeddedS3.secret_key,
        *(token.rpartition(".")[2] for token in tokens),
    }
    marks = sorted(signatures | {secret.encode() for secret in secrets})
    pattern = re.compile(b"|".join(marks))
    places = dict(site.ledger_objects())
    for path in site.airflow.home.rglob("*"):
        if path.is_file():
            places[str(path.relative_to(site.airflow.home))] = path.read_bytes()
    database = sqlite3.connect(f"file:{site.airflow.home / 'airflow.db'}?mode=ro", uri=True)
    places["the metadata database"] = "\n".join(database.iterdump()).encode()
    database.close()
    assert site.metrics
    places["metrics"] = site.metrics.sent
    extras = site.airflow.api("GET", "assets/events?limit=100")["asset_events"]
    places["asset events, as the API gives them"] = json.dumps(extras).encode()
    assert b"livekit_backup.files.landed" in places["metrics"] and extras
    assert any("/alarms/" in name for name in places) and any("/chain/" in name for name in places)
    assert any(b"egress/meeting.mp4" in body for body in places.values())
    leaks = {place for place, body in places.items() if pattern.search(body) or b"X-Amz-Credential=" in body}
    assert not leaks
