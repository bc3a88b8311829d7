"""Which run's tasks go first when slots are short: those of the oldest window whose links still live."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow.task.priority_strategy import PriorityWeightStrategy

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

LINKS_LIVE = timedelta(days=7)
"""What LiveKit's signed URLs are good for, at the most."""
MOST = int(LINKS_LIVE / timedelta(hours=1))
DEAD = 0
"""Nothing of such a window can be fetched any more: it holds up no other."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?")
_MANUAL = "manual__"


class NearestDeadlineWeight(PriorityWeightStrategy):
    """The age of a run's window in hours, from 1 to 168; 0 for one that is older than any link.

    The time is that in the run's id: at the moment at which the scheduler asks, a new task instance has no run yet,
    and to look for one would cost a query each. A run that a person started, or whose id has no time, could be about
    anything, and somebody waits for it: it goes first. What weighs the same goes by its logical date, the older first.

    By its path it can be a ``weight_rule``, also in ``default_args``.
    """

    def get_weight(self, ti: TaskInstance) -> int:
        """Return the weight, whatever the task instance looks like: an error here would stop the scheduler."""
        return weight_of(str(getattr(ti, "run_id", None) or ""), datetime.now(UTC))


def weight_of(run_id: str, now: datetime) -> int:
    """Return the weight of a run's tasks."""
    match = None if run_id.startswith(_MANUAL) else _TIME.search(run_id)
    try:
        time = datetime.fromisoformat(match.group()) if match else None
    except ValueError:
        time = None
    if time is None:
        return MOST
    age = now - (time if time.tzinfo else time.replace(tzinfo=UTC))
    return DEAD if age > LINKS_LIVE else min(max(1, int(age / timedelta(hours=1))), MOST)
