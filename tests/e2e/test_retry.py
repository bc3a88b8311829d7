"""What Airflow does with each kind of error, and what a person finds at the end of a failed task's log."""

from __future__ import annotations

import contextlib
import urllib.parse
from typing import Any

from livekit_backup.testing.embedded_airflow import AirflowApiError

from .conftest import Site

DAG_ID = "retry"
EXPIRED = "LinkExpiredError: livekit.example/a.mp4: the link expired 2026-11-20 10:00 UTC; only LiveKit's support could still have it"
BUSY = "SourceUnavailableError: livekit.example/a.mp4 answered 503; "


def _trigger(site: Site) -> str:
    """Start a run, again where SQLite is locked by the runs that the hour's schedule has just made."""
    for _ in range(5):
        with contextlib.suppress(AirflowApiError):
            return site.airflow.trigger(DAG_ID)
    raise AssertionError("Airflow takes no run")


def _log(site: Site, run_id: str, task: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Return the lines that the UI shows without a click: those in no group, and none that only DEBUG brings."""
    run = urllib.parse.quote(run_id, safe="")
    path = f"dags/{DAG_ID}/dagRuns/{run}/taskInstances/{task['task_id']}/logs/{number}?map_index={task['map_index']}"
    lines = site.airflow.api("GET", f"{path}&full_content=true")["content"]
    shown, depth = [], 0
    for line in lines:
        depth += line["event"].startswith("::group::")
        if line["event"].startswith("::endgroup::"):
            depth = max(0, depth - 1)
        elif depth == 0 and line.get("level") != "debug":
            shown.append(line)
    return shown


def test_final_errors_fail_at_once_and_passing_ones_are_retried_and_each_says_why_in_its_last_line(site: Site) -> None:
    airflow = site.airflow
    airflow.await_dag(DAG_ID)
    run_id = _trigger(site)
    assert airflow.wait(DAG_ID, run_id, 120.0) == "failed", "the passing error is retried in seconds, not in an hour"
    tasks = {(task["task_id"], task["map_index"]): task for task in airflow.task_instances(DAG_ID, run_id)}
    assert {key: task["try_number"] for key, task in tasks.items()} == {
        ("final", -1): 1,
        ("mapped", 0): 1,
        ("mapped", 1): 2,
    }
    for key in (("final", -1), ("mapped", 0)):
        lines = _log(site, run_id, tasks[key], 1)
        assert lines[-1]["reason"] == EXPIRED
        assert (lines[-2]["event"], lines[-2]["level"]) == (EXPIRED, "error")
        [detail] = next(line for line in lines if line["event"] == "Task failed with exception")["error_detail"]
        assert detail["exc_value"] == EXPIRED.partition(": ")[2].partition(";")[0]
        assert len(detail["frames"]) < 10
        assert not any(frame["name"] == "deep_below" for frame in detail["frames"])
    first, last = (_log(site, run_id, tasks["mapped", 1], number) for number in (1, 2))
    assert first[-1]["action"] == "retry"
    assert first[-1]["reason"].startswith(f"{BUSY}try 2 of 2 follows in ")
    assert last[-2]["event"] == f"{BUSY}clear this task once LiveKit's side answers"
