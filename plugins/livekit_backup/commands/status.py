"""``airflow livekit-backup status``: what is safe, what is at risk, and how many hours are left."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from datetime import UTC, datetime, timedelta

from airflow.utils.cli import suppress_logs_and_warning

from livekit_backup.commands.process_context import use_connections_of_database
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.reconciliation_statement import headline, reconciled, render
from livekit_backup.core.reconciling import Reconciler
from livekit_backup.errors import LivekitBackupError
from livekit_backup.hooks.comparison import compare_now
from livekit_backup.hooks.configuration import load_settings
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.reconciliation import Reconciliation
from livekit_backup.models.window import Window

LONGEST_LOOKBACK_DAYS = 400
"""As for the window of a run: every hour of it is listed."""


@suppress_logs_and_warning
def status(args: Namespace) -> None:
    """Print the statement as of now; ends with 1 when something is lost, at risk or unaccounted for.

    Reads only: what it finds missing is filed by the DAG ``livekit_backup_reconcile``.
    """
    if not 0 < args.days <= LONGEST_LOOKBACK_DAYS:
        sys.exit(f"--days must be more than 0, and at most {LONGEST_LOOKBACK_DAYS}, not {args.days}")
    use_connections_of_database()
    try:
        statement = current_statement(timedelta(days=args.days))
    except LivekitBackupError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.write(_as_json(statement) if args.json else render(statement))
    sys.exit(0 if statement.is_settled else 1)


def current_statement(lookback: timedelta) -> Reconciliation:
    """Return the statement over the time up to now.

    :raises LivekitBackupError: a setting is missing, or the inbox or the ledger cannot be read.
    """
    settings = load_settings({})
    now = datetime.now(UTC)
    ledger = Ledger(S3ObjectStore(settings.warehouse_conn_id, settings.upload_options), settings.ledger)
    inbox = S3ObjectStore(settings.inbox_conn_id)
    window = Window(start=now - lookback, end=now)
    comparison = compare_now(Reconciler(settings, inbox, ledger, window, now, files=False))
    return reconciled(comparison, ledger, settings, now)


def _as_json(statement: Reconciliation) -> str:
    """Return the statement with what is computed from it, so that nobody has to compute it again."""
    computed = {"headline": headline(statement), "totals": statement.totals, "is_settled": statement.is_settled}
    return json.dumps({**computed, **statement.model_dump(mode="json")}, indent=1) + "\n"
