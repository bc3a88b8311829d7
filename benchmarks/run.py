"""``make bench``: runs every benchmark, or those named, and prints their tables.

Each is a module with ``measure() -> Table``; the text of docs/performance.md quotes them.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import tempfile

BENCHMARKS = ("import_cost", "task_memory")


def main() -> int:
    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="livekit-backup-bench-"))
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    names = sys.argv[1:] or BENCHMARKS
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
        return 2
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}\n")
    missed = 0
    for name in names:
        table = importlib.import_module(name).measure()
        print(table.text, flush=True)
        missed += not table.reached
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
