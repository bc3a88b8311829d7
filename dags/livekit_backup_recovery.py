"""Recovers LiveKit Cloud's backup recordings: one run takes in one hour of stored webhook events."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, CronDataIntervalTimetable, Param, task_group
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert

from livekit_backup.notifications.link_deadline import NearestLinkDeadline
from livekit_backup.notifications.too_slow import recovery_too_slow
from livekit_backup.operators.ingest_events import IngestEventsOperator
from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator
from livekit_backup.operators.report import AllSafeOperator, ReportOperator
from livekit_backup.operators.resolve_manifests import ResolveManifestsOperator
from livekit_backup.sensors.backup_event import BackupEventSensor

# Every task checks the params twice; by the newest draft of JSON Schema that takes three times as long.
DRAFT: dict[str, Any] = {"$schema": "http://json-schema.org/draft-07/schema#"}

with DAG(
    dag_id="livekit_backup_recovery",
    description="Recovers LiveKit Cloud's backup recordings before their links expire",
    doc_md=__doc__,
    # Data intervals are whole hours; a plain cron string would give intervals of no length.
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2024, 11, 1),  # noqa: DTZ001 - Airflow reads it as UTC
    catchup=False,
    max_active_runs=4,
    tags=["livekit", "backup"],
    # A run that has not ended a day before the first link of its window dies is shown under /deadlines, and told of.
    deadline=DeadlineAlert(
        reference=NearestLinkDeadline(),
        interval=timedelta(0),
        callback=AsyncCallback(recovery_too_slow),
    ),
    default_args={
        # LiveKit's links live for days, so a passing fault has time to pass; what is final is not retried at all.
        "retries": 7,
        # For faults that are not this package's: its own say by their kind when they are retried.
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=15),
        # The run whose links die first goes first.
        "weight_rule": "livekit_backup.operators.deadline_weight.NearestDeadlineWeight",
    },
    # In no sections: the form would show them closed.
    params={
        "start": Param(
            None,
            type=["null", "string"],
            format="date-time",
            **DRAFT,
            title="From",
            description="Take in the backups whose event arrived from this moment on. Empty: the hour before this run; "
            "with egress ids, the last 7 days.",
        ),
        "end": Param(
            None,
            type=["null", "string"],
            format="date-time",
            **DRAFT,
            title="To",
            description="Up to this moment. Empty: up to now.",
        ),
        "egress_ids": Param(
            [],
            type=["null", "array"],
            items={"type": "string"},
            **DRAFT,
            title="Egress ids",
            description="Recover these alone, one per line, such as EG_AbCdEf123456. Empty: all in the window.",
        ),
        "plan_only": Param(
            False,
            type="boolean",
            **DRAFT,
            title="Plan only",
            description="A dry run: prints what would be recovered, with sizes, hours left and target keys, into the "
            "log of ingest_events. Writes nothing.",
        ),
    },
) as dag:
    wait_for_events = BackupEventSensor(task_id="wait_for_events", deferrable=True)
    ingest_events = IngestEventsOperator(task_id="ingest_events", execution_timeout=timedelta(hours=2))
    resolve_manifests = ResolveManifestsOperator(
        task_id="resolve_manifests", intake=ingest_events.output, execution_timeout=timedelta(hours=2)
    )

    @task_group(group_id="recover_files")
    def recover_files(bundle: str) -> None:
        """One file, or a bundle of small ones: fetched unseen, then verified and made visible."""
        download = DownloadFilesOperator(task_id="download", bundle=bundle)
        # What it found is in the ledger, for the report; nothing here reads it as an XCom, which is a request a file.
        download >> VerifyAndLandOperator(task_id="verify_and_land", do_xcom_push=False)

    recovered = recover_files.expand(bundle=resolve_manifests.output)
    report = ReportOperator(task_id="report")
    all_safe = AllSafeOperator(task_id="all_safe", report=report.output)

    wait_for_events >> ingest_events
    recovered >> report
