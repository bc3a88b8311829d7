"""A dozen faults at once, in a real Airflow on a real database and a real store, while their parts are killed too.

On PostgreSQL where that is installed, else on SQLite, of which no database process can be killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from livekit_backup.testing import FakeLiveKit, Fault, Recording
from livekit_backup.testing.embedded_airflow import AirflowApiError
from livekit_backup.testing.embedded_s3 import EmbeddedS3

from .airflow_parts import AirflowParts, crash_database
from .conftest import DAG_ID, Site, iter_hours
from .databases import Database, impatient_site, open_database

HOUR = timedelta(hours=1)
MIB = 1024 * 1024
WAIT_SECONDS = 120.0
RUN_SECONDS = 400.0
FINAL = ("success", "failed")


@dataclass(frozen=True)
class Case:
    """A fault at the source, and what has to become of the recording."""

    name: str
    faults: tuple[tuple[Fault, dict[str, Any]], ...]
    outcome: str = "landed"
    reason: str = ""
    size: int = 11 * MIB


CASES = (
    Case("reset", ((Fault.RESET, {"times": 1, "at": 0.4}),)),
    Case("cut_short", ((Fault.CUT_SHORT, {"times": 2, "at": 0.7}),)),
    Case("slow_down", ((Fault.SERVER_ERROR, {"times": 3, "status": 503}),)),
    Case("internal_error", ((Fault.SERVER_ERROR, {"times": 2, "status": 500}),), size=MIB),
    Case("too_many", ((Fault.TOO_MANY_REQUESTS, {"times": 2, "retry_after": 1}),), size=MIB),
    Case("flipped_once", ((Fault.WRONG_BYTES, {"times": 1, "at": 0.3}),)),
    Case("longer", ((Fault.LONGER, {"times": 1}),), size=MIB),
    Case("html_once", ((Fault.HTML_ERROR, {"times": 1}),)),
    Case("wrong_range", ((Fault.RESET, {"times": 1, "at": 0.5}), (Fault.WRONG_RANGE, {"times": 1, "after": 1}))),
    Case("always_flipped", ((Fault.WRONG_BYTES, {"at": 0.5}),), "corrupt", "bytes"),
    Case("truncated", ((Fault.TRUNCATED, {"at": 0.5}),), "corrupt", "bytes"),
    Case("expired", ((Fault.EXPIRED, {}),), "expired", "expired"),
    Case("gone", ((Fault.NOT_FOUND, {}),), "missing", "nothing is stored there"),
    Case("moved", ((Fault.REDIRECT, {}),), "refused", "redirect"),
)


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with open_database() as database:
        yield database


@pytest.fixture(scope="module")
def faulty_site(
    s3_server: EmbeddedS3, s3_client: Any, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with impatient_site("faults", s3_server, s3_client, database.environment, tmp_path_factory) as site:
        yield site


def test_every_fault_ends_in_its_own_outcome_while_parts_of_everything_are_killed(
    faulty_site: Site, database: Database, s3_server: EmbeddedS3
) -> None:
    site, hour = faulty_site, next(iter_hours())
    recordings = {case.name: _broken(site.livekit, case) for case in CASES}
    for recording in recordings.values():
        site.store(recording, hour)
    window = {"start": hour.isoformat(), "end": (hour + HOUR).isoformat()}
    # Of two runs over one window each has to find the same.
    for run_id in ("faults-0", "faults-1"):
        site.airflow.trigger(DAG_ID, conf=window, dag_run_id=run_id)
    with AirflowParts(site.airflow) as parts:
        _await_running(site, "faults-0")
        s3_server.kill()
        parts.kill("scheduler")
        s3_server.start()
        parts.revive()
        if database.port:
            _await_running(site, "faults-0", or_over=True)
            crash_database(database.port)
        states = {run_id: _wait(site, run_id, parts) for run_id in ("faults-0", "faults-1")}
        assert states == {"faults-0": "failed", "faults-1": "failed"}, [site.states(run_id) for run_id in states]
        for run_id in states:
            _is_right(site, run_id, recordings)
        assert not site.s3.list_multipart_uploads(Bucket=site.recordings).get("Uploads", []), "nothing is left open"
        _a_killed_triggerer_wakes_its_sensor(site, parts)


def _a_killed_triggerer_wakes_its_sensor(site: Site, parts: AirflowParts) -> None:
    now = datetime.now(UTC)
    recording = site.livekit.record_file("egress/deferred.mp4", size=MIB)
    site.store(recording, now)
    window = {"start": (now - HOUR).isoformat(), "end": (now + timedelta(seconds=20)).isoformat()}
    site.airflow.trigger(DAG_ID, conf=window, dag_run_id="deferred")
    _await(lambda: site.states("deferred").get("wait_for_events") == "deferred", "the sensor is deferred")
    parts.kill("triggerer")
    parts.revive()
    assert _wait(site, "deferred", parts) == "success", site.states("deferred")
    lines = {line["egress_id"]: line for line in site.report("deferred")["lines"]}
    assert lines[recording.egress_id]["outcome"] == "landed"


def _broken(livekit: FakeLiveKit, case: Case) -> Recording:
    recording = livekit.record_file(f"egress/{case.name}.mp4", size=case.size, room_name=case.name)
    for fault, details in case.faults:
        livekit.break_(recording, fault, **details)
    return recording


def _is_right(site: Site, run_id: str, recordings: dict[str, Recording]) -> None:
    lines = {line["egress_id"]: line for line in site.report(run_id)["lines"]}
    assert set(lines) == {recording.egress_id for recording in recordings.values()}
    landed = {key.split("/")[2]: key for key in site.landed() if key.split("/")[2] in lines}
    for case in CASES:
        recording = recordings[case.name]
        line = lines[recording.egress_id]
        # The run that came second to a file says that it had landed.
        outcome = "landed" if line["outcome"] == "already_landed" else line["outcome"]
        assert (case.name, outcome) == (case.name, case.outcome), line
        assert case.reason in line["reason"], line
        assert (recording.egress_id in landed) == (case.outcome == "landed"), case.name
        if case.outcome == "landed":
            body = site.s3.get_object(Bucket=site.recordings, Key=landed[recording.egress_id])["Body"].read()
            assert hashlib.sha256(body).hexdigest() == recording.sha256(next(iter(recording.files))), case.name


def _wait(site: Site, run_id: str, parts: AirflowParts) -> str:
    def state() -> str:
        parts.revive()
        return str(site.airflow.api("GET", f"dags/{DAG_ID}/dagRuns/{run_id}")["state"])

    _await(lambda: state() in FINAL, f"{run_id} has ended", RUN_SECONDS)
    return state()


def _await_running(site: Site, run_id: str, *, or_over: bool = False) -> None:
    def runs() -> bool:
        if or_over and site.airflow.api("GET", f"dags/{DAG_ID}/dagRuns/{run_id}")["state"] in FINAL:
            return True
        states = site.states(run_id)
        return any(state == "running" and task.startswith("recover_files.") for task, state in states.items())

    _await(runs, "a file is on its way")


def _await(done: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # The API answers 500 while its database recovers.
        with contextlib.suppress(AirflowApiError, OSError):
            if done():
                return
        time.sleep(0.5)
    raise AssertionError(f"not in time: {what}")
