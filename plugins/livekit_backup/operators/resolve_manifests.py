"""Turns backups into files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from livekit_backup.errors import UploadLostError
from livekit_backup.hooks.task_context import attempt_of
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

DEFAULT_MAX_MAP_LENGTH = 1024


class ResolveManifestsOperator(RecoveryOperator):
    """Fetches each backup's manifest and bundles its files, nearest deadline first: one a task as a rule.

    Files that need no download (expired, refused, in the customer's own bucket, unresolved)
    are accounted for in the ledger at once. One backup that cannot be resolved stops no other.

    :param intake: what :class:`IngestEventsOperator` returned; its backups are read from the ledger.

    Returns a list of the bundles' ids, 16 characters each: what is in them is kept in the ledger.
    """

    template_fields: Sequence[str] = (*RecoveryOperator.template_fields, "intake")

    def __init__(self, *, intake: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.intake = intake

    def execute(self, context: Context) -> list[str]:
        """Resolve all backups, a few at a time."""
        from livekit_backup.core.bundling import bundle, capacity
        from livekit_backup.core.manifest_client import ManifestClient
        from livekit_backup.core.run_plan import account_for, plan_run
        from livekit_backup.core.warehouse_check import warehouse_abilities

        with airflow_errors():
            settings = self.settings()
            attempt = attempt_of(context)
            ledger = self.open_ledger(settings)
            # Once for all the tasks that follow, and the first to say that nothing can be landed.
            warehouse = self.warehouse_store(settings)
            abilities = warehouse_abilities(settings, warehouse, ledger, datetime.now(UTC), attempt)
            primary = self.primary_store(settings)
            intake = ledger.read_intake(attempt.dag_id, attempt.run_id)
            if intake is None:
                raise UploadLostError("the ledger has no intake of this run: clear ingest_events and what follows it")
            most = conf.getint("core", "max_map_length", fallback=DEFAULT_MAX_MAP_LENGTH)
            with ManifestClient(settings.allowed_hosts) as client:
                plan = plan_run(
                    intake.backups,
                    inbox=self.inbox_store(settings),
                    ledger=ledger,
                    settings=settings,
                    fetch=client.fetch,
                    most=capacity(settings, most),
                    now=datetime.now(UTC),
                    find_primary=primary.uri_of if primary else lambda _: None,
                    patient=attempt.try_number <= getattr(context["ti"], "max_tries", 0),
                )
            plan = plan.model_copy(update={"made_at": datetime.now(UTC)})
            account_for(plan, ledger, attempt)
            bundles = bundle(plan.to_recover, settings, most, datetime.now(UTC), abilities)
            ledger.write_bundles(attempt.dag_id, attempt.run_id, bundles)
            ledger.write_plan(attempt.dag_id, attempt.run_id, plan)
        self.log.info(
            "%d backups: %d files to recover in %d bundles, %d accounted for without a download",
            len(intake.backups),
            len(plan.to_recover),
            len(bundles),
            len(plan.accounted),
        )
        return [made.bundle_id for made in bundles]
