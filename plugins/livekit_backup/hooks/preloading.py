"""Imports what a task needs before there are tasks: LocalExecutor forks them, so each starts with it.

A listener of Airflow's component life cycle. boto3, the amazon provider, awscrt and the readers take half a second of
processor time to import, and S3's description another tenth to read: more than Airflow itself takes for a task.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from livekit_backup.hooks.s3_client import S3Connection

MODULES = (
    "airflow.providers.amazon.aws.hooks.s3",
    # What @task_group brings into every DAG file that has one.
    "airflow.providers.standard.decorators.python",
    "airflow.sdk.definitions.decorators",
    # What every task's templates take.
    "jinja2.ext",
    "livekit_backup.core.file_links",
    "livekit_backup.core.inbox",
    "livekit_backup.core.manifest_client",
    "livekit_backup.core.media_probe",
    "livekit_backup.core.primary_copy",
    "livekit_backup.core.recovering",
    "livekit_backup.core.run_plan",
    "livekit_backup.core.sealing",
    "livekit_backup.core.statements",
    "livekit_backup.core.warehouse_check",
    "livekit_backup.hooks.object_store",
    "livekit_backup.notifications.link_deadline",
    "livekit_backup.notifications.too_slow",
    "livekit_backup.operators.ingest_events",
    "livekit_backup.operators.recover_files",
    "livekit_backup.operators.report",
    "livekit_backup.operators.resolve_manifests",
    "livekit_backup.sensors.backup_event",
)

log = logging.getLogger(__name__)


@hookimpl
def on_starting(component: Any) -> None:
    """Import in the scheduler, before it forks the executor's workers. A fault in it costs speed and nothing else.

    Airflow calls it at the start of every job, before the job knows of which type it is, and of every task; a task
    that was forked has the scheduler's arguments.
    """
    if not hasattr(component, "job_type") or "scheduler" not in sys.argv or not _forks_tasks():
        return
    try:
        preload()
    except Exception as error:  # noqa: BLE001 - the scheduler must start whatever a package of ours lacks
        log.warning("what tasks need was not imported ahead: %s: %s", type(error).__name__, error)


def preload() -> None:
    """Import it all, and do once what takes longer the first time: S3's description, the CAs, a template, a client."""
    for module in MODULES:
        import_module(module)
    import boto3
    from airflow.sdk import DAG

    from livekit_backup.core.http_connections import tls_context
    from livekit_backup.hooks.s3_client import make_ahead, new_session

    tls_context()
    DAG("none", schedule=None).get_template_env().from_string("{{ label }}")
    # Opens no connection; keys of its own keep it from looking for others.
    keys = dict.fromkeys(("aws_access_key_id", "aws_secret_access_key"), "none")
    boto3.session.Session(**keys, botocore_session=new_session()).client("s3", region_name="us-east-1")
    make_ahead(_places_at_hand())


def _places_at_hand() -> Iterator[tuple[S3Connection, str]]:
    """Give the configured connections that stand in the environment: others the scheduler would have to ask for."""
    from airflow.sdk import Connection

    from livekit_backup.hooks.configuration import configured_places
    from livekit_backup.hooks.s3_client import S3Connection

    for conn_id, bucket in configured_places():
        if text := os.environ.get(f"AIRFLOW_CONN_{conn_id.upper()}"):
            read = Connection.from_json if text.lstrip().startswith("{") else Connection.from_uri
            try:
                known = read(text, conn_id)
            except (TypeError, ValueError):
                # The tasks say what is wrong with it; the reason could quote its keys.
                continue
            yield S3Connection(conn_id, known=known), bucket


def _forks_tasks() -> bool:
    from airflow.configuration import conf

    return "LocalExecutor" in conf.get("core", "executor", fallback="")
