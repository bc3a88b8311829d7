"""What the receiver counts, for Prometheus, and what of it is logged."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

log = logging.getLogger(__name__)

LOG_SECONDS = 60.0
"""One line a reason in this time: anybody can send what is refused."""
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ReceiverMetrics:
    """Counters of one receiver in a registry of their own: Airflow's process has metrics of its own."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.accepted = Counter("livekit_backup_webhooks_accepted", "Answered with 200.", registry=registry)
        self.stored = Counter("livekit_backup_webhooks_stored", "Put into the inbox.", registry=registry)
        self.already_stored = Counter(
            "livekit_backup_webhooks_already_stored", "In the inbox before.", registry=registry
        )
        self.ignored = Counter("livekit_backup_webhooks_ignored", "Signed, but of no egress.", registry=registry)
        self.seconds = Histogram(
            "livekit_backup_webhook_seconds",
            "From the request's head to its answer.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge("livekit_backup_webhooks_in_flight", "Signed, and not answered yet.", registry=registry)
        self._refused = Counter("livekit_backup_webhooks_refused", "Answered with 4xx.", ["reason"], registry=registry)
        self._failed = Counter("livekit_backup_webhooks_failed", "Answered with 503.", ["reason"], registry=registry)
        self._clock = clock
        self._lock = threading.Lock()
        self._logged: dict[str, tuple[float, int]] = {}

    def refused(self, reason: str, why: str) -> None:
        """Count a request that is not accepted, whoever sends it again."""
        self._refused.labels(reason).inc()
        self.log(reason, "a webhook was refused", f"{reason}: {why}")

    def failed(self, reason: str, why: str) -> None:
        """Count an event that LiveKit shall send again."""
        self._failed.labels(reason).inc()
        self.log(reason, "a webhook was not stored, and shall be sent again", f"{reason}: {why}")

    def text(self) -> bytes:
        """Return all of them as Prometheus reads it."""
        return generate_latest(self.registry)

    def log(self, reason: str, what: str, why: str) -> None:
        """Log one line a reason and minute."""
        with self._lock:
            now = self._clock()
            last, silent = self._logged.get(reason, (-LOG_SECONDS, 0))
            if now - last < LOG_SECONDS:
                self._logged[reason] = (last, silent + 1)
                return
            self._logged[reason] = (now, 0)
        more = f" (and {silent} more since the last such line)" if silent else ""
        log.warning("%s: %s%s", what, why, more)
