"""Reads the window's inbox and finds the backups in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livekit_backup.hooks.task_context import attempt_of, run_window, wanted_egress_ids
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context


class IngestEventsOperator(RecoveryOperator):
    """Reads every object of the run's window and writes down one reference per backup (a run of an egress).

    They are kept with the run's documents in the ledger. What cannot be parsed is listed in the run's report
    with its object, position and reason.

    Returns ``{objects, events, backups, unreadable}``, by number.
    """

    def execute(self, context: Context) -> dict[str, int]:
        """Read the window."""
        from livekit_backup.core.inbox import IntakeReader
        from livekit_backup.core.windows import inbox_prefixes

        with airflow_errors():
            settings = self.settings()
            window = run_window(context, settings)
            store = self.inbox_store(settings)
            reader = IntakeReader(wanted_egress_ids(context))
            self.log.info("reading %s from %s to %s", settings.inbox, window.start, window.end)
            prefixes = inbox_prefixes(settings.inbox, settings.inbox_layout, window)
            reader.read(store, (uri for prefix in prefixes for uri in store.list_keys(prefix)))
            intake = reader.result()
            attempt = attempt_of(context)
            self.open_ledger(settings).write_intake(attempt.dag_id, attempt.run_id, intake)
        self.log.info(
            "%d objects, %d events: %d backups, %d unreadable documents, %d egresses failed without a backup",
            intake.objects,
            intake.events,
            len(intake.backups),
            len(intake.unreadable),
            len(intake.failed_without_backup),
        )
        return {
            "objects": intake.objects,
            "events": intake.events,
            "backups": len(intake.backups),
            "unreadable": len(intake.unreadable),
        }
