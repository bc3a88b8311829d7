"""Waits for a window of the inbox to close, and skips the run when no backup is in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowSkipException

from livekit_backup.core.windows import is_closed
from livekit_backup.errors import SourceUnavailableError
from livekit_backup.hooks.task_context import (
    attempt_of,
    is_plan_only,
    late_window,
    prefixes_of,
    run_window,
    wanted_egress_ids,
)
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors
from livekit_backup.triggers.inbox_window import EMPTY, OBJECTS, UNCHECKED, InboxWindowTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from livekit_backup.models.references import Intake
    from livekit_backup.models.settings import Settings
    from livekit_backup.models.window import Window


class BackupEventSensor(RecoveryOperator, BaseSensorOperator):
    """Waits until the run's window is closed (its end plus ``grace``), then looks into the inbox.

    Succeeds if the window holds a backup event, or something unreadable that may be one, or if a scheduled run finds
    one that came late (``lookback``); otherwise it skips what follows, and the report still says what was looked at.
    A run that only plans does not wait.

    :param deferrable: wait in the triggerer instead of a worker; Airflow's
        ``[operators] default_deferrable`` unless given.
    """

    plans = True

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
        if is_plan_only(context):
            self.log.info("plan only: ingest_events prints the plan of what is in the inbox now")
            return {}
        if not self.deferrable:
            return super().execute(context)
        with airflow_errors():
            settings = self.settings()
            window = run_window(context, settings)
        if is_closed(window, settings.grace, datetime.now(UTC)):
            return self._look(context, settings, window)
        closes_at = window.closes_at(settings.grace)
        self.log.info("waiting until %s, when the window from %s to %s is closed", closes_at, window.start, window.end)
        own, late = prefixes_of(settings, window, late_window(context, settings, window))
        return self.defer(
            trigger=InboxWindowTrigger(
                closes_at=closes_at.isoformat(),
                prefixes=[*own, *late],
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
            own, earlier = prefixes_of(settings, window, late_window(context, settings, window))
            intake = self._first_backup(context, settings, own if read else [])
            found = {"objects": intake.objects, "events": intake.events, "backups": len(intake.backups)}
            if intake.backups or any(document.may_be_backup for document in intake.unreadable):
                return found
            if read and earlier and (late := self._late(context, settings, earlier)):
                return {**found, "late": late}
            attempt = attempt_of(context)
            self.open_ledger(settings).write_intake(attempt.dag_id, attempt.run_id, intake)
        raise AirflowSkipException(
            f"no backup from {window.start} to {window.end}: {intake.objects} objects with {intake.events} events"
        )

    def _first_backup(self, context: Context, settings: Settings, prefixes: list[str]) -> Intake:
        """Read up to the first object with a backup: ingest_events reads the rest."""
        from livekit_backup.core.inbox import IntakeReader

        store = self.inbox_store(settings)
        reader = IntakeReader(wanted_egress_ids(context))
        reader.read(store, (uri for prefix in prefixes for uri in store.list_keys(prefix)), until_found=True)
        return reader.result()

    def _late(self, context: Context, settings: Settings, prefixes: list[str]) -> int:
        """Return how many backups came late into the hours before the window."""
        from livekit_backup.core.late_backups import find_late

        store, ledger, attempt = self.inbox_store(settings), self.open_ledger(settings), attempt_of(context)
        return len(
            find_late(
                store,
                (uri for prefix in prefixes for uri in store.list_keys(prefix)),
                ledger,
                wanted=wanted_egress_ids(context),
                own=ledger.read_intake(attempt.dag_id, attempt.run_id),
            )
        )
