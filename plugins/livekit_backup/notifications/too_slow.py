"""What Airflow calls when a recovery run has missed its deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from livekit_backup.core.wording import hours_left
from livekit_backup.errors import AlarmNotSentError
from livekit_backup.hooks.alarm_notifiers import configured_notifiers, listener_names, notify
from livekit_backup.notifications.link_deadline import first_link_dies

log = logging.getLogger(__name__)


async def recovery_too_slow(context: Mapping[str, Any]) -> None:
    """Say that a recovery run is too slow: in the triggerer's log, and through ``alarm_notifier``.

    The triggerer calls it, which every executor has at its side and the recovery DAG needs anyway.

    :param context: what Airflow knows of the run: ``dag_run`` and ``deadline``.
    :raises AlarmNotSentError: a notifier failed; the others were called.
    """
    # Notifiers wait for other machines, and import what they like.
    await asyncio.to_thread(_tell, context)


def _tell(context: Mapping[str, Any]) -> None:
    alarm = too_slow_alarm(context["dag_run"], datetime.now(UTC))
    text = too_slow_text(alarm)
    log.error("%s", text)
    notifiers = configured_notifiers()
    failed = []
    for name, notifier in zip(listener_names(notifiers), notifiers, strict=True):
        try:
            notify(notifier, context, livekit_alarm=text, livekit_alarms=[alarm])
        except Exception as error:  # noqa: BLE001 - notifiers raise what they like
            failed.append(f"{name} ({type(error).__name__})")
    if failed:
        raise AlarmNotSentError(f"{len(failed)} of {len(notifiers)} notifiers failed: {', '.join(failed)}")


def too_slow_alarm(run: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return what is known of the run, as plain values.

    :param run: a DAG run as Airflow's API shows it.
    """
    times = {name: _moment(run.get(name)) for name in ("data_interval_start", "data_interval_end", "run_after")}
    dies = first_link_dies(SimpleNamespace(conf=run.get("conf"), **times))
    return {
        "dag_id": run["dag_id"],
        "run_id": run["dag_run_id"],
        "state": run["state"],
        "deadline": dies.isoformat(),
        "hours_left": hours_left(dies, now),
    }


def too_slow_text(alarm: Mapping[str, Any]) -> str:
    """Return the message."""
    how = "has failed" if alarm["state"] == "failed" else f"has not ended, it is {alarm['state']}"
    return (
        f"LiveKit backups: the first link of recovery run {alarm['run_id']} of {alarm['dag_id']} dies in "
        f"{alarm['hours_left']:.1f} h, and the run {how}.\n"
        "What to do: see which of its tasks waits or fails; `airflow livekit-backup status` says what is not safe."
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
