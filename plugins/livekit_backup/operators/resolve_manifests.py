"""Turns backups into files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from livekit_backup.hooks.task_context import attempt_of
from livekit_backup.models.references import BackupRef
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

DEFAULT_MAX_MAP_LENGTH = 1024


class ResolveManifestsOperator(RecoveryOperator):
    """Fetches each backup's manifest and returns one entry a file, nearest deadline first.

    Files that need no download (expired, refused, in the customer's own bucket, unresolved)
    are accounted for in the ledger at once. One backup that cannot be resolved stops no other.

    :param backups: what :class:`IngestEventsOperator` returned.
    """

    template_fields: Sequence[str] = (*RecoveryOperator.template_fields, "backups")

    def __init__(self, *, backups: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backups = backups

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Resolve all backups, a few at a time."""
        from livekit_backup.core.manifest_client import ManifestClient
        from livekit_backup.core.run_plan import account_for, plan_run
        from livekit_backup.core.warehouse_check import warehouse_abilities

        with airflow_errors():
            settings = self.settings()
            attempt = attempt_of(context)
            ledger = self.open_ledger(settings)
            # Once for all the tasks that follow, and the first to say that nothing can be landed.
            warehouse_abilities(settings, self.warehouse_store(settings), ledger, datetime.now(UTC))
            primary = self.primary_store(settings)
            refs = [BackupRef.model_validate(backup) for backup in self.backups or ()]
            with ManifestClient(settings.allowed_hosts) as client:
                plan = plan_run(
                    refs,
                    inbox=self.inbox_store(settings),
                    ledger=ledger,
                    settings=settings,
                    fetch=client.fetch,
                    most=conf.getint("core", "max_map_length", fallback=DEFAULT_MAX_MAP_LENGTH),
                    now=datetime.now(UTC),
                    find_primary=primary.uri_of if primary else lambda _: None,
                    patient=attempt.try_number <= getattr(context["ti"], "max_tries", 0),
                )
            account_for(plan, ledger, attempt)
            ledger.write_plan(attempt.dag_id, attempt.run_id, plan)
        self.log.info(
            "%d backups: %d files to recover, %d accounted for without a download",
            len(refs),
            len(plan.to_recover),
            len(plan.accounted),
        )
        return [file.model_dump(mode="json") for file in plan.to_recover]
