"""HTTP without sockets: real requests and answers, byte for byte, between urllib3 and a simulated home."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import urllib3
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from livekit_backup.core.checked_connections import _HttpConnection

from .simulated_time import Clock

Step = bytes | Exception | float
"""Bytes that come, an error, or seconds in which nothing does."""


class _Stream(io.RawIOBase):
    """What comes over one connection, read by read."""

    def __init__(self, steps: Iterator[Step], clock: Clock, timeout: Callable[[], float]) -> None:
        self._steps = steps
        self._clock = clock
        self._timeout = timeout
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, view) -> int:
        while not self._rest:
            step = next(self._steps, b"")
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                waited = min(step, self._timeout())
                self._clock.sleep(waited)
                if waited < step:
                    raise TimeoutError("timed out")
                continue
            if not step:
                return 0
            self._rest = step
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Socket:
    def __init__(self, answer: Callable[[bytes], Iterator[Step]], clock: Clock) -> None:
        self._answer = answer
        self._clock = clock
        self._sent = b""
        self._seconds = 30.0
        self.is_closed = False

    def settimeout(self, seconds) -> None:
        self._seconds = 30.0 if seconds is None else float(seconds)

    def sendall(self, data) -> None:
        self._sent += bytes(data)

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        request, self._sent = self._sent, b""
        return io.BufferedReader(_Stream(self._answer(request), self._clock, lambda: self._seconds))

    def shutdown(self, *_: object) -> None:
        self.is_closed = True

    def close(self) -> None:
        self.is_closed = True


class Network:
    """Connections to one home."""

    def __init__(
        self, connect: Callable[[bytes], str], answer: Callable[[bytes], Iterator[Step]], clock: Clock
    ) -> None:
        """Take what connects: it returns what is wrong, or an empty text."""
        self.connect, self.answer, self.clock = connect, answer, clock

    def pool(self, _location: object, _checked: object) -> urllib3.PoolManager:
        """What :func:`livekit_backup.core.http_connections.pool_for` gives."""
        network = self

        class Connection(_HttpConnection):
            def _new_conn(self):
                return _Socket(network.answer, network.clock)

            def request(self, method, url, *args, **options):
                # Here the path is known, so that a fault can be some file's own.
                wrong = network.connect(url.encode())
                if wrong == "name":
                    raise NameResolutionError(self.host, self, OSError("no such name"))
                if wrong == "refused":
                    raise NewConnectionError(self, "Connection refused")
                if wrong == "time":
                    raise ConnectTimeoutError(self, "timed out")
                if wrong:
                    raise OSError(wrong)
                super().request(method, url, *args, **options)

            @property
            def is_connected(self):
                return self.sock is not None and not self.sock.is_closed

        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Connection

        manager = urllib3.PoolManager(num_pools=1, maxsize=8, retries=False)
        manager.pool_classes_by_scheme = {"http": Pool}
        return manager
