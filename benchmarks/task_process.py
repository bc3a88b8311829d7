"""Runs one task's operators in a process of its own and prints the process's peak memory.

Usage: ``python task_process.py idle``, or ``python task_process.py recover BUNDLE`` with a bundle's id in the ledger.
Settings come from the environment, as in Airflow.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from types import SimpleNamespace
from typing import Any

from airflow.sdk import DAG

from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator


def context() -> Any:
    ti = SimpleNamespace(dag_id="bench", run_id="bench", task_id="download", map_index=0, try_number=1)
    return {"ti": ti, "params": {}}


def main() -> None:
    began = time.monotonic()
    result: dict[str, Any] = {}
    with DAG("bench", schedule=None):
        if sys.argv[1] == "recover":
            DownloadFilesOperator(task_id="download", bundle=sys.argv[2]).execute(context())
            result = VerifyAndLandOperator(task_id="land", bundle=sys.argv[2]).execute(context())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "peak_mib": usage.ru_maxrss / 1024,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "seconds": time.monotonic() - began,
                "result": result,
            }
        )
    )


if __name__ == "__main__":
    main()
