"""Moves recordings with one engine and prints what that took: ``python engine_process.py ENGINE JOBS.json``.

What is measured begins after the imports. Children count, for rclone is one.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engines import ENGINES, Job


def main() -> None:
    asked = json.loads(Path(sys.argv[2]).read_text())
    jobs = [Job(**job) for job in asked["jobs"]]
    move = ENGINES[sys.argv[1]]()
    idle_kib, cpu, began = _peak_kib(resource.RUSAGE_SELF), _cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(asked["at_a_time"]) as pool:
        list(pool.map(move, jobs))
    taken = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": _cpu_seconds() - cpu,
        "idle_mib": idle_kib / 1024,
        "peak_mib": max(_peak_kib(resource.RUSAGE_SELF), _peak_kib(resource.RUSAGE_CHILDREN)) / 1024,
    }
    print(json.dumps(taken), flush=True)


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_kib(who: int) -> int:
    return resource.getrusage(who).ru_maxrss


if __name__ == "__main__":
    main()
