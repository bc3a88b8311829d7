"""The ledger's document."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import FileKind


def test_round_trip_in_utc():
    entry = LedgerEntry(
        egress_id="EG_1",
        run=5,
        filename="a.mp4",
        kind=FileKind.FILE,
        started=datetime(2026, 1, 1, tzinfo=UTC),
        outcome=Outcome.LANDED,
        verified_by=("length",),
        recorded_at=datetime(2026, 1, 1, 1, tzinfo=UTC),
        attempt=Attempt(dag_id="d", run_id="r"),
    )
    text = entry.model_dump_json()
    assert LedgerEntry.model_validate_json(text) == entry
    assert json.loads(text)["outcome"] == "landed"
    assert json.loads(text)["recorded_at"] == "2026-01-01T01:00:00Z"
