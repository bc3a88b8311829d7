"""A recovery run that has not ended while its first link has little time left: Airflow itself raises the alarm."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from livekit_backup.testing import Fault

from .conftest import DAG_ID, Site

HOUR = timedelta(hours=1)
MIB = 1024 * 1024
WAIT_SECONDS = 120.0


def test_a_run_that_misses_its_deadline_is_told_of_and_shown_and_still_lands(
    site: Site, hours: Iterator[datetime]
) -> None:
    hour, recording = next(hours), site.livekit.record_file("egress/late.mp4", size=12 * MIB)
    site.livekit.break_(recording, Fault.SLOW, bytes_per_second=MIB // 2)
    site.store(recording, hour)
    # Half of the time that is left is the run's: five seconds, and the download takes longer.
    dies = datetime.now(UTC) + timedelta(seconds=10)
    window = {"start": hour.isoformat(), "end": (hour + HOUR).isoformat()}
    run_id = site.airflow.trigger(DAG_ID, conf={**window, "nearest_deadline": dies.isoformat()})
    told = re.compile(rf"the first link of recovery run {re.escape(run_id)} of {DAG_ID} dies in -?\d")
    _await_log(site, told)
    [missed] = [known for known in _deadlines(site, run_id) if known["missed"]]
    assert datetime.fromisoformat(missed["deadline_time"]) < dies
    assert site.airflow.wait(DAG_ID, run_id) == "success"
    assert site.report(run_id)["lines"][0]["outcome"] == "landed"


def test_a_run_in_time_misses_nothing(site: Site, hours: Iterator[datetime]) -> None:
    hour, recording = next(hours), site.livekit.record_file("egress/early.mp4", size=MIB)
    site.store(recording, hour)
    run_id, state = site.run(hour, hour + HOUR)
    assert state == "success"
    assert not [known for known in _deadlines(site, run_id) if known["missed"]]


def _deadlines(site: Site, run_id: str) -> list[dict[str, str]]:
    run = run_id.replace(":", "%3A").replace("+", "%2B")
    return list(site.airflow.api("GET", f"/ui/dags/{DAG_ID}/dagRuns/{run}/deadlines")["deadlines"])


def _await_log(site: Site, told: re.Pattern[str]) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        for file in site.airflow.home.rglob("*.log"):
            if told.search(file.read_text(errors="replace")):
                return
        time.sleep(1)
    raise AssertionError(f"nothing in the logs is like {told.pattern}\n{site.airflow.log_tail()}")
