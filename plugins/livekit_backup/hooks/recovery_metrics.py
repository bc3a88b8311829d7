"""Numbers of a recovery, through Airflow's own metrics: to statsd, Datadog or OpenTelemetry, as Airflow is set up.

What each means, and its unit: ``docs/metrics.md``. Tags have few values: an outcome or a kind, never an id or a
name. A metric that cannot be sent costs no recovery: nothing here raises.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from enum import StrEnum

from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.settings import BACKUP_LIFETIME
from livekit_backup.models.statement import Statement, StatementLine

log = logging.getLogger(__name__)


class Metric(StrEnum):
    """Every metric by its name; Airflow puts its own prefix before it."""

    FILES = "livekit_backup.files"
    BYTES = "livekit_backup.bytes"
    UNSAFE_FILES = "livekit_backup.unsafe_files"
    SMALLEST_MARGIN = "livekit_backup.smallest_margin_hours"
    LANDING_AGE = "livekit_backup.landing_age"
    LANDING_MARGIN = "livekit_backup.landing_margin"
    DOWNLOAD_DURATION = "livekit_backup.download_duration"
    DOWNLOAD_BYTES = "livekit_backup.download_bytes"
    DOWNLOAD_RATE = "livekit_backup.download_bytes_per_second"


def emit_statement(statement: Statement) -> None:
    """Send what a run can say for itself."""
    files = Counter(line.outcome for line in statement.lines)
    size: Counter[Outcome] = Counter()
    for line in statement.lines:
        size[line.outcome] += line.size or 0
    with _harmless():
        for outcome in Outcome:
            _count_by_outcome(Metric.FILES, outcome, files[outcome])
            _count_by_outcome(Metric.BYTES, outcome, size[outcome])
        _gauge(Metric.UNSAFE_FILES, len(statement.recoverable))
        margins = [hours for line in statement.recoverable if (hours := _hours_left(line)) is not None]
        if margins or not statement.recoverable:
            # A gauge keeps its last value: a run without danger has to take an earlier one's away.
            _gauge(Metric.SMALLEST_MARGIN, min(margins, default=BACKUP_LIFETIME / timedelta(hours=1)))


def emit_landed(entry: LedgerEntry) -> None:
    """Send how old a recording was when it landed, and how long its link would have lived on."""
    with _harmless():
        _time(Metric.LANDING_AGE, entry.recorded_at - entry.started, entry)
        if entry.deadline:
            _time(Metric.LANDING_MARGIN, entry.deadline - entry.recorded_at, entry)


def emit_download(size: int, seconds: float) -> None:
    """Send what one file's download has taken.

    :param size: bytes that were fetched.
    """
    with _harmless():
        from airflow.sdk.observability.stats import Stats

        Stats.timing(Metric.DOWNLOAD_DURATION.value, timedelta(seconds=seconds))
        _count(Metric.DOWNLOAD_BYTES, size)
        if seconds > 0:
            _gauge(Metric.DOWNLOAD_RATE, size / seconds)


def _hours_left(line: StatementLine) -> float | None:
    return 0.0 if line.outcome is Outcome.EXPIRED else line.hours_left


def _count_by_outcome(metric: Metric, outcome: Outcome, count: int) -> None:
    from airflow.sdk import conf

    _count(metric, count, {"outcome": outcome.value})
    # Plain statsd has no tags. Airflow sends its own metrics under two names then, by the same setting.
    if conf.getboolean("metrics", "legacy_names_on", fallback=True):
        _count(f"{metric.value}.{outcome.value}", count)


def _count(name: str, count: int, tags: dict[str, str] | None = None) -> None:
    from airflow.sdk.observability.stats import Stats

    if count:
        Stats.incr(str(name), count, tags=tags)


def _gauge(metric: Metric, value: float) -> None:
    from airflow.sdk.observability.stats import Stats

    Stats.gauge(metric.value, value)


def _time(metric: Metric, duration: timedelta, entry: LedgerEntry) -> None:
    """Send a duration; clocks differ, so that it could come out below zero."""
    from airflow.sdk.observability.stats import Stats

    Stats.timing(metric.value, max(duration, timedelta(0)), tags={"kind": entry.kind.value})


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a metric is worth no failed recovery
        log.debug("metrics were not sent: %s", type(error).__name__)
