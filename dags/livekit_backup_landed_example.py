"""An example to copy: runs whenever recordings have landed, and handles each of them.

Starts paused. Its schedule is the asset that `livekit_backup_recovery` updates when recordings land, and no run
without any does. Put your own work where this one writes a line: a transcription, an entry in a database, a message.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from airflow.sdk import DAG, task

from livekit_backup.operators.report import RECORDINGS

log = logging.getLogger(__name__)

with DAG(
    dag_id="livekit_backup_landed_example",
    description="Example: handles each recording that has landed",
    doc_md=__doc__,
    schedule=[RECORDINGS],
    start_date=datetime(2024, 11, 1),  # noqa: DTZ001 - Airflow reads it as UTC
    catchup=False,
    is_paused_upon_creation=True,
    tags=["livekit", "backup", "example"],
    default_args={"retries": 4, "retry_exponential_backoff": 2},
) as dag:

    @task
    def handle_landed(triggering_asset_events: Any = None) -> dict[str, Any]:
        """Handle every recording of the events that started this run, of a flood too."""
        from livekit_backup.hooks.landed_recordings import landed_recordings

        handled = 0
        rooms: set[str] = set()
        for recording in landed_recordings(triggering_asset_events.get(RECORDINGS, ())):
            log.info("room %r: %s, %s bytes", recording.room_name, recording.uri, recording.size)
            handled += 1
            rooms.add(recording.room_name)
        return {"handled": handled, "rooms": sorted(rooms)[:20]}

    handle_landed()
