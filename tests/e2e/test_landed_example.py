"""What others learn of a landed recording: the DAG that is scheduled on it, and a task's links."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from livekit_backup.testing.recordings import Recording

from .conftest import DAG_ID, Site

EXAMPLE = "livekit_backup_landed_example"
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def landed(site: Site, hours: Iterator[datetime]) -> tuple[str, Recording]:
    """A finished recovery of one recording, with the example waiting for it."""
    site.airflow.await_dag(EXAMPLE)
    assert site.airflow.api("GET", f"dags/{EXAMPLE}")["is_paused"], "an example does nothing before it is asked to"
    site.airflow.unpause(EXAMPLE)
    hour = next(hours)
    recording = site.livekit.record_file("egress/board meeting.mp4", size=1024 * 1024, room_name="Board")
    site.store(recording, hour)
    run_id, state = site.run(hour, hour + HOUR)
    assert state == "success", site.states(run_id)
    return run_id, recording


def _event(site: Site, run_id: str) -> dict[str, Any]:
    events = site.airflow.api("GET", f"assets/events?source_dag_id={DAG_ID}")["asset_events"]
    [event] = [event for event in events if event["source_run_id"] == run_id]
    return dict(event)


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}"


def test_the_event_names_what_landed(site: Site, landed: tuple[str, Recording]) -> None:
    run_id, recording = landed
    extra = _event(site, run_id)["extra"]
    [line] = site.report(run_id)["lines"]
    assert {key: extra[key] for key in ("run_id", "files", "bytes", "rooms", "egress_ids")} == {
        "run_id": run_id,
        "files": 1,
        "bytes": 1024 * 1024,
        "rooms": ["Board"],
        "egress_ids": [recording.egress_id],
    }
    [named] = extra["landed"]
    assert named["uri"] == line["landed_uri"] == f"s3://{site.recordings}/{named['key']}"
    assert named["sha256"] == recording.sha256("egress/board meeting.mp4")
    bucket, _, key = extra["report"].removeprefix("s3://").partition("/")
    assert json.loads(site.s3.get_object(Bucket=bucket, Key=key)["Body"].read())["run_id"] == run_id
    assert "X-Amz-" not in json.dumps(extra)


def test_the_example_runs_and_handles_it(site: Site, landed: tuple[str, Recording]) -> None:
    until = time.monotonic() + 120
    while not (runs := site.airflow.api("GET", f"dags/{EXAMPLE}/dagRuns")["dag_runs"]):
        assert time.monotonic() < until, "no run of the example began"
        time.sleep(0.5)
    run_id = runs[0]["dag_run_id"]
    assert site.airflow.wait(EXAMPLE, run_id, seconds=120) == "success"
    task = _task(EXAMPLE, run_id, "handle_landed")
    value = site.airflow.api("GET", f"{task}/xcomEntries/return_value?deserialize=true")["value"]
    value = json.loads(value) if isinstance(value, str) else value
    # What landed before it was asked to work is handled in the same run.
    assert value["handled"] >= 1
    assert "Board" in value["rooms"]
    log = json.dumps(site.airflow.api("GET", f"{task}/logs/1"))
    assert _event(site, landed[0])["extra"]["landed"][0]["uri"] in log


@pytest.mark.parametrize("task", ["download", "verify_and_land"])
def test_a_files_tasks_have_their_links(site: Site, landed: tuple[str, Recording], task: str) -> None:
    run_id, recording = landed
    answer = site.airflow.api("GET", f"{_task(DAG_ID, run_id, f'recover_files.{task}')}/links?map_index=0")
    session = {"Egress session": f"https://cloud.livekit.io/projects/p_/egresses/{recording.egress_id}"}
    # This store is none of AWS's own, and has no console.
    nowhere = {"Landed object": None}
    assert answer["extra_links"] == (nowhere if task == "verify_and_land" else {**session, **nowhere})
