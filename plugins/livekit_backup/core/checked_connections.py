"""Connections to the homes of recordings: only to checked addresses, with answers that begin in bounded time.

A name is looked up once: the addresses that were checked are those that a connection goes to, so that a name server
which answers differently the second time gains nothing. TLS and the Host header stay the name's.
"""

from __future__ import annotations

import http.client
import socket
import time
from functools import partial
from typing import Any, cast

import urllib3
import urllib3.connection
from urllib3.util.connection import create_connection

HEADERS_SECONDS = 30.0
"""Then no further read begins; one that has begun ends by its own time-out."""
MOST_ADDRESSES = 8
"""Of one name are tried, as many as S3's names have: each can take a whole time-out for a connection."""


class CheckedAddresses:
    """The addresses that new connections may go to. Whoever checks a location again sets them anew."""

    def __init__(self) -> None:
        self.known: tuple[str, ...] | None = None
        """None: the host is allowed by its full name, wherever that leads."""


class _BoundedAnswer(http.client.HTTPResponse):
    """An answer, of a home or of a proxy, whose headers must be complete in time.

    The time-out of a socket starts anew with every byte, and http.client reads on behind as many ``100 Continue``
    as come. So the time is looked at before each read of the socket, until the headers are there.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._raw = self.fp.raw
        read, until = self._raw.readinto, time.monotonic() + HEADERS_SECONDS

        def read_in_time(view: Any) -> int | None:
            if time.monotonic() > until:
                raise TimeoutError("the headers took too long")
            return read(view)

        # On this one reader: a class of our own would cost a call for each 16 KiB of the body. A proxy's answer
        # to CONNECT is read without begin(), and closed behind its headers.
        self._raw.readinto = read_in_time  # type: ignore[method-assign]

    def begin(self) -> None:
        try:
            super().begin()
        finally:
            del self._raw.readinto


class _KeepsAnswer(http.client.HTTPConnection):
    """Keeps the answer as http.client gave it: that one can be read without a copy, urllib3's cannot.

    Stands behind urllib3's own connection classes, whose ``super().getresponse()`` ends up here.
    """

    response_class = _BoundedAnswer
    answer: http.client.HTTPResponse

    def getresponse(self) -> http.client.HTTPResponse:
        self.answer = super().getresponse()
        return self.answer


class _GoesWhereChecked(urllib3.connection.HTTPConnection):
    """Connects to the addresses that were checked, and looks up no name of its own."""

    def __init__(self, *args: Any, checked: CheckedAddresses | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._checked = checked

    def _new_conn(self) -> socket.socket:
        addresses = self._checked.known if self._checked else None
        if addresses is None:
            return super()._new_conn()
        fault: OSError | None = None
        for address in addresses[:MOST_ADDRESSES]:
            try:
                return create_connection(
                    (address, self.port),
                    # Set by the pool, from the request's own time-outs, before it connects.
                    cast("float", self.timeout),
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except OSError as error:
                fault = error
        if isinstance(fault, TimeoutError):
            raise urllib3.exceptions.ConnectTimeoutError(self, "no address answers in time") from fault
        raise urllib3.exceptions.NewConnectionError(self, "no address can be reached") from fault


class _HttpConnection(_GoesWhereChecked, _KeepsAnswer):  # type: ignore[misc]
    """urllib3's own answer wraps the kept one."""


class _HttpsConnection(_GoesWhereChecked, urllib3.connection.HTTPSConnection, _KeepsAnswer):  # type: ignore[misc]
    """The same over TLS."""


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection

    def __init__(self, *args: Any, checked: CheckedAddresses | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn_kw["checked"] = checked


class _HttpsPool(_HttpPool, urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection  # type: ignore[assignment]


def pool_classes(checked: CheckedAddresses | None) -> dict[str, Any]:
    """Return what a pool manager makes its pools of, by scheme.

    :param checked: what new connections may go to; None where a proxy's name is looked up as any other.
    """
    return {"http": partial(_HttpPool, checked=checked), "https": partial(_HttpsPool, checked=checked)}


def answer_of(response: urllib3.BaseHTTPResponse) -> http.client.HTTPResponse:
    """Return the answer as http.client has it: its ``fp`` reads into a buffer without a copy."""
    return cast("_KeepsAnswer", response.connection).answer
