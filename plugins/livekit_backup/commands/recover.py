"""``airflow livekit-backup recover``: these egresses, now; or whatever a link leads to."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime

from airflow.utils.cli import suppress_logs_and_warning

from livekit_backup.commands.process_context import use_connections_of_database
from livekit_backup.core.link_events import event_of_link
from livekit_backup.core.locations import Location, check_location
from livekit_backup.core.manifest_client import ManifestClient
from livekit_backup.core.reconciling import file_event, hour_conf
from livekit_backup.core.requested_backups import Requested, check_egress_ids, find_backups
from livekit_backup.errors import ConfigurationError, LivekitBackupError
from livekit_backup.hooks.comparison import read_inbox
from livekit_backup.hooks.configuration import load_settings
from livekit_backup.hooks.livekit import LiveKitHook
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.references import Intake
from livekit_backup.models.settings import BACKUP_LIFETIME, Settings
from livekit_backup.models.stored_webhook import EventSource
from livekit_backup.models.window import Window

RECOVERY_DAG_ID = "livekit_backup_recovery"
LONGEST_LINK = 16 * 1024
"""Characters; S3 takes 8 KiB of headers, and a link under a security token has some 2 KiB."""


@suppress_logs_and_warning
def recover(args: Namespace) -> None:
    """File events of what is asked for in the inbox, and start the recovery DAG for them.

    Ends with 1 when something was not found, the rest of which is recovered all the same, or when the DAG is paused.
    """
    use_connections_of_database()
    try:
        problems = _recover(args, load_settings({}), datetime.now(UTC))
    except LivekitBackupError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    sys.exit("\n".join(problems) or 0)


def _recover(args: Namespace, settings: Settings, now: datetime) -> list[str]:
    check_egress_ids(args.egress_ids)
    inbox = S3ObjectStore(settings.inbox_conn_id)
    problems: list[str] = []
    if args.link:
        found, source = [_of_link(args, settings)], EventSource.LINK
    elif args.egress_ids:
        found, problems = _of_ids(args.egress_ids, settings, inbox, now)
        source = EventSource.RECONCILE
    else:
        raise ConfigurationError("nothing to recover: give egress ids, or --link and a link on standard input")
    for item in found:
        ref = file_event(inbox, settings, item.ref, source, item.body, now)
        sys.stdout.write(f"filed {ref.egress_id} as {ref.events[0].uri}\n")
    if found:
        egress_ids = sorted({item.ref.egress_id for item in found})
        sys.stdout.write(f"started {_start_run({**hour_conf(now, settings.grace), 'egress_ids': egress_ids}, now)}\n")
        if _is_paused():
            problems.append(f"that run waits, since its DAG is paused: airflow dags unpause {RECOVERY_DAG_ID}")
    return problems


def _of_ids(
    egress_ids: Sequence[str], settings: Settings, inbox: S3ObjectStore, now: datetime
) -> tuple[list[Requested], list[str]]:
    livekit = LiveKitHook(settings.livekit_conn_id)
    window = Window(start=now - BACKUP_LIFETIME, end=now)

    def read(unknown: Sequence[str]) -> Intake:
        return read_inbox(inbox, settings, window, now, *unknown)

    return find_backups(egress_ids, lambda egress_id: livekit.list_egress(egress_id=egress_id), read, inbox)


def _of_link(args: Namespace, settings: Settings) -> Requested:
    if len(args.egress_ids) > 1:
        raise ConfigurationError("--link takes one link, so give at most one egress id beside it")
    link = _read_link()
    check_location(Location(link), settings.allowed_hosts)
    egress_id = args.egress_ids[0] if args.egress_ids else ""
    run = _run_of(egress_id, settings) if egress_id else 0
    with ManifestClient(settings.allowed_hosts) as client:
        ref, body = event_of_link(link, client.fetch, egress_id=egress_id, run=run, filename=args.filename or "")
    return Requested(ref, body)


def _run_of(egress_id: str, settings: Settings) -> int:
    """Return when an egress started, so that what its link leads to is known as the same recording; 0 if unknown."""
    try:
        listed = LiveKitHook(settings.livekit_conn_id).list_egress(egress_id=egress_id)
        return max((item.info.started_at for item in listed if item.info), default=0)
    except LivekitBackupError as error:
        sys.stderr.write(f"LiveKit was not asked when {egress_id} started: {error}\n")
        return 0


def _read_link() -> str:
    """Read the link from standard input: an argument stays in the shell's history and shows in the process list."""
    text = getpass.getpass("link (not shown): ") if sys.stdin.isatty() else sys.stdin.read(LONGEST_LINK + 1)
    if not (link := text.strip()) or len(link) > LONGEST_LINK or len(link.split()) > 1:
        raise ConfigurationError("standard input must hold one link, and nothing else")
    return link


def _is_paused() -> bool:
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        dag = session.get(DagModel, RECOVERY_DAG_ID)
        return dag is not None and bool(dag.is_paused)


def _start_run(conf: dict[str, object], now: datetime) -> str:
    """Start the recovery DAG, and say which run it is."""
    from airflow.api.client import get_current_api_client
    from airflow.sdk.exceptions import AirflowException

    run_id = f"recover__{now:%Y-%m-%dT%H:%M:%S.%f}"
    try:
        get_current_api_client().trigger_dag(RECOVERY_DAG_ID, run_id=run_id, conf=conf)
    except AirflowException as error:
        raise ConfigurationError(
            f"the events are in the inbox, but {RECOVERY_DAG_ID} was not started: {error}. The scheduled run of this "
            "hour takes them up; is the DAG file in the DAGs folder?"
        ) from None
    return f"{RECOVERY_DAG_ID}, run {run_id}"
