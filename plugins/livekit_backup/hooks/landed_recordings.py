"""What landed, for a task of a DAG that is scheduled on it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from livekit_backup.core.landed_extra import landed_in, named_in
from livekit_backup.errors import StorageUnavailableError
from livekit_backup.hooks.configuration import load_settings
from livekit_backup.models.statement import Statement

if TYPE_CHECKING:
    from livekit_backup.core.storage import ObjectStore
    from livekit_backup.models.landed_recording import LandedRecording

log = logging.getLogger(__name__)


def landed_recordings(events: Iterable[Any], *, aws_conn_id: str | None = None) -> Iterator[LandedRecording]:
    """Give every recording that landed by these asset events, each once.

    An event names the first hundred; where more landed, the run's report is read.

    :param events: of the asset ``livekit_backup_recordings``, as ``triggering_asset_events`` has them.
    :param aws_conn_id: to read reports by; unless given, the warehouse's.
    :raises StorageUnavailableError: a report cannot be read.
    """
    seen: set[tuple[str, str]] = set()
    for event in events:
        for recording in _landed_by(event.extra or {}, aws_conn_id):
            # A report that ran again emits its event again.
            mark = (recording.uri, recording.sha256)
            if mark not in seen:
                seen.add(mark)
                yield recording


def _landed_by(extra: dict[str, Any], aws_conn_id: str | None) -> list[LandedRecording]:
    named, report = named_in(extra)
    if not report:
        return named
    body = _store(aws_conn_id or load_settings({}).warehouse_conn_id).get(report)
    if body is None:
        raise StorageUnavailableError(f"{report} is not there, and {extra['files'] - len(named)} recordings with it")
    return landed_in(Statement.model_validate_json(body))


def _store(conn_id: str) -> ObjectStore:
    from livekit_backup.hooks.object_store import S3ObjectStore

    return S3ObjectStore(conn_id)
