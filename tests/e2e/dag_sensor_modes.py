"""The sensor without deferral: poking in a worker, and rescheduled between pokes."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from livekit_backup.sensors.backup_event import BackupEventSensor

with DAG(
    "sensor_modes",
    schedule=None,
    params={"start": "", "end": "", "egress_ids": []},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
):
    for mode in ("poke", "reschedule"):
        BackupEventSensor(task_id=mode, mode=mode, deferrable=False, poke_interval=3, timeout=120)
