"""Until when a recovery run should have ended: a deadline reference for Airflow's ``DeadlineAlert``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from airflow.sdk.definitions.deadline import BaseDeadlineReference

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

NEAREST = "nearest_deadline"
"""In a run's conf, for who triggers it and knows better: ISO 8601."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NearestLinkDeadline(BaseDeadlineReference):
    """A margin before the first link of a run's window can die: 7 days behind the window's start.

    Where less than twice the margin is left when the run is made, half of what is left; for a window whose links are
    dead there is no deadline to miss.

    :param margin_hours: hours that shall be left when the run has ended.
    """

    margin_hours: float = 24.0
    required_kwargs: ClassVar[frozenset[str]] = frozenset({"dag_id", "run_id"})

    def serialize_reference(self) -> dict[str, Any]:
        """Return plain values."""
        return {"reference_type": self.reference_name, "margin_hours": self.margin_hours}

    @classmethod
    def deserialize_reference(cls, reference_data: dict[str, Any]) -> Self:
        """Make a reference of :meth:`serialize_reference`'s values."""
        return cls(margin_hours=float(reference_data["margin_hours"]))

    def _evaluate_with(self, *, session: Session, dag_id: str, run_id: str) -> datetime | None:
        """Airflow asks this when it makes a run, in the scheduler or the API server: no error may leave it."""
        from airflow.models import DagRun
        from sqlalchemy import select

        try:
            run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
            return run and self.deadline(first_link_dies(run), datetime.now(UTC))
        except Exception:
            log.exception("the run %s of %s goes without a deadline", run_id, dag_id)
            return None

    def deadline(self, dies: datetime, now: datetime) -> datetime | None:
        """Return the deadline of a run that is made now, or None when all is over."""
        left = dies - now
        return dies - min(timedelta(hours=self.margin_hours), left / 2) if left > timedelta(0) else None


def first_link_dies(run: Any) -> datetime:
    """Return when the first link of a run's window can die.

    :param run: a DAG run of Airflow's, with ``conf``, its data interval and ``run_after``.
    :raises ConfigurationError: its window cannot be.
    """
    # Every process of Airflow imports this module; few make a run.
    from livekit_backup.hooks.task_context import run_window
    from livekit_backup.models.settings import BACKUP_LIFETIME, Settings

    conf: Mapping[str, Any] = run.conf or {}
    context = {
        "params": conf,
        "dag_run": SimpleNamespace(run_after=run.run_after, partition_date=getattr(run, "partition_date", None)),
        "data_interval_start": run.data_interval_start,
        "data_interval_end": run.data_interval_end,
    }
    # Of the settings a window needs its grace alone, and minutes do not matter here.
    window = run_window(context, Settings.model_construct(inbox="", warehouse="", ledger=""))
    dies = window.start + BACKUP_LIFETIME
    if known := conf.get(NEAREST):
        moment = datetime.fromisoformat(str(known))
        dies = min(dies, moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return dies
