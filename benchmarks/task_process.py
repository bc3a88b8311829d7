"""Runs one task's operator in a process of its own and prints the process's peak memory.

Usage: ``python task_process.py idle``, or ``python task_process.py recover FILE.json`` with a
:class:`RecordingFile` as JSON. Settings come from the environment, as in Airflow.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.sdk import DAG

from livekit_backup.operators import recover_file


def context() -> Any:
    ti = SimpleNamespace(dag_id="bench", run_id="bench", task_id="download", map_index=0, try_number=1)
    return {"ti": ti, "params": {}}


def main() -> None:
    began = time.monotonic()
    result: dict[str, Any] = {}
    with DAG("bench", schedule=None):
        if sys.argv[1] == "recover":
            file = json.loads(Path(sys.argv[2]).read_text())
            upload = recover_file.DownloadFileOperator(task_id="download", file=file).execute(context())
            result = recover_file.VerifyAndLandOperator(task_id="land", file=file, upload=upload).execute(context())
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
