"""``make demo``: lost recordings come back, in a real Airflow, from a fake LiveKit into a real S3 server."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from datetime import timedelta
from typing import Any

from livekit_backup.core.storage import split_uri
from livekit_backup.testing import FakeLiveKit
from livekit_backup.testing.embedded_airflow import EmbeddedAirflow
from livekit_backup.testing.recordings import Recording
from scene import (
    DAG_ID,
    EVENTS,
    RECONCILE_DAG_ID,
    RECORDINGS,
    Moment,
    airflow,
    embedded_s3,
    fake_livekit,
    make_recordings,
    record_unannounced,
)

BEGAN = time.monotonic()


def main() -> int:
    """Play the demo; 0 when the good ones landed and the bad ones are named for the right reason."""
    moment = Moment.this()
    moment.save()
    say("starting an S3 server and a fake LiveKit Cloud (the first time, the S3 server is installed)")
    with embedded_s3() as s3, fake_livekit(moment) as livekit:
        client = s3.client()
        recordings, expected = make_recordings(livekit, moment.time)
        unannounced = record_unannounced(livekit, moment.time)
        store_events(client, livekit, recordings, moment)
        say("starting Airflow: scheduler, API server, DAG processor, triggerer")
        with airflow(moment, s3, livekit) as instance:
            run_id = run_dag(moment, instance)
            reconcile_id = run_reconcile(instance)
        report = read_report(client, DAG_ID, run_id)
        wrong = print_table(client, recordings, expected, report)
        statement = read_report(client, RECONCILE_DAG_ID, reconcile_id)
        wrong += check_unannounced(client, unannounced, statement)
    if wrong:
        print(f"\n{wrong} of {len(expected) + 1} files are not what they should be: the demo failed.")
        return 1
    print("\nAll as it should be: the good ones landed byte for byte, the bad ones are named with their reason.")
    print("`make ui` shows the runs in Airflow.")
    return 0


def say(text: str) -> None:
    """Print a step with the seconds since the start."""
    print(f"[{time.monotonic() - BEGAN:5.1f} s] {text}", flush=True)


def store_events(client: Any, livekit: FakeLiveKit, recordings: list[Recording], moment: Moment) -> None:
    """Store each recording's webhook event, as a receiver would have done."""
    present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in {EVENTS, RECORDINGS} - present:
        client.create_bucket(Bucket=bucket)

    def put(key: str, body: bytes) -> None:
        client.put_object(Bucket=EVENTS, Key=f"{moment.inbox}/{key}", Body=body)

    for recording in recordings:
        livekit.store_event(put, recording.event(), when=moment.hour)
    say(f"stored {len(recordings)} webhook events under s3://{EVENTS}/{moment.inbox}/{moment.hour:%Y/%m/%d/%H/}")


def run_dag(moment: Moment, instance: EmbeddedAirflow) -> str:
    """Run the DAG over the hour in which the events were stored, and return the run's id."""
    instance.await_dag(DAG_ID)
    instance.unpause(DAG_ID)
    window = {"start": moment.hour.isoformat(), "end": (moment.hour + timedelta(hours=1)).isoformat()}
    run_id = instance.trigger(DAG_ID, conf=window)
    say("unpaused; beside the demo's run the scheduler makes one for the last hour, which finds no events")
    say(f"running {DAG_ID} over {moment.hour:%Y-%m-%d %H:%M} UTC and the hour after")
    state = instance.wait(DAG_ID, run_id)
    say(f"the run ended in {state}: it must fail while a recording that could be recovered is not safe")
    print_tasks(instance, DAG_ID, run_id)
    return run_id


