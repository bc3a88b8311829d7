"""A run with ``verify = strict`` and ``probe`` on: real media, media that lost its end, and a file in parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from livekit_backup.testing.synthetic_bytes import LiteralBytes

from ..media_samples import SECONDS, damaged, media
from .conftest import Site

DAG_ID = "careful_recovery"
HOUR = timedelta(hours=1)
MIB = 1024 * 1024


def test_strict_and_probe_read_what_landed_and_name_what_is_damaged(site: Site, hours: Iterator[datetime]) -> None:
    hour = next(hours)
    pytest.importorskip("av")
    variants = {"careful/good.mp4": media("mp4"), "careful/cut.ogg": damaged(media("ogg"))["cut in half"]}
    started = hour + timedelta(minutes=5)
    for name, data in variants.items():
        recording = site.livekit.record_file(
            name, size=len(data), started_at=started, ended_at=started + timedelta(seconds=SECONDS + 2)
        )
        recording.files[name].content = LiteralBytes(data)
        site.store(recording, hour)
    site.store(site.livekit.record_file("careful/long.mp4", size=11 * MIB), hour)
    site.airflow.await_dag(DAG_ID)
    window = {"start": hour.isoformat(), "end": (hour + HOUR).isoformat()}
    run_id = site.airflow.trigger(DAG_ID, conf=window)
    assert site.airflow.wait(DAG_ID, run_id) == "success"
    entries = [json.loads(body) for key, body in site.ledger_objects() if "_livekit_backup/files/" in key]
    careful = {entry["filename"]: entry for entry in entries if entry["attempt"]["dag_id"] == DAG_ID}
    originals = {name: recording.sha256(name) for recording in site.stored for name in recording.files}
    assert {name: entry["sha256"] for name, entry in careful.items()} == {
        name: originals[name] for name in (*variants, "careful/long.mp4")
    }
    assert all(entry["verified_by"][-2:] == ["read_back", "probe"] for entry in careful.values())
    assert careful["careful/good.mp4"]["suspect"] == []
    assert careful["careful/cut.ogg"]["suspect"]
    assert careful["careful/long.mp4"]["suspect"], "its bytes are no media"
    suspects = {line["filename"]: line.get("suspect") for line in site.report(run_id)["lines"]}
    assert {name for name, suspect in suspects.items() if suspect} == {"careful/cut.ogg", "careful/long.mp4"}
