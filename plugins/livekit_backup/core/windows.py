"""Which window a run takes in, and which inbox prefixes hold it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from livekit_backup.errors import ConfigurationError
from livekit_backup.models.settings import BACKUP_LIFETIME
from livekit_backup.models.window import Window

HOUR = timedelta(hours=1)
MAX_AHEAD = timedelta(days=2)
"""A run that waits longer is a mistake, and holds one of the DAG's active runs."""
MAX_SPAN = timedelta(days=400)
"""Links live for 7 days; to account for a year that is over is as much as makes sense."""


def resolve_window(
    *,
    start: datetime | None,
    end: datetime | None,
    has_egress_ids: bool,
    interval: tuple[datetime, datetime] | None,
    partition_date: datetime | None,
    run_after: datetime,
    grace: timedelta,
) -> Window:
    """Return the window of a run: its params, else its data interval, else its partition's hour, else the last hour.

    Egress ids alone look back over all that LiveKit can still have: 7 days, up to now.
    A start without an end reaches up to now; an end without a start one hour back, with egress ids 7 days.
    A run without a logical date has no data interval, so ``run_after`` is the last resort.

    :raises ConfigurationError: the window would end before it starts.
    """
    now = run_after - grace
    if start or end:
        last = end or now
        window = _window(start or last - (BACKUP_LIFETIME if has_egress_ids else HOUR), last)
        if window.end > _plain(run_after) + MAX_AHEAD or window.end - window.start > MAX_SPAN:
            raise ConfigurationError(
                f"the window from {window.start.isoformat()} to {window.end.isoformat()} is too far ahead or too long: "
                f"it may end {MAX_AHEAD.days} days after the run was made, and span {MAX_SPAN.days} days"
            )
        return window
    if has_egress_ids:
        return _window(now - BACKUP_LIFETIME, now)
    if interval and interval[0] < interval[1]:
        return _window(*interval)
    if partition_date:
        return _window(partition_date, partition_date + HOUR)
    return _window(now - HOUR, now)


def _window(start: datetime, end: datetime) -> Window:
    start, end = _plain(start), _plain(end)
    if start >= end:
        raise ConfigurationError(
            f"the window would start at {start.isoformat()} and end at {end.isoformat()}: "
            "give a start before the end, which is grace ago unless it is given"
        )
    return Window(start=start, end=end)


def _plain(moment: datetime) -> datetime:
    """Airflow's pendulum times lose their zone in arithmetic once they carry a standard library's zone."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return datetime.fromtimestamp(aware.timestamp(), UTC)
    except (ValueError, OverflowError, OSError):
        raise ConfigurationError(f"{moment.isoformat()} is no time that a window can start or end at") from None


def is_closed(window: Window, grace: timedelta, now: datetime) -> bool:
    """Whether all events of the window should be in the inbox. The sensor and its trigger both ask this."""
    return now >= window.closes_at(grace)


def inbox_prefixes(inbox: str, layout: str, window: Window) -> Iterator[str]:
    """Give each inbox prefix that the window touches, once: whole hours, in UTC."""
    hour = window.start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    last = ""
    while hour < window.end:
        prefix = hour_prefix(inbox, layout, hour)
        if prefix != last:
            yield prefix
        last = prefix
        hour += HOUR


def hour_prefix(inbox: str, layout: str, moment: datetime) -> str:
    """Return the inbox prefix of the hour that a moment lies in."""
    # A layout can name minutes: a run then reads those of the hour's beginning.
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return f"{inbox}/{hour.strftime(layout).lstrip('/')}"
