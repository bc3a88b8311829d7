"""The end of a run: its statement, and its verdict."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from livekit_backup.errors import NotSafeError
from livekit_backup.hooks.recovery_metrics import emit_statement
from livekit_backup.hooks.task_context import attempt_of, run_window
from livekit_backup.operators.bundle_operator import BundleOperator
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

FOLDED_OVER = 20
"""Lines of what is safe that still fit on a screen beside what is not."""

RECORDINGS = Asset(name="livekit_backup_recordings", uri="x-livekit-backup://recordings", group="livekit_backup")
"""Updated by a run in which recordings landed, and by no other; the event's extra names them."""
LANDED = AssetAlias(name="livekit_backup_landed", group="livekit_backup")
"""An outlet that is an asset is updated by every success; through an alias the report decides."""


class ReportOperator(RecoveryOperator):
    """Prints and stores the run's statement: every egress and every file of the window, with outcome and reason.

    Runs whatever happened before it, and reads the ledger, so that a task which died
    without a word is in it too. Emits an asset event for what landed, and drops uploads
    that were left open.

    Returns the statement's headline, verdict, totals, the first files that are not safe, the report's URI and the
    digest of its seal.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("trigger_rule", "all_done")
        kwargs.setdefault("outlets", [LANDED])
        super().__init__(**kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the statement."""
        from livekit_backup.core.landed_extra import landed_extra
        from livekit_backup.core.statements import headline, is_safe, make_statement, not_safe, render

        with airflow_errors():
            settings = self.settings()
            ledger = self.open_ledger(settings)
            statement = make_statement(
                ledger,
                self.warehouse_store(settings),
                attempt_of(context),
                run_window(context, settings),
                self._failed_tasks(context),
                datetime.now(UTC),
                verify=settings.verify,
            )
            text = render(statement)
            uri = ledger.write_statement(statement, text)
            seal = ledger.seal(statement.dag_id, statement.run_id)
        for line in lines_for_ui(text):
            self.log.info("%s", line)
        self.log.info("stored at %s", uri)
        self.log.info("%s", headline(statement))
        emit_statement(statement)
        if extra := landed_extra(statement, ledger.run_uri(statement.dag_id, statement.run_id, "report.json")):
            context["outlet_events"][LANDED].add(RECORDINGS, extra=extra)
        return {
            "headline": headline(statement),
            "is_safe": is_safe(statement),
            "totals": statement.totals,
            "not_safe": not_safe(statement),
            "report": uri,
            "seal": seal,
        }

    def _failed_tasks(self, context: Context) -> list[str]:
        """Return the tasks before this one that did not succeed. A file's own tasks speak through the ledger."""
        ti = context["ti"]
        states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(ti.run_id, {})
        return [
            task.task_id
            for task in self.get_flat_relatives(upstream=True)
            if not task.is_mapped
            and states.get(task.task_id) in ("failed", "upstream_failed")
            and not isinstance(task, BundleOperator)
        ]


def lines_for_ui(text: str) -> Iterator[str]:
    """Give a statement's lines for a log, a long list of what is safe folded: the UI opens a log at its end."""
    for number, section in enumerate(text.rstrip("\n").split("\n\n")):
        title, *lines = section.splitlines()
        is_folded = title.startswith("SAFE (") and len(lines) > FOLDED_OVER
        if number:
            yield ""
        yield f"::group::{title}" if is_folded else title
        yield from lines
        if is_folded:
            yield "::endgroup::"


class AllSafeOperator(RecoveryOperator):
    """Fails when something that could be recovered is not safe, so that the run shows it.

    A task of its own, since Airflow emits a task's asset events only when it succeeds: the
    report has to succeed for what landed and the run has to fail for what did not.

    :param report: what :class:`ReportOperator` returned.
    """

    template_fields: Sequence[str] = (*RecoveryOperator.template_fields, "report")

    def __init__(self, *, report: Any, **kwargs: Any) -> None:
        kwargs.setdefault("trigger_rule", "all_done")
        super().__init__(**kwargs)
        self.report = report

    def execute(self, context: Context) -> str:  # noqa: ARG002 - Airflow calls it so
        """Say the headline, or fail with it."""
        with airflow_errors():
            if not self.report:
                raise NotSafeError("there is no report: see the log of the report task")
            for line in self.report["not_safe"]:
                log.error("NOT SAFE: %s", line)
            if not self.report["is_safe"]:
                raise NotSafeError(f"{self.report['headline']}; each by name in {self.report['report']}")
        return str(self.report["headline"])