def run_reconcile(instance: EmbeddedAirflow) -> str:
    """Let the scheduler run what asks LiveKit's API, and return the run's id."""
    say("the webhook of one recording was lost on its way, so no event of it is stored")
    instance.await_dag(RECONCILE_DAG_ID)
    was_played = instance.api("GET", f"dags/{RECONCILE_DAG_ID}/dagRuns")["dag_runs"]
    instance.unpause(RECONCILE_DAG_ID)
    if was_played:
        # Of a demo that was played before: its schedule has nothing to do for the next half hour.
        run_id = instance.trigger(RECONCILE_DAG_ID)
    else:
        while not (runs := instance.api("GET", f"dags/{RECONCILE_DAG_ID}/dagRuns")["dag_runs"]):
            time.sleep(0.5)
        run_id = str(runs[0]["dag_run_id"])
    say(f"unpaused {RECONCILE_DAG_ID}: it asks LiveKit's API for all backups of the last 7 days")
    state = instance.wait(RECONCILE_DAG_ID, run_id)
    say(f"the run ended in {state}: it must fail while a backup is at risk")
    print_tasks(instance, RECONCILE_DAG_ID, run_id)
    return run_id


def print_tasks(instance: EmbeddedAirflow, dag_id: str, run_id: str) -> None:
    """Print a run's tasks, their states and their labels."""
    for task in sorted(instance.task_instances(dag_id, run_id), key=lambda task: task["start_date"] or "~"):
        print(f"          {task['state']:<16} {task['task_id']:<28} {task['rendered_map_index'] or ''}")


def check_unannounced(client: Any, recording: Recording, statement: dict[str, Any]) -> int:
    """Hold the recording without a webhook against its original; return 1 unless it landed, and reconcile says so."""
    [filename] = recording.files
    uri = f"s3://{RECORDINGS}/recovered/dt={recording.started_at:%Y-%m-%d}/{recording.egress_id}/{filename}"
    line = next((line for line in statement["backups"] if line["egress_id"] == recording.egress_id), {})
    right = line.get("state") == "safe" and bool(line.get("found_by_reconcile"))
    right = right and sha256_of(client, uri) == recording.sha256(filename)
    verdict = "landed, and equals the original" if right else "NOT AS IT SHOULD BE"
    print(f"{'  ' if right else '! '}{filename}, whose webhook was lost: {verdict}")
    return int(not right)


def read_report(client: Any, dag_id: str, run_id: str) -> dict[str, Any]:
    """Print the stored report and return it as data."""
    prefix = f"recovered/_livekit_backup/runs/{dag_id}/"
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=RECORDINGS, Prefix=prefix)
    for page in pages:
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("report.json"):
                continue
            report = json.load(client.get_object(Bucket=RECORDINGS, Key=item["Key"])["Body"])
            if report["run_id"] == run_id:
                text = client.get_object(Bucket=RECORDINGS, Key=item["Key"].removesuffix("json") + "txt")
                print(f"\nThe report, as stored at s3://{RECORDINGS}/{item['Key'].removesuffix('json')}txt:\n")
                print(text["Body"].read().decode())
                return dict(report)
    raise SystemExit(f"the run {run_id} stored no report")


def print_table(
    client: Any, recordings: list[Recording], expected: dict[tuple[str, str], str], report: dict[str, Any]
) -> int:
    """Hold every file against its original; return how many are not what they should be."""
    lines = {(line["egress_id"], line["filename"]): line for line in report["lines"]}
    originals = {
        (recording.egress_id, name): recording.sha256(name) for recording in recordings for name in recording.files
    }
    wrong = len(lines.keys() ^ expected.keys())
    print("Checked against the originals:\n")
    print(f"  {'file':<44} {'expected':<12} {'outcome':<12} sha256 of the landed object")
    for key, outcome in expected.items():
        line = lines.get(key, {"outcome": "(none)", "landed_uri": ""})
        verdict, right = "", line["outcome"] == outcome
        if outcome == "landed" and line["landed_uri"]:
            digest = sha256_of(client, line["landed_uri"])
            right = right and digest == originals[key]
            verdict = f"{digest[:16]}… {'equals the original' if digest == originals[key] else 'DIFFERS'}"
        wrong += not right
        print(f"{'  ' if right else '! '}{key[1]:<44} {outcome:<12} {line['outcome']:<12} {verdict}")
    return wrong


def sha256_of(client: Any, uri: str) -> str:
    """Read an object back and hash it."""
    bucket, key = split_uri(uri)
    digest = hashlib.sha256()
    for chunk in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1024 * 1024):
        digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
