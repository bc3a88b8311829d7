"""Holds LiveKit's API against the inbox and the ledger, so that no backup is missed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk.exceptions import AirflowSkipException

from livekit_backup.errors import NotSafeError
from livekit_backup.hooks.task_context import attempt_of, lookback_window
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

    from livekit_backup.models.reconciliation import Comparison

RECOVERY_DAG_ID = "livekit_backup_recovery"

_ENDED = frozenset({"success", "failed", "upstream_failed"})
"""States of a recovery behind which nobody takes up what was filed."""


class ReconcileOperator(RecoveryOperator):
    """Files an event for each backup that no webhook brought, or that came to nothing while its links live.

    Reads the inbox of the window and pages through ListEgress. Where LiveKit's API cannot be asked, after the last
    try or for lack of a usable connection, the rest is done all the same, and the statement says so and fails.

    Returns ``{filed, run_id, conf}``: how many events were filed, and the recovery run that takes them up;
    the same events give the same run id.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare, file, and keep the comparison with the run's documents in the ledger."""
        from livekit_backup.core.reconciling import Reconciler, hour_conf
        from livekit_backup.hooks.comparison import compare_now

        with airflow_errors():
            settings = self.settings()
            attempt = attempt_of(context)
            ledger = self.open_ledger(settings)
            now = datetime.now(UTC)
            reconciler = Reconciler(
                settings,
                self.inbox_store(settings),
                ledger,
                lookback_window(context),
                now,
                files=True,
                patient=attempt.try_number <= getattr(context["ti"], "max_tries", 0),
            )
            comparison = compare_now(reconciler)
            ledger.write_comparison(attempt.dag_id, attempt.run_id, comparison)
        filed = [known.ref.events[0].uri for known in comparison.backups if known.filed]
        self.log.info(
            "%d backups: %d filed in the inbox; LiveKit lists %d egresses, the inbox holds %d events",
            len(comparison.backups),
            len(filed),
            comparison.listed,
            comparison.events,
        )
        return {"filed": len(filed), "run_id": _run_id(filed, now), "conf": hour_conf(now, settings.grace)}


def _run_id(filed: Sequence[str], now: datetime) -> str:
    """Name the run after what it takes up, so that a task that is cleared or killed starts it once."""
    digest = hashlib.sha256("\n".join(sorted(filed)).encode()).hexdigest()[:12]
    return f"reconcile__{now:%Y-%m-%dT%H}__{digest}"


class RecoverMissedOperator(TriggerDagRunOperator):
    """Starts the recovery of what was filed, once, and waits for its end; skipped when nothing was.

    How that run ended is for the statement to say: a failed one does not fail this task.

    :param found: what :class:`ReconcileOperator` returned.
    :param trigger_dag_id: the recovery DAG.
    """

    template_fields: Sequence[str] = (*TriggerDagRunOperator.template_fields, "found")

    def __init__(self, *, found: Any, trigger_dag_id: str = RECOVERY_DAG_ID, **kwargs: Any) -> None:
        kwargs.setdefault("wait_for_completion", True)
        kwargs.setdefault("allowed_states", ["success", "failed"])
        kwargs.setdefault("failed_states", [])
        kwargs.setdefault("skip_when_already_exists", True)
        # A run of a paused DAG would be waited for in vain.
        kwargs.setdefault("fail_when_dag_is_paused", True)
        kwargs.setdefault("logical_date", None)
        super().__init__(trigger_dag_id=trigger_dag_id, **kwargs)
        self.found = found

    def execute(self, context: Context) -> Any:
        """Trigger the run."""
        if not self.found or not self.found["filed"]:
            raise AirflowSkipException("nothing was filed: every backup is safe, accounted for, or about to be")
        self.trigger_run_id = self.found["run_id"]
        self.conf = self.found["conf"]
        return super().execute(context)


class ReconciliationReportOperator(RecoveryOperator):
    """Prints and stores the statement over the window, and fails when a backup is lost, at risk or unaccounted for.

    Runs whatever happened before it.

    :param recovery: task id of the :class:`RecoverMissedOperator`; once that has succeeded or failed, nothing that
        was filed is pending any more.
    """

    def __init__(self, *, recovery: str = "recover_missed", **kwargs: Any) -> None:
        kwargs.setdefault("trigger_rule", "all_done")
        super().__init__(**kwargs)
        self.recovery = recovery

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the statement. Returns ``{headline, totals, report, seal}``."""
        from livekit_backup.core.reconciliation_statement import headline, reconciled, render

        with airflow_errors():
            settings = self.settings()
            attempt = attempt_of(context)
            ledger = self.open_ledger(settings)
            comparison: Comparison | None = ledger.read_comparison(attempt.dag_id, attempt.run_id)
            if comparison is None:
                raise NotSafeError("nothing was compared: see the log of the task before this one")
            statement = reconciled(
                comparison,
                ledger,
                settings,
                datetime.now(UTC),
                attempt,
                recovered=self._state_of_recovery(context) in _ENDED,
            )
            text = render(statement)
            uri = ledger.write_statement(statement, text)
            seal = ledger.seal(statement.dag_id, statement.run_id)
            for line in text.splitlines():
                self.log.info("%s", line)
            self.log.info("stored at %s", uri)
            if not statement.is_settled:
                raise NotSafeError(f"{headline(statement)}; each by name in {uri}")
        return {"headline": headline(statement), "totals": statement.totals, "report": uri, "seal": seal}

    def _state_of_recovery(self, context: Context) -> str | None:
        ti = context["ti"]
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[self.recovery], run_ids=[ti.run_id])
        state = states.get(ti.run_id, {}).get(self.recovery)
        return None if state is None else str(state)
