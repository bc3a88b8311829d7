"""Tells people of backups that are not safe while there is time to save them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from livekit_backup.errors import AlarmNotSentError
from livekit_backup.hooks.alarm_notifiers import (
    Notify,
    checked_notifiers,
    configured_notifiers,
    listener_names,
    notify,
)
from livekit_backup.hooks.task_context import attempt_of
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context

    from livekit_backup.core.alarms import AlarmWatch
    from livekit_backup.models.alarm_state import Alarm

LOG = "log"
"""The listener that is always there: the digest in the task's log."""

log = logging.getLogger(__name__)


class RaiseAlarmsOperator(RecoveryOperator):
    """Raises an alarm for each backup that is not safe at 72, 24 and 6 hours left (``alarm_hours``), once each.

    All alarms of a run are one message. It depends on no run of the recovery. Succeeds whatever it raises; fails when
    a notifier does, and its retry tells only those who have not been told.

    Returns ``{raised, lost, open, nearest_hours_left}``: how many alarms by level, how many backups are lost since
    the last run, and how many are not safe and can still be saved.

    :param notify: an Airflow notifier, or a callable that takes the task's context, or a sequence of such. Each is
        called once a run at most, with ``livekit_alarm`` (the message) and ``livekit_alarms`` (each alarm as a
        mapping) in its context. Without it, what the configuration's ``alarm_notifier`` leads to.
    """

    def __init__(self, *, notify: Notify | Sequence[Notify] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.notify = None if notify is None else checked_notifiers(notify, "notify")

    def execute(self, context: Context) -> dict[str, Any]:
        """Look, tell, and remember who has been told what."""
        from livekit_backup.core.alarms import AlarmWatch

        with airflow_errors():
            settings = self.settings()
            notifiers = configured_notifiers() if self.notify is None else self.notify
            names = listener_names(notifiers)
            attempt = attempt_of(context)
            ledger = self.open_ledger(settings)
            state = ledger.read_alarms(attempt.dag_id, attempt.task_id)
            watch = AlarmWatch(state, settings, datetime.now(UTC))
            watch.look(self.inbox_store(settings), ledger)
            told: dict[tuple[str, int, float], Alarm] = {}
            failed = []
            for name, notifier in [(LOG, _write), *zip(names, notifiers, strict=True)]:
                if not (alarms := watch.due(name)):
                    continue
                if error := _error_of(name, notifier, context, watch, alarms):
                    failed.append(f"{name} ({type(error).__name__})")
                    continue
                watch.told(name, alarms)
                told |= {(alarm.egress_id, alarm.run, alarm.level): alarm for alarm in alarms}
                # At once: a task that is killed now tells only the others again.
                ledger.write_alarms(attempt.dag_id, attempt.task_id, watch.state([LOG, *names]))
            ledger.write_alarms(attempt.dag_id, attempt.task_id, watch.state([LOG, *names]))
            if failed:
                raise AlarmNotSentError(f"{len(failed)} of {len(notifiers)} notifiers failed: {', '.join(failed)}")
        raised = Counter(f"{alarm.level:g}" for alarm in told.values() if not alarm.is_lost)
        left = watch.nearest_hours_left
        result = {
            "raised": {f"{level:g}": raised[f"{level:g}"] for level in settings.alarm_hours},
            "lost": sum(alarm.is_lost for alarm in told.values()),
            "open": watch.open_backups,
            "nearest_hours_left": None if left is None else round(left, 1),
        }
        nearest = "" if left is None else f"; the nearest link dies in {left:.1f} h"
        log.info("not safe yet: %d%s; alarms raised: %d", watch.open_backups, nearest, len(told))
        return result


def _error_of(
    name: str, notifier: Notify, context: Context, watch: AlarmWatch, alarms: list[Alarm]
) -> Exception | None:
    """Tell one listener; a failure must not keep the others from being told."""
    from livekit_backup.core.alarm_digest import as_plain, digest
    from livekit_backup.core.redaction import without_query

    text = digest(alarms, watch.others(alarms))
    try:
        notify(notifier, context, livekit_alarm=text, livekit_alarms=as_plain(alarms))
    except Exception as error:  # noqa: BLE001 - notifiers raise what they like
        log.error("%s failed: %s: %s", name, type(error).__name__, without_query(str(error))[:500])  # noqa: TRY400
        return error
    if name != LOG:
        log.info("%s was told", name)
    return None


def _write(context: Mapping[str, Any]) -> None:
    for line in context["livekit_alarm"].splitlines():
        log.error("%s", line)
