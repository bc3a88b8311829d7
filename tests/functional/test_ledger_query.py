"""The README's query over the ledger, run by a real DuckDB."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from livekit_backup.testing import FakeLiveKit, Fault

from ..conftest import ROOT
from .test_recovery import Pipeline, pipeline  # noqa: F401

SQL = re.compile(r"```sql\n(.*?)```", re.DOTALL)
PREFIX = "s3://acme-recordings/recovered/_livekit_backup"


def test_one_query_answers_what_is_safe(
    pipeline: Pipeline,  # noqa: F811
    livekit: FakeLiveKit,
    tmp_path: Path,
) -> None:
    good = livekit.record_file("good.mp4", size=1000)
    bad = livekit.record_file("bad.mp4", size=500)
    livekit.break_(bad, Fault.WRONG_BYTES)
    for recording in (good, bad):
        pipeline.store_event(recording.event())
    pipeline.run()
    base = f"{pipeline.settings.ledger}/files"
    for uri in pipeline.store.list_keys(base):
        copy = tmp_path / "files" / uri.removeprefix(base).lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(pipeline.store.get(uri) or b"")
        assert copy.read_bytes().count(b"\n") == 1, "Athena reads a record a line"

    (query,) = SQL.findall((ROOT / "README.md").read_text())
    assert PREFIX in query
    rows = duckdb.sql(query.replace(PREFIX, str(tmp_path))).fetchall()

    assert [row[:3] for row in rows] == [("corrupt", 1, 500), ("landed", 1, 1000)]
