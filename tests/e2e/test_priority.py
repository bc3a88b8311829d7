"""Where slots are short the run about the oldest window goes first, and one about a dead window last."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from .conftest import Site

DAG_ID = "priority"
AGES = {"young": timedelta(hours=1), "dead": timedelta(days=30), "old": timedelta(days=5)}
SECONDS = 120.0


def test_the_oldest_window_whose_links_live_goes_first(site: Site) -> None:
    airflow = site.airflow
    airflow.await_dag(DAG_ID)
    airflow.api("POST", "pools", {"name": "one_slot", "slots": 0, "include_deferred": False})
    now = datetime.now(UTC).replace(microsecond=0)
    runs = {
        name: airflow.trigger(DAG_ID, dag_run_id=f"backfill_of_{name}__{(now - age).isoformat()}")
        for name, age in AGES.items()
    }

    def works() -> list[tuple[str, str, str]]:
        return [
            (item["start_date"] or "", name, item["state"])
            for name, run_id in runs.items()
            for item in airflow.task_instances(DAG_ID, run_id)
            if item["task_id"] == "work" and item["map_index"] >= 0
        ]

    until = time.monotonic() + SECONDS
    while [state for _, _, state in works()] != ["scheduled"] * 6:
        assert time.monotonic() < until, works()
        time.sleep(0.5)
    airflow.api("PATCH", "pools/one_slot", {"name": "one_slot", "slots": 1, "include_deferred": False})
    for run_id in runs.values():
        assert airflow.wait(DAG_ID, run_id) == "success"
    assert [name for _, name, _ in sorted(works())] == ["old", "old", "young", "young", "dead", "dead"]
