"""Holds LiveKit's API against the inbox and the ledger: every backup is landed, or named before its link dies."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from livekit_backup.operators.reconcile import ReconcileOperator, ReconciliationReportOperator, RecoverMissedOperator

with DAG(
    dag_id="livekit_backup_reconcile",
    description="Finds the backups that no webhook brought, has them recovered, and states what is safe",
    doc_md=__doc__,
    # Well within the 24 hours for which open-source servers know of an egress, and beside the hourly runs.
    schedule="30 */6 * * *",
    start_date=datetime(2024, 11, 1),  # noqa: DTZ001 - Airflow reads it as UTC
    catchup=False,
    max_active_runs=1,
    # Deferred tasks have no time limit of their own: a recovery run that never ends must not keep the next one away.
    dagrun_timeout=timedelta(hours=5, minutes=30),
    tags=["livekit", "backup"],
    default_args={
        "retries": 4,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=15),
    },
    # In no sections: the form would show them closed.
    params={
        "start": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="From",
            description="Egresses that ended from here on. Empty: the 8 days before the end.",
        ),
        "end": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="To",
            description="Egresses that ended before. Empty: now.",
        ),
    },
) as dag:
    reconcile = ReconcileOperator(task_id="reconcile", execution_timeout=timedelta(hours=2))
    recover_missed = RecoverMissedOperator(
        task_id="recover_missed",
        found=reconcile.output,
        deferrable=True,
        poke_interval=15,
    )
    statement = ReconciliationReportOperator(task_id="statement")

    reconcile >> recover_missed >> statement
