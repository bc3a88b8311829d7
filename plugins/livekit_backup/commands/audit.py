"""``airflow livekit-backup audit``: what landed is as it landed, and no report was altered or removed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime

from airflow.utils.cli import suppress_logs_and_warning

from livekit_backup.commands.process_context import use_connections_of_database
from livekit_backup.core.audit_bench import AuditScope
from livekit_backup.core.auditing import audit_all
from livekit_backup.core.examination import count_verdicts
from livekit_backup.core.findings_text import findings_json, findings_table
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.wording import escaped
from livekit_backup.errors import ConfigurationError, LivekitBackupError
from livekit_backup.hooks.configuration import load_settings
from livekit_backup.hooks.livekit import LiveKitHook
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.finding import Finding, Verdict

SAMPLE = 100
"""Objects that are read unless it is said: some seconds for short recordings, minutes for long ones."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@suppress_logs_and_warning
def audit(args: Namespace) -> None:
    """Print what is found; ends with 1 when something was altered, removed or is not accounted for. Reads only."""
    use_connections_of_database()
    now = datetime.now(UTC)
    try:
        findings = audit_now(_scope(args), now)
    except LivekitBackupError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if args.json:
        text = findings_json(findings, now)
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


def audit_now(scope: AuditScope, now: datetime) -> list[Finding]:
    """Audit what Airflow's configuration names.

    :raises LivekitBackupError: a setting is missing, or something cannot be read.
    """
    settings = load_settings({})
    store = S3ObjectStore(settings.warehouse_conn_id, settings.upload_options)
    inbox = S3ObjectStore(settings.inbox_conn_id)
    found = audit_all(settings, Ledger(store, settings.ledger), store, inbox, scope, now)
    return [finding.model_copy(update={"what": escaped(finding.what, 4000)}) for finding in found]


def _scope(args: Namespace) -> AuditScope:
    if args.full and args.sample is not None:
        raise ConfigurationError("--full reads every object, --sample some: give one of them")
    if args.sample is not None and args.sample < 0:
        raise ConfigurationError(f"--sample must be 0 or more, not {args.sample}")
    seals = frozenset(args.seal or ())
    for seal in seals:
        if not _DIGEST.fullmatch(seal):
            raise ConfigurationError(f"--seal must be 64 hexadecimal digits, not {seal!r}")
    sample = SAMPLE if args.sample is None else args.sample
    return AuditScope(
        since=_since(args.since),
        sample=None if args.full else sample,
        noted_seals=seals,
        keys=_keys(),
        show=lambda text: print(text, file=sys.stderr, flush=True),  # noqa: T201 - logs are off here
    )


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--since must be a date or a time such as 2026-11-20T15:00, not {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _keys() -> Mapping[str, str]:
    """Return the keys that sign webhooks; none where no connection has any: the rest is proven without."""
    try:
        return LiveKitHook(load_settings({}).livekit_conn_id).signing_keys()
    except ConfigurationError:
        return {}
