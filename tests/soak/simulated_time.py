"""A clock that moves only when somebody would have waited."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

BEGIN = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Clock:
    """Stands in for the modules ``time`` and, by :meth:`datetime`, ``datetime``."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)


def datetime_of(clock: Clock) -> type[datetime]:
    """A ``datetime`` whose ``now`` is the clock's."""

    class SimulatedDatetime(datetime):
        @classmethod
        def now(cls, tz=None):
            return clock.now() if tz else clock.now().replace(tzinfo=None)

    return SimulatedDatetime


def event_of(clock: Clock) -> type[threading.Event]:
    """A ``threading.Event`` that nobody waits for: nobody could set it meanwhile."""

    class SimulatedEvent(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock.sleep(timeout or 0.0)
            return self.is_set()

    return SimulatedEvent
