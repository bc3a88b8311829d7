"""Webhooks that were lost: found at LiveKit, recovered and accounted for; by the DAG and by the commands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from livekit_backup.testing import WebhookSender
from livekit_backup.testing.fake_api import API_KEYS
from livekit_backup.testing.recordings import Recording

from .conftest import DAG_ID, RECONCILE_DAG_ID, Site

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module", autouse=True)
def unpaused(site: Site) -> Iterator[None]:
    """The scheduled run of a DAG that was just unpaused comes first, and has found nothing yet."""
    site.airflow.unpause(RECONCILE_DAG_ID)
    until = time.monotonic() + 240
    while not (runs := _runs(site, RECONCILE_DAG_ID)) and time.monotonic() < until:
        time.sleep(0.5)
    assert site.airflow.wait(RECONCILE_DAG_ID, runs[0]["dag_run_id"]) in ("success", "failed")
    yield
    site.airflow.api("PATCH", f"dags/{RECONCILE_DAG_ID}", {"is_paused": True})


def _runs(site: Site, dag_id: str) -> list[dict[str, Any]]:
    return list(site.airflow.api("GET", f"dags/{dag_id}/dagRuns?limit=100")["dag_runs"])


@pytest.fixture(scope="module")
def bad_day() -> datetime:
    """An hour that no other test has recordings in."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=5)


def reconcile(site: Site, start: datetime, end: datetime) -> tuple[str, str]:
    conf = {"start": start.isoformat(), "end": end.isoformat()}
    run_id = site.airflow.trigger(RECONCILE_DAG_ID, conf=conf)
    return run_id, site.airflow.wait(RECONCILE_DAG_ID, run_id)


def command(site: Site, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "airflow", "livekit-backup", *arguments],
        # Airflow's own logs at DEBUG go to standard output too.
        env={**site.airflow.environment, "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO"},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def record(site: Site, count: int, begin: datetime, name: str) -> list[Recording]:
    return [
        site.livekit.record_file(
            f"{name}/{number}.mp4",
            size=90_000 + number,
            room_name=f"{name} {number}",
            uploaded_at=begin + HOUR * 0.05 * number,
        )
        for number in range(count)
    ]


def holds_landed(site: Site, recordings: list[Recording]) -> None:
    """Every recording is in the warehouse, byte for byte, once."""
    landed = site.landed()
    for recording in recordings:
        [filename] = recording.files
        keys = [key for key in landed if key.endswith(f"/{recording.egress_id}/{filename}")]
        assert len(keys) == 1, (recording.egress_id, keys)
        body = site.s3.get_object(Bucket=site.recordings, Key=keys[0])["Body"].read()
        assert len(body) == recording.files[filename].size


def test_three_of_ten_webhooks_are_lost_and_every_backup_is_landed(site: Site, bad_day: datetime) -> None:
    recordings = record(site, 10, bad_day, "incident")
    began = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    [(key, secret)] = API_KEYS.items()
    with WebhookSender(f"{site.airflow.url}/livekit-backup/webhook", key, secret, timeout=60) as sender:
        for number, recording in enumerate(recordings):
            if number % 3 != 1:
                assert sender.send(recording.event()).accepted
    _, state = site.run(began, datetime.now(UTC))
    assert state == "success"

    run_id, state = reconcile(site, bad_day, bad_day + HOUR)

    assert state == "success"
    statement = site.report(run_id)
    assert len(statement["backups"]) == 10
    assert {line["state"] for line in statement["backups"]} == {"safe"}
    assert sum(line["found_by_reconcile"] for line in statement["backups"]) == 3
    holds_landed(site, recordings)
    [started] = [run for run in _runs(site, DAG_ID) if run["dag_run_id"].startswith("reconcile__")]
    assert started["state"] == "success"

    # Again, and every task of it cleared: nothing is filed, nothing is started, the statement is the same.
    before = site.landed()
    again, state = reconcile(site, bad_day, bad_day + HOUR)
    assert state == "success"
    states = {task["task_id"]: task["state"] for task in site.airflow.task_instances(RECONCILE_DAG_ID, again)}
    assert states == {"reconcile": "success", "recover_missed": "skipped", "statement": "success"}
    for task_id in ("reconcile", "statement"):
        site.airflow.api(
            "POST",
            f"dags/{RECONCILE_DAG_ID}/clearTaskInstances",
            {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False},
        )
        assert site.airflow.wait(RECONCILE_DAG_ID, run_id) == "success"
    assert site.landed() == before
    assert len([run for run in _runs(site, DAG_ID) if run["dag_run_id"].startswith("reconcile__")]) == 1


