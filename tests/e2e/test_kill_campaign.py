"""Every kind of task is killed with SIGKILL at random instants, under a real scheduler: the end state is right.

Each kind is killed ``KILLS`` times, 2 unless that is set; ``KILLS=10`` is the whole campaign. It goes on over new
recordings, run after run, until each has been. ``SEED`` repeats the instants of another time, as far as the machine
lets it. On PostgreSQL where that is installed, else on SQLite.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from livekit_backup.testing import Fault, Recording
from livekit_backup.testing.embedded_s3 import EmbeddedS3

from .conftest import DAG_ID, Site, iter_hours
from .databases import impatient_site, open_database
from .task_killer import TaskKiller

KILLS = int(os.environ.get("KILLS", "2"))
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(10**6)))
KINDS = (
    "wait_for_events",
    "ingest_events",
    "resolve_manifests",
    "recover_files.download",
    "recover_files.verify_and_land",
    "report",
    "all_safe",
)
HOUR = timedelta(hours=1)
MIB = 1024 * 1024
RUN_SECONDS = 900.0


@pytest.fixture(scope="module")
def deadly_site(s3_server: EmbeddedS3, s3_client: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with (
        open_database() as database,
        impatient_site("killed", s3_server, s3_client, database.environment, tmp_path_factory) as site,
    ):
        yield site


def test_killed_at_random_instants_every_file_lands_right_and_nothing_is_left(deadly_site: Site) -> None:
    site, hours = deadly_site, iter_hours()
    runs: dict[str, list[Recording]] = {}

    def names() -> dict[str, tuple[str, int, str]]:
        return {
            task["id"]: (task["task_id"], task["map_index"], task["dag_run_id"])
            for run_id in runs
            for task in site.airflow.task_instances(DAG_ID, run_id)
        }

    print(f"SEED={SEED} KILLS={KILLS}")
    began = time.monotonic()
    killer = TaskKiller(dict.fromkeys(KINDS, KILLS), names, site.airflow.home, SEED, most_per_instance=min(KILLS, 5))
    with killer:
        while killer.missing():
            assert len(runs) < KILLS + 2, f"not killed often enough: {killer.missing()}"
            hour = next(hours)
            recordings = _record(site, hour, number=len(runs))
            window = {"start": hour.isoformat(), "end": (hour + HOUR).isoformat()}
            run_id = f"killed-{len(runs)}"
            runs[run_id] = recordings
            site.airflow.trigger(DAG_ID, conf=window, dag_run_id=run_id)
            state = site.airflow.wait(DAG_ID, run_id, RUN_SECONDS)
            print(f"{run_id}: {state} after {time.monotonic() - began:.0f} s, {len(killer.kills)} kills")
            assert state == "success", (site.states(run_id), killer.table())
    print(killer.table())
    assert not killer.faults
    tries = {
        (run_id, task["task_id"], task["map_index"]): task["try_number"]
        for run_id in runs
        for task in site.airflow.task_instances(DAG_ID, run_id)
    }
    print(f"{sum(tries.values())} tries of {len(tries)} task instances in {len(runs)} runs")
    assert sum(tries.values()) - len(tries) >= len(killer.kills) * 0.8, "a kill costs a try, unless it came too late"
    _everything_is_right(site, runs)


def _record(site: Site, hour: datetime, number: int) -> list[Recording]:
    """Store the events of one backup of each kind, which a download takes a while for."""
    folder, livekit = f"egress/{number}", site.livekit
    slowly = [(livekit.record_file(f"{folder}/long.mp4", size=40 * MIB, room_name="Long"), 8 * MIB)]
    for nth in range(3):
        slowly.append((livekit.record_file(f"{folder}/middle-{nth}.mp4", size=11 * MIB + nth), 4 * MIB))
        slowly.append((livekit.record_file(f"{folder}/short-{nth}.ogg", size=MIB + nth), MIB))
    slowly.append((livekit.record_hls(f"{folder}/hls", segments=12), 200_000))
    for recording, bytes_per_second in slowly:
        livekit.break_(recording, Fault.SLOW, bytes_per_second=bytes_per_second)
        site.store(recording, hour)
    return [recording for recording, _ in slowly]


def _everything_is_right(site: Site, runs: dict[str, list[Recording]]) -> None:
    expected = {
        (recording.egress_id, name): recording.sha256(name)
        for recordings in runs.values()
        for recording in recordings
        for name in recording.files
    }
    assert not site.s3.list_multipart_uploads(Bucket=site.recordings).get("Uploads", []), "nothing is left open"
    objects = {
        (key.split("/")[2], key.split("/", 3)[3]): site.s3.get_object(Bucket=site.recordings, Key=key)["Body"].read()
        for key in site.landed()
    }
    assert {place: hashlib.sha256(body).hexdigest() for place, body in objects.items()} == expected
    entries = [json.loads(body) for key, body in site.ledger_objects() if "/_livekit_backup/files/" in key]
    assert sorted((entry["egress_id"], entry["filename"]) for entry in entries) == sorted(expected)
    for entry in entries:
        found = (entry["outcome"], entry["sha256"])
        assert found == ("landed", expected[entry["egress_id"], entry["filename"]]), entry
    events = site.airflow.api("GET", f"assets/events?source_dag_id={DAG_ID}&limit=100")["asset_events"]
    for run_id, recordings in runs.items():
        report = site.report(run_id)
        lines = {(line["egress_id"], line["filename"]): (line["outcome"], line["sha256"]) for line in report["lines"]}
        own = {(recording.egress_id, name) for recording in recordings for name in recording.files}
        assert lines == {place: ("landed", expected[place]) for place in own}
        assert not report["gaps"]
        (event,) = [event for event in events if event["source_run_id"] == run_id]
        assert event["extra"]["files"] == len(own)
