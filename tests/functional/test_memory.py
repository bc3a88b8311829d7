"""Memory does not grow with a recording's size. The benchmark does the same with 5 GiB."""

from __future__ import annotations

import sys

import pytest

from ..conftest import ROOT

MIB = 1024 * 1024


def test_recovering_a_large_file_stays_within_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in (
        "AIRFLOW_CONN_AWS_DEFAULT",
        *(f"AIRFLOW__LIVEKIT_BACKUP__{key}" for key in ("INBOX", "WAREHOUSE", "ALLOWED_HOSTS")),
    ):
        monkeypatch.setenv(name, "")
    import task_memory

    table = task_memory.measure_sizes((384 * MIB,))
    assert table.reached, table.text
    sys.modules.pop("task_memory")
