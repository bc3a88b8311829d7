"""What a task knows of the run it is in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Self

from livekit_backup.core.windows import inbox_prefixes, resolve_window
from livekit_backup.errors import ConfigurationError
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.settings import LOOKBACK, Settings
from livekit_backup.models.window import Window

LONGEST_LABEL = 250
"""Airflow's limit."""
LABEL_AFTER_SECONDS = 2.0
"""Each label that is sent costs Airflow's API server a request."""
LABEL_EVERY_SECONDS = 5.0
"""Sent with each of its files, a bundle's progress took the API server longer than the files took the task."""

log = logging.getLogger(__name__)


def run_window(context: Mapping[str, Any], settings: Settings) -> Window:
    """Return the window of a task's run.

    A run without a logical date has no data interval: the keys are absent from its context.
    Of a backfill egress ids only choose within each run's own interval.
    """
    params = context.get("params") or {}
    dag_run = context["dag_run"]
    is_backfill = getattr(dag_run, "run_type", None) == "backfill"
    interval = (context.get("data_interval_start"), context.get("data_interval_end"))
    return resolve_window(
        start=_moment(params, "start"),
        end=_moment(params, "end"),
        has_egress_ids=bool(wanted_egress_ids(context)) and not is_backfill,
        interval=(interval[0], interval[1]) if interval[0] and interval[1] else None,
        partition_date=getattr(dag_run, "partition_date", None),
        run_after=dag_run.run_after,
        grace=settings.grace,
    )


def late_window(context: Mapping[str, Any], settings: Settings, window: Window) -> Window | None:
    """Return where a run looks for events that came late: right before its window, and in scheduled runs alone.

    A backfill and a manual run say the same of their window each time.
    """
    is_scheduled = getattr(context["dag_run"], "run_type", None) == "scheduled"
    if not is_scheduled or not settings.lookback:
        return None
    return Window(start=window.start - settings.lookback, end=window.start)


def prefixes_of(settings: Settings, window: Window, late: Window | None) -> tuple[list[str], list[str]]:
    """Return the inbox prefixes of a window, and those that only its look-back reads."""
    own = list(inbox_prefixes(settings.inbox, settings.inbox_layout, window))
    earlier = inbox_prefixes(settings.inbox, settings.inbox_layout, late) if late else ()
    return own, [prefix for prefix in earlier if prefix not in own]


def is_plan_only(context: Mapping[str, Any]) -> bool:
    """Whether the run is to print what it would do, and to write nothing."""
    return bool((context.get("params") or {}).get("plan_only"))


def lookback_window(context: Mapping[str, Any]) -> Window:
    """Return the window that a run looks back over: its params, else :data:`LOOKBACK`, up to now."""
    params = context.get("params") or {}
    run_after = context["dag_run"].run_after
    end = _moment(params, "end") or run_after
    return resolve_window(
        start=_moment(params, "start") or end - LOOKBACK,
        end=end,
        has_egress_ids=False,
        interval=None,
        partition_date=None,
        run_after=run_after,
        grace=timedelta(0),
    )


def wanted_egress_ids(context: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the egress ids that a manual run was asked for; empty means all."""
    given = (context.get("params") or {}).get("egress_ids") or ()
    if isinstance(given, str):
        given = given.replace(",", " ").split()
    return tuple(str(egress_id).strip() for egress_id in given if str(egress_id).strip())


def attempt_of(context: Mapping[str, Any]) -> Attempt:
    """Return which task instance this is."""
    ti = context["ti"]
    return Attempt(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number,
    )


def shown_label(text: str) -> str:
    """Return as much of a label as Airflow keeps."""
    return text[:LONGEST_LABEL]


class TaskLabel:
    """A mapped task's label in the UI; a context manager around the task's work.

    Airflow 3.3 has no public call for it. A task that is done in a moment sends none of its own: Airflow's message
    of its end carries the label. While a longer one runs, what Airflow's task runner sends before and after a task is
    sent in between; where that cannot be, the label stays as it was.
    """

    def __init__(self, text: str) -> None:
        self._text = shown_label(text)
        self._timer = threading.Timer(LABEL_AFTER_SECONDS, self._show, [self._text])
        self._timer.daemon = True
        self._shown = time.monotonic()

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def show(self, progress: str) -> None:
        """Show how far the task is, every few seconds."""
        now = time.monotonic()
        if now - self._shown < LABEL_EVERY_SECONDS:
            return
        self._shown = now
        self._timer.cancel()
        self._show(f"{self._text} · {progress}"[:LONGEST_LABEL])

    def _show(self, text: str) -> None:
        try:
            from airflow.sdk.execution_time.comms import SetRenderedMapIndex
            from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

            SUPERVISOR_COMMS.send(msg=SetRenderedMapIndex(rendered_map_index=text))
        except Exception as error:  # noqa: BLE001 - a label is worth no failed download
            log.debug("the label was not shown: %s", type(error).__name__)


def _moment(params: Mapping[str, Any], name: str) -> datetime | None:
    text = params.get(name)
    if not text:
        return None
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        raise ConfigurationError(
            f"param {name} is {text!r}: give a date and time such as 2026-11-20T14:00:00Z"
        ) from None
