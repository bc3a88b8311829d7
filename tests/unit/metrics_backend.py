"""A backend of Airflow's metrics that keeps what it is sent."""

from __future__ import annotations


class Backend:
    """One of Airflow's, that keeps what it is sent."""

    def __init__(self):
        self.sent = []

    def incr(self, stat, count=1, rate=1, *, tags=None):
        self.sent.append(("counter", stat, count, tags))

    def gauge(self, stat, value, rate=1, delta=False, *, tags=None):
        self.sent.append(("gauge", stat, value, tags))

    def timing(self, stat, dt, *, tags=None):
        self.sent.append(("timer", stat, dt, tags))

    def values(self, name):
        return [value for _, stat, value, _ in self.sent if stat == name]


def use(monkeypatch, backend):
    """Send Airflow's metrics there."""
    for name, value in (("_factory", lambda: backend), ("_backend", None)):
        monkeypatch.setattr(f"airflow.sdk._shared.observability.metrics.stats.{name}", value)
    return backend
