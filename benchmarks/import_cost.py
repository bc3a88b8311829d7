"""What the package adds to the time that Airflow itself takes to import and to read a DAG file."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from table import Table

ROUNDS = 15
GOAL_SECONDS = 0.3
DAG_FILE = Path(__file__).resolve().parent.parent / "dags" / "livekit_backup_recovery.py"
# The same names from Airflow as the DAG file and the operators use, and nothing of ours.
AIRFLOW = (
    "from airflow.sdk import *\n"
    "from airflow.sdk import DAG, Asset, BaseOperator, BaseSensorOperator, CronDataIntervalTimetable, Param,"
    " PokeReturnValue, conf, task_group\n"
    "from airflow.sdk.exceptions import AirflowFailException\n"
    "from airflow.triggers.base import BaseTrigger\n"
)
OURS = f"{AIRFLOW}import livekit_backup, runpy\nrunpy.run_path({str(DAG_FILE)!r})\n"


def measure() -> Table:
    programs = {"airflow": AIRFLOW, "airflow + livekit_backup + DAG file": OURS}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        _run(program)
    for _ in range(ROUNDS):
        for name, program in programs.items():
            seconds[name].append(_run(program))
    plain, with_ours = (statistics.median(seconds[name]) for name in programs)
    rows = [
        [name, f"{statistics.median(taken):.3f}", f"{min(taken):.3f}", f"{max(taken):.3f}"]
        for name, taken in seconds.items()
    ]
    rows.append(["difference of medians", f"{with_ours - plain:.3f}", "", ""])
    return Table(
        "Import cost",
        f"at most {GOAL_SECONDS} s over airflow",
        with_ours - plain <= GOAL_SECONDS,
        ["process", "median s", "min", "max"],
        rows,
    )


def _run(program: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return time.perf_counter() - began
