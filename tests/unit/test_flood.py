"""A flood: the day when every recording of a company went to backup. Airflow's limits are not touched."""

from __future__ import annotations

import json

from livekit_backup.operators.ingest_events import IngestEventsOperator
from livekit_backup.operators.report import ReportOperator
from livekit_backup.operators.resolve_manifests import ResolveManifestsOperator
from unit.fakes import egress_ended, signed
from unit.test_operators import SOON, bench

__all__ = ["bench"]

MAX_MAP_LENGTH = 1024
SMALL_XCOM = 32 * 1024
"""Bytes. Airflow keeps an XCom in its database and gives it whole to every mapped task."""


def _flood(bench, count, name):
    """Store so many backups of one file each, and return the ids of the bundles and what Airflow is to keep."""
    lines = [
        json.dumps(
            egress_ended(
                f"EG_{number:05}",
                backupStorageUsed=True,
                roomName=f"Room {number}",
                fileResults=[{"filename": name(number), "size": "900", "location": signed(name(number), SOON)}],
            )
        )
        for number in range(count)
    ]
    bench.store.put("s3://b/in/2026/11/20/13/flood.jsonl", "\n".join(lines).encode())
    intake = bench.run(IngestEventsOperator)
    bundles = bench.run(ResolveManifestsOperator, intake=intake)
    report = bench.run(ReportOperator)
    for xcom in (intake, bundles, report):
        assert len(json.dumps(xcom)) <= SMALL_XCOM
    assert len(json.dumps(report)) <= 8 * 1024
    return bundles


def test_ten_thousand_backups_of_one_incident_are_one_run(bench):
    bundles = _flood(bench, 10_000, lambda number: f"egress/{number}.mp4")
    assert 150 <= len(bundles) <= MAX_MAP_LENGTH
    files = [file for bundle in bundles for file in bench.ledger.read_bundle("d", "r", bundle).files]
    assert len({file.key for file in files}) == 10_000
    assert max(len(bench.ledger.read_bundle("d", "r", bundle).files) for bundle in bundles) <= 64


def test_what_is_more_than_a_run_takes_is_named_and_the_rest_can_follow(bench, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "4")
    monkeypatch.setenv("AIRFLOW__LIVEKIT_BACKUP__BUNDLE_FILES", "8")
    bundles = _flood(bench, 40, lambda number: f"egress/{number}.mp4")
    assert len(bundles) == 4
    plan = bench.ledger.read_plan("d", "r")
    assert (len(plan.to_recover), len(plan.accounted)) == (32, 8)
    assert all("clear resolve_manifests" in known.reason for known in plan.accounted)
