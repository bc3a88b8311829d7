"""The shipped recovery DAG by days: a week's hours are 168 runs, of which a test needs seven."""

from __future__ import annotations

import os
import runpy
from typing import Any

import airflow.sdk
from airflow.sdk import DAG, CronDataIntervalTimetable


def daily(**options: Any) -> DAG:
    changed = {"dag_id": "daily_recovery", "schedule": CronDataIntervalTimetable("0 0 * * *", timezone="UTC")}
    return DAG(**{**options, **changed})


airflow.sdk.DAG = daily  # type: ignore[misc,assignment]
try:
    dag = runpy.run_path(os.environ["SHIPPED_DAG"])["dag"]
finally:
    airflow.sdk.DAG = DAG  # type: ignore[misc]
