"""Waits for a window of the inbox to close, and skips the run when no backup is in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowSkipException

from livekit_backup.core.windows import inbox_prefixes, is_closed
from livekit_backup.errors import SourceUnavailableError
from livekit_backup.hooks.task_context import attempt_of, run_window, wanted_egress_ids
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors
from livekit_backup.triggers.inbox_window import EMPTY, OBJECTS, UNCHECKED, InboxWindowTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from livekit_backup.models.references import Intake
    from livekit_backup.models.settings import Settings
    from livekit_backup.models.window import Window


class BackupEventSensor(RecoveryOperator, BaseSensorOperator):
    """Waits until the run's window is closed (its end plus ``grace``), then looks into the inbox.

    Succeeds if the window holds a backup event, or something unreadable that may be one;
    otherwise it skips what follows, and the report still says what was looked at.

    :param deferrable: wait in the triggerer instead of a worker; Airflow's
        ``[operators] default_deferrable`` unless given.
    """

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Look at once if the window is closed; else defer, or poke."""
        if not self.deferrable:
            return super().execute(context)
        with airflow_errors():
            settings = self.settings()
            window = run_window(context, settings)
        if is_closed(window, settings.grace, datetime.now(UTC)):
            return self._look(context, settings, window)
        closes_at = window.closes_at(settings.grace)
        self.log.info("waiting until %s, when the window from %s to %s is closed", closes_at, window.start, window.end)
        return self.defer(
            trigger=InboxWindowTrigger(
                closes_at=closes_at.isoformat(),
                prefixes=list(inbox_prefixes(settings.inbox, settings.inbox_layout, window)),
                inbox_conn_id=settings.inbox_conn_id,
            ),
            method_name="execute_complete",
        )

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Whether the window is closed; a closed window without backups skips."""
        with airflow_errors():
            settings = self.settings()
            window = run_window(context, settings)
        if not is_closed(window, settings.grace, datetime.now(UTC)):
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._look(context, settings, window))

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, int]:
        """Go on where the trigger ended."""
        status = event.get("status") if isinstance(event, dict) else None
        if status not in (OBJECTS, EMPTY, UNCHECKED):
            raise SourceUnavailableError(f"the trigger answered {status!r}; waiting again")
        with airflow_errors():
            settings = self.settings()
            window = run_window(context, settings)
        return self._look(context, settings, window, read=status != EMPTY)

    def _look(self, context: Context, settings: Settings, window: Window, *, read: bool = True) -> dict[str, int]:
        with airflow_errors():
            intake = self._first_backup(context, settings, window, read=read)
            found = {"objects": intake.objects, "events": intake.events, "backups": len(intake.backups)}
            if intake.backups or any(document.may_be_backup for document in intake.unreadable):
                return found
            attempt = attempt_of(context)
            self.open_ledger(settings).write_intake(attempt.dag_id, attempt.run_id, intake)
        raise AirflowSkipException(
            f"no backup from {window.start} to {window.end}: {intake.objects} objects with {intake.events} events"
        )

    def _first_backup(self, context: Context, settings: Settings, window: Window, *, read: bool) -> Intake:
        """Read up to the first object with a backup: ingest_events reads the rest."""
        from livekit_backup.core.inbox import IntakeReader

        store = self.inbox_store(settings)
        reader = IntakeReader(wanted_egress_ids(context))
        prefixes = inbox_prefixes(settings.inbox, settings.inbox_layout, window) if read else ()
        reader.read(store, (uri for prefix in prefixes for uri in store.list_keys(prefix)), until_found=True)
        return reader.result()
