"""What the asset event of a run says: what landed, for DAGs that are scheduled on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from livekit_backup.core.storage import split_uri
from livekit_backup.models.landed_recording import LandedRecording
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.statement import Statement, StatementLine

MAX_NAMED = 100
"""An asset event's extra is a database row, and goes to every task of the DAGs below; the report has every name."""


def landed_extra(statement: Statement, report: str) -> dict[str, Any]:
    """Return an asset event's extra: what landed in this run; empty when nothing did.

    :param report: URI of the statement as JSON, where all of it is named.
    """
    landed = landed_in(statement)
    if not landed:
        return {}
    return {
        "run_id": statement.run_id,
        "files": len(landed),
        "bytes": sum(recording.size or 0 for recording in landed),
        "report": report,
        "rooms": _first(recording.room_name for recording in landed if recording.room_name),
        "egress_ids": _first(recording.egress_id for recording in landed),
        "landed": [recording.model_dump() for recording in landed[:MAX_NAMED]],
    }


def landed_in(statement: Statement) -> list[LandedRecording]:
    """Return what a run has landed, the nearest deadline first."""
    return [_recording(line) for line in statement.lines if line.outcome is Outcome.LANDED]


def named_in(extra: Mapping[str, Any]) -> tuple[list[LandedRecording], str]:
    """Return what an extra names, and the URI of the report where it does not name all."""
    named = [LandedRecording.model_validate(item) for item in extra.get("landed", ())]
    return named, str(extra.get("report", "")) if extra.get("files", 0) > len(named) else ""


def _recording(line: StatementLine) -> LandedRecording:
    return LandedRecording(
        egress_id=line.egress_id,
        room_name=line.room_name,
        uri=line.landed_uri,
        key=split_uri(line.landed_uri)[1],
        size=line.size,
        sha256=line.sha256,
    )


def _first(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))[:MAX_NAMED]
