"""Reads the window's inbox and finds the backups in it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from livekit_backup.hooks.task_context import (
    attempt_of,
    is_plan_only,
    late_window,
    prefixes_of,
    run_window,
    wanted_egress_ids,
)
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors
from livekit_backup.operators.resolve_manifests import DEFAULT_MAX_MAP_LENGTH

if TYPE_CHECKING:
    from airflow.sdk import Context

    from livekit_backup.models.references import Intake
    from livekit_backup.models.settings import Settings

log = logging.getLogger(__name__)


class IngestEventsOperator(RecoveryOperator):
    """Reads every object of the run's window and writes down one reference per backup (a run of an egress).

    They are kept with the run's documents in the ledger. What cannot be parsed is listed in the run's report
    with its object, position and reason. A scheduled run also takes up the backups before its window that no run
    knows of yet (``lookback``).

    With the param ``plan_only`` it prints what the run would do, writes nothing, and all other tasks are skipped.

    Returns ``{objects, events, backups, unreadable}``, by number; with ``plan_only`` also the plan's totals.
    """

    plans = True

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the window."""
        with airflow_errors():
            settings = self.settings()
            attempt = attempt_of(context)
            intake = self._read(context, settings)
            if is_plan_only(context):
                return self._plan(context, settings, intake)
            self.open_ledger(settings).write_intake(attempt.dag_id, attempt.run_id, intake)
        self.log.info(
            "%d objects, %d events: %d backups, %d of them late, %d unreadable documents, "
            "%d egresses failed without a backup",
            intake.objects,
            intake.events,
            len(intake.backups),
            intake.late,
            len(intake.unreadable),
            len(intake.failed_without_backup),
        )
        return {
            "objects": intake.objects,
            "events": intake.events,
            "backups": len(intake.backups),
            "unreadable": len(intake.unreadable),
        }

    def _read(self, context: Context, settings: Settings) -> Intake:
        """Read the window, and what came late before it."""
        from livekit_backup.core.inbox import IntakeReader
        from livekit_backup.core.late_backups import find_late, with_late

        window = run_window(context, settings)
        own, earlier = prefixes_of(settings, window, late_window(context, settings, window))
        store, wanted = self.inbox_store(settings), wanted_egress_ids(context)
        self.log.info("reading %s from %s to %s", settings.inbox, window.start, window.end)
        reader = IntakeReader(wanted)
        reader.read(store, (uri for prefix in own for uri in store.list_keys(prefix)))
        intake = reader.result()
        if not earlier:
            return intake
        self.log.info("looking back to %s for events that came late", window.start - settings.lookback)
        ledger, attempt = self.open_ledger(settings), attempt_of(context)
        before = ledger.read_intake(attempt.dag_id, attempt.run_id)
        uris = (uri for prefix in earlier for uri in store.list_keys(prefix))
        return with_late(intake, find_late(store, uris, ledger, wanted=wanted, own=before))

    def _plan(self, context: Context, settings: Settings, intake: Intake) -> dict[str, Any]:
        """Print what the run would do."""
        from livekit_backup.core.dry_run import plan_dry, render
        from livekit_backup.core.manifest_client import ManifestClient

        primary = self.primary_store(settings)
        with ManifestClient(settings.allowed_hosts) as client:
            dry = plan_dry(
                intake,
                window=run_window(context, settings),
                inbox=self.inbox_store(settings),
                warehouse=self.warehouse_store(settings),
                settings=settings,
                fetch=client.fetch,
                most=conf.getint("core", "max_map_length", fallback=DEFAULT_MAX_MAP_LENGTH),
                now=datetime.now(UTC),
                find_primary=primary.uri_of if primary else lambda _: None,
            )
        for line in render(dry):
            log.info("%s", line)
        return dry.summary()