def test_what_is_lost_and_what_was_never_backed_up_make_the_statement_red(site: Site, bad_day: datetime) -> None:
    hour = bad_day - timedelta(days=3)
    [dead] = record(site, 1, hour, "too-late")
    ended = str(int((hour + timedelta(minutes=5)).timestamp()) * 10**9)
    site.livekit.list_also(
        {
            "egressId": "EG_unsaved",
            "roomName": "Unsaved",
            "status": "EGRESS_FAILED",
            "startedAt": ended,
            "endedAt": ended,
            "error": "S3 upload failed: operation error S3: PutObject, AccessDenied",
        }
    )
    run_id, state = reconcile(site, hour, hour + HOUR)
    assert state == "failed"
    statement = site.report(run_id)
    [line] = statement["backups"]
    assert (line["egress_id"], line["state"], line["hours_left"]) == (dead.egress_id, "lost", None)
    assert [failed["egress_id"] for failed in statement["failed_uploads"]] == ["EG_unsaved"]


def test_status_says_in_one_command_what_is_safe(site: Site, bad_day: datetime) -> None:
    [unknown] = record(site, 1, bad_day + 2 * HOUR, "unknown")
    answer = command(site, "status", "--json", "--days", "6")
    statement = json.loads(answer.stdout)
    states = {line["egress_id"]: line["state"] for line in statement["backups"]}
    assert states[unknown.egress_id] == "unaccounted"
    assert (answer.returncode, statement["is_settled"]) == (1, False)
    table = command(site, "status", "--days", "6").stdout
    assert f"airflow livekit-backup recover {unknown.egress_id}" in table
    assert "Signature" not in answer.stdout + answer.stderr + table


def test_recover_finds_an_egress_by_its_id_and_lands_it(site: Site, bad_day: datetime) -> None:
    [recording] = record(site, 1, bad_day + 3 * HOUR, "by-id")
    answer = command(site, "recover", recording.egress_id, "EG_nobody_knows")
    assert answer.returncode == 1
    assert "EG_nobody_knows" in answer.stderr
    [run_id] = [line.rpartition("run ")[2] for line in answer.stdout.splitlines() if line.startswith("started")]
    assert site.airflow.wait(DAG_ID, run_id) == "success"
    holds_landed(site, [recording])


@pytest.mark.parametrize("kind", ["manifest", "file"])
def test_recover_takes_a_link_from_standard_input(site: Site, bad_day: datetime, kind: str) -> None:
    [recording] = record(site, 1, bad_day + 4 * HOUR, f"by-{kind}")
    info = recording.event()["egressInfo"]
    [filename] = recording.files
    link = info["manifestLocation"] if kind == "manifest" else info["fileResults"][0]["location"]
    arguments = [] if kind == "manifest" else [recording.egress_id, "--filename", filename]
    answer = command(site, "recover", "--link", *arguments, stdin=f"{link}\n")
    assert answer.returncode == 0, answer.stderr
    assert "Signature" not in answer.stdout + answer.stderr
    run_id = answer.stdout.split("run ")[-1].strip()
    assert site.airflow.wait(DAG_ID, run_id) == "success"
    holds_landed(site, [recording])
