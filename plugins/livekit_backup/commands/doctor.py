"""``airflow livekit-backup doctor``: everything that recovery needs, tried for real, each fault with how to mend it."""

from __future__ import annotations

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime

from airflow.utils.cli import suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from livekit_backup.commands.airflow_checks import (
    RECONCILE_DAG,
    RECOVERY_DAG,
    check_components,
    check_dag_files,
    check_database,
    check_map_length,
    check_pool,
    dag_check,
)
from livekit_backup.commands.connection_checks import check_clocks, connection_check
from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.commands.inbox_checks import check_backup_hosts, check_layout
from livekit_backup.commands.livekit_checks import check_api, check_feature, check_signing_keys
from livekit_backup.commands.process_context import use_connections_of_database
from livekit_backup.commands.setting_checks import check_allowed_hosts, check_proxies, check_settings
from livekit_backup.commands.store_checks import (
    check_inbox_rights,
    check_ledger,
    check_warehouse_rights,
    reach_check,
)
from livekit_backup.commands.warehouse_checks import (
    check_lifecycle,
    check_primary,
    check_upload_options,
    check_warehouse_abilities,
)
from livekit_backup.core.examination import Check, count_verdicts, examine
from livekit_backup.core.findings_text import findings_json, findings_table
from livekit_backup.models.finding import Finding, Verdict

DAGS = (RECOVERY_DAG, RECONCILE_DAG)
TOTAL_SECONDS = 110.0

_SERVERS = ("inbox", "warehouse", "primary", "LiveKit")
_FIXED: tuple[Check[ExaminedSetup], ...] = (
    Check("settings", check_settings),
    Check("proxies", check_proxies),
    Check("allowed hosts", check_allowed_hosts),
    Check("inbox connection", connection_check("inbox")),
    Check("inbox", reach_check("inbox"), needs=("inbox connection",)),
    Check("inbox rights", check_inbox_rights, needs=("inbox",)),
    Check("inbox layout", check_layout, needs=("inbox",)),
    Check("hosts of backups", check_backup_hosts, needs=("inbox",)),
    Check("warehouse connection", connection_check("warehouse")),
    Check("warehouse", reach_check("warehouse"), needs=("warehouse connection",)),
    Check("upload options", check_upload_options, needs=("warehouse",)),
    Check("warehouse rights", check_warehouse_rights, needs=("warehouse",), after=("upload options",)),
    Check("warehouse store", check_warehouse_abilities, needs=("warehouse rights",), seconds=45.0),
    Check("warehouse lifecycle", check_lifecycle, needs=("warehouse",)),
    Check("ledger", check_ledger, needs=("warehouse connection",), after=("upload options",)),
    Check("primary connection", connection_check("primary")),
    Check("primary", check_primary, needs=("primary connection",)),
    Check("LiveKit connection", connection_check("livekit")),
    Check("LiveKit", check_api, needs=("LiveKit connection",), seconds=45.0),
    Check("webhook keys", check_signing_keys, needs=("LiveKit connection",)),
    Check("clocks", check_clocks, after=_SERVERS),
    Check("Airflow's database", check_database),
    Check("Airflow", check_components, needs=("Airflow's database",)),
)
_BEHIND_DAGS: tuple[Check[ExaminedSetup], ...] = (
    Check("DAG files", check_dag_files, needs=("Airflow's database",)),
    Check("mapped files", check_map_length),
    Check("pool", check_pool, needs=("Airflow's database",)),
    Check("backup storage", check_feature),
)


def checks(dag_ids: Sequence[str] = DAGS) -> tuple[Check[ExaminedSetup], ...]:
    """Return all checks, in the order of the report."""
    dags = (Check(f"DAG {dag_id}", dag_check(dag_id), needs=("Airflow's database",)) for dag_id in dag_ids)
    return (*_FIXED, *dags, *_BEHIND_DAGS)


def examine_setup(
    dag_ids: Sequence[str] = DAGS, *, may_fix: bool = False, seconds: float = TOTAL_SECONDS
) -> list[Finding]:
    """Return what is found of this machine's set-up; nothing in it is a secret.

    :param may_fix: make what is missing, where that can do no harm: the pool of the download tasks.
    """
    setup = ExaminedSetup(may_fix=may_fix)
    return examine(checks(dag_ids), setup, seconds=seconds, safe=setup.safe)


@suppress_logs_and_warning
@providers_configuration_loaded
def doctor(args: Namespace) -> None:
    """Print what is found; ends with 1 when something is broken."""
    use_connections_of_database()
    findings = examine_setup(args.dag_id or DAGS, may_fix=args.fix)
    if args.json:
        text = findings_json(findings, datetime.now(UTC))
    else:
        is_terminal = sys.stdout.isatty()
        text = findings_table(
            findings,
            width=shutil.get_terminal_size().columns if is_terminal else 0,
            colours=is_terminal and not os.environ.get("NO_COLOR"),
        )
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    if count_verdicts(findings)[Verdict.BROKEN]:
        sys.exit(1)
