"""The shipped recovery DAG, with all that can be looked at."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import airflow.sdk
from airflow.sdk import DAG


def careful(**options: Any) -> DAG:
    changed = {"dag_id": "careful_recovery", "schedule": None, "is_paused_upon_creation": False}
    default_args = {**options["default_args"], "verify": "strict", "probe": True}
    return DAG(**{**options, **changed, "default_args": default_args})


airflow.sdk.DAG = careful  # type: ignore[misc,assignment]
try:
    dag = runpy.run_path(str(Path(__file__).with_name("livekit_backup_recovery.py")))["dag"]
finally:
    airflow.sdk.DAG = DAG  # type: ignore[misc]
