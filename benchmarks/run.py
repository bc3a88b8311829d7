"""``make bench``: runs every benchmark, or those named, and prints their tables.

Each is a module with ``measure()``, which returns a table or several. With ``--write`` the tables replace
what stands in docs/performance.md between ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from local_server import end_gracefully
from machine import describe_machine
from table import Table

BENCHMARKS = (
    "import_cost",
    "task_memory",
    "transfers",
    "transfer_memory",
    "resume",
    "parallel_ranges",
    "receiver",
    "ingest",
    "floods",
)
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("names", nargs="*", default=BENCHMARKS, help=f"of {', '.join(BENCHMARKS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
        return 2
    # Servers and scratch folders end with their contexts, so let these end too.
    end_gracefully(with_stdin=False)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    with tempfile.TemporaryDirectory(prefix="livekit-backup-bench-") as home:
        os.environ.setdefault("AIRFLOW_HOME", home)
        return _run(arguments.names, write=arguments.write)


def _run(names: list[str], *, write: bool) -> int:
    machine = describe_machine()
    print(f"{machine}\n")
    missed = 0
    for name in names:
        measured = importlib.import_module(name).measure()
        tables = [measured] if isinstance(measured, Table) else measured
        text = "\n".join(table.text for table in tables)
        print(text, flush=True)
        if write:
            _write(name, f"{datetime.now(UTC):%Y-%m-%d}, {machine}.\n\n{text}")
        missed += not all(table.reached for table in tables)
    return 1 if missed else 0


def _write(name: str, text: str) -> None:
    begin, end = f"<!-- bench:{name} -->\n", f"<!-- /bench:{name} -->"
    document = DOCUMENT.read_text()
    between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not between.search(document):
        print(f"{DOCUMENT.name} has no place for {name}")
        return
    DOCUMENT.write_text(between.sub(lambda _: f"{begin}{text}{end}", document))


if __name__ == "__main__":
    sys.exit(main())
