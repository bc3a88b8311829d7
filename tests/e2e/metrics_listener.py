"""Takes Airflow's metrics as a StatsD server does, and keeps them."""

from __future__ import annotations

import socket
import threading
from typing import Self

LONGEST = 65_535


class MetricsListener:
    """A UDP socket on loopback."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._take, name="metrics", daemon=True)
        self._sent: list[bytes] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    @property
    def environment(self) -> dict[str, str]:
        """What lets Airflow send its metrics here."""
        host, port = self._socket.getsockname()
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": host,
            "AIRFLOW__METRICS__STATSD_PORT": str(port),
        }

    @property
    def sent(self) -> bytes:
        """All that came so far."""
        return b"\n".join(self._sent)

    def _take(self) -> None:
        while not self._ended.is_set():
            try:
                self._sent.append(self._socket.recv(LONGEST))
            except TimeoutError:
                continue
