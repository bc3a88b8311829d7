"""Tells people of backups that are not safe, while there is time to save them. Who is told: docs/alarms.md."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG

from livekit_backup.operators.raise_alarms import RaiseAlarmsOperator

with DAG(
    dag_id="livekit_backup_alarms",
    description="Raises an alarm when a backup is not safe and its link will soon die",
    doc_md=__doc__,
    # When the hour's recovery has had its time.
    schedule="45 * * * *",
    start_date=datetime(2024, 11, 1),  # noqa: DTZ001 - Airflow reads it as UTC
    catchup=False,
    max_active_runs=1,
    # A run that hangs must not keep the next one away.
    dagrun_timeout=timedelta(minutes=55),
    tags=["livekit", "backup"],
    default_args={
        "retries": 4,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=15),
    },
) as dag:
    RaiseAlarmsOperator(task_id="raise_alarms", execution_timeout=timedelta(minutes=30))
