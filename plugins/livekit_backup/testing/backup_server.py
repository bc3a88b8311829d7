"""A backup bucket on loopback: real HTTP, S3's signatures, ranges and refusals, faults on demand.

It answers as Amazon's S3 API reference documents for GetObject and HeadObject. A correct URL
always comes first: a fault shows only to a request that S3 would have let through.
"""

from __future__ import annotations

import hashlib
import re
import select
import socket
import ssl
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import unquote

from livekit_backup.testing.fake_api import FakeApi
from livekit_backup.testing.presigning import WEEK, S3Error, SigningKey, check_presigned, expired, presign
from livekit_backup.testing.stored_objects import Breakage, Fault, StoredObject
from livekit_backup.testing.synthetic_bytes import Content

_DRIP = 0.05
"""Seconds between two drips: short enough that a stop is noticed at once."""

_SEND = 64 * 1024
"""Bytes that are counted as sent together, shortly before they leave."""

_SURPLUS = memoryview(b"\xff" * 1024)
"""What ``Fault.LONGER`` sends behind the end."""

_PAGE = b"<!DOCTYPE html><html><body><h1>Please sign in to continue</h1></body></html>"
_NOT_JSON = b'{"egress_id":"EG_cut", "files":[{"filename":"'


@dataclass
class Request:
    """What came in, and what went out. A query string is a credential, and is not kept."""

    method: str
    path: str
    range: str | None
    headers: Mapping[str, str] = field(repr=False)
    status: int = 0
    bytes_sent: int = 0
    """Of the body; grows while it is sent, 64 KiB at a time. What the client has received can be
    some MiB less: the rest is in the sockets' buffers."""


class BackupServer(ThreadingHTTPServer):
    """The HTTP server, with the objects it serves; over TLS where it is given a context with a certificate."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        host: str,
        port: int,
        *,
        base_url: str | None = None,
        key: SigningKey,
        clock: Callable[[], datetime],
        encryption: str = "AES256",
        tls: ssl.SSLContext | None = None,
        api: FakeApi | None = None,
    ) -> None:
        self.api = api
        self.key = key
        self.clock = clock
        self.encryption = encryption
        self.objects: dict[str, StoredObject] = {}
        self.requests: list[Request] = []
        self.connections: set[socket.socket] = set()
        self.stopping = threading.Event()
        self._thread: threading.Thread | None = None
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)
        if tls:
            # The handshake is left to the connection's own thread.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        named = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        origin = f"{f'[{named}]' if ':' in named else named}:{self.server_address[1]}"
        self.base_url = (base_url or f"{'https' if tls else 'http'}://{origin}").rstrip("/")

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name, which can wait for a DNS server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def sign(self, stored: StoredObject, method: str) -> str:
        """A URL of an object, shaped like those in LiveKit's payloads."""
        operation = {"x-id": "HeadObject" if method == "HEAD" else "GetObject"}
        return presign(
            self.key,
            self.base_url,
            stored.path,
            signed_at=stored.uploaded_at,
            method=method,
            query={"x-amz-checksum-mode": "ENABLED", **operation},
        )

    def start(self) -> None:
        """Serve in the background."""
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-livekit", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and let every open connection go, a stalled one too."""
        self.stopping.set()
        if self._thread:
            self.shutdown()
            self._thread.join()
        self.server_close()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        # Threads that still hold a socket would show as warnings in the test that runs next.
        deadline = time.monotonic() + 2
        while self.connections and time.monotonic() < deadline:
            time.sleep(0.005)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show what went wrong here; a client that leaves is no error, nor what a stop cuts off."""
        if not self.stopping.is_set() and not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: BackupServer

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.server.connections.discard(self.connection)

    def version_string(self) -> str:
        return "AmazonS3"

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date header, by the server's own clock."""
        moment = self.server.clock() if timestamp is None else datetime.fromtimestamp(timestamp, UTC)
        return format_datetime(moment.astimezone(UTC), usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the line would hold the query string."""

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        received = {name.lower(): value for name, value in self.headers.items()}
        self.entry = Request(self.command, path, received.get("range"), received)
        if path == "/healthz":
            self._send_whole(200, b"ok\n", "text/plain")
            return
        self.server.requests.append(self.entry)
        try:
            self._serve(path)
        except S3Error as refusal:
            body = refusal.xml(uuid.uuid4().hex[:16].upper())
            self._send_whole(refusal.status, body, "application/xml", refusal.headers)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(self.path.partition("?")[0])
        length = self.headers.get("Content-Length", "")
        if self.server.api and path.startswith("/twirp/") and length.isdecimal() and int(length) <= 1024 * 1024:
            received = {name.lower(): value for name, value in self.headers.items()}
            self.entry = Request(self.command, path, None, received)
            self.server.requests.append(self.entry)
            answer = self.server.api.answer(path, received, self.rfile.read(int(length)))
            if answer.hangs:
                self._hold()
                self.close_connection = True
            else:
                self._send_whole(answer.status, answer.body, answer.content_type, answer.headers)
            return
        self._refuse_method()

    def _refuse_method(self) -> None:
        self.close_connection = True  # its body stays unread
        message = "The specified method is not allowed against this resource."
        refusal = S3Error(405, "MethodNotAllowed", message)
        self.entry = Request(self.command, "", None, {})
        self._send_whole(405, refusal.xml("0"), "application/xml", {"Connection": "close"})

    do_PUT = do_DELETE = _refuse_method

    def _serve(self, path: str) -> None:
        now = self.server.clock()
        check_presigned(self.server.key, method=self.command, target=self.path, headers=self.entry.headers, now=now)
        stored = self.server.objects.get(path)
        if stored is None:
            raise _no_such_key(path)
        breakage = stored.next_breakage()
        match breakage:
            case Breakage(fault=Fault.HTML_ERROR):
                self._send_whole(200, _PAGE, "text/html; charset=utf-8")
            case Breakage(fault=Fault.NOT_JSON):
                self._send_whole(200, _NOT_JSON, stored.content_type)
            case Breakage(fault=Fault.REDIRECT):
                self._send_whole(302, b"", "text/plain", {"Location": breakage.location})
            case _:
                if breakage and (refusal := _refusal(breakage, path, now)):
                    raise refusal
                self._send_object(stored, breakage)

    def _send_object(self, stored: StoredObject, breakage: Breakage | None) -> None:
        content, etag = stored.as_served(breakage)
        if self.server.encryption != "AES256":
            # Under SSE-KMS an ETag is no MD5 of anything (S3 user guide, "Checking object integrity").
            etag = hashlib.md5(f"{self.server.encryption}/{etag}".encode(), usedforsecurity=False).hexdigest()
        fault = breakage and breakage.fault
        if self.entry.headers.get("if-match", "*") not in ("*", f'"{etag}"', etag):
            raise S3Error(
                412,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
                details={"Condition": "If-Match"},
            )
        asked = None if fault is Fault.IGNORE_RANGE else _byte_range(self.entry.range, content.size)
        if asked and fault is Fault.WRONG_RANGE:
            asked = _moved(*asked, content.size)
        start, stop = asked or (0, content.size)
        headers = {
            "Last-Modified": format_datetime(stored.uploaded_at.astimezone(UTC), usegmt=True),
            "ETag": f'"{etag}"',
            "x-amz-server-side-encryption": self.server.encryption,
            "Accept-Ranges": "bytes",
            "Content-Type": stored.content_type,
        }
        if asked:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
        if fault is Fault.GZIP:
            headers["Content-Encoding"] = "gzip"
        if breakage and fault is Fault.NO_LENGTH:
            headers |= {"Transfer-Encoding": "chunked"} if breakage.chunked else {"Connection": "close"}
        else:
            headers["Content-Length"] = str(stop - start)
        self._send_head(206 if asked else 200, headers)
        if self.command != "HEAD":
            self._send_body(content, start, stop, breakage)

    def _send_whole(
        self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        basics = {"Content-Type": content_type, "Content-Length": str(len(body))}
        self._send_head(status, {**basics, **(headers or {})})
        if self.command != "HEAD" and body:
            self._write(memoryview(body))

    def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.entry.status = status
        self.send_response(status)
        self.send_header("x-amz-request-id", uuid.uuid4().hex[:16].upper())
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_body(self, content: Content, start: int, stop: int, breakage: Breakage | None) -> None:
        length = stop - start
        end = start + (_sendable(breakage, length) if breakage else length)
        pieces = content.pieces(start, end)
        fault = breakage and breakage.fault
        if breakage and fault is Fault.SLOW:
            pieces = self._drip(pieces, breakage.bytes_per_second)
        chunked = bool(breakage and fault is Fault.NO_LENGTH and breakage.chunked)
        for piece in pieces:
            self._write(piece, chunked=chunked)
        if chunked and end == stop:
            self.connection.sendall(b"0\r\n\r\n")
        if fault is Fault.LONGER:
            self._write(_SURPLUS)
        if fault is Fault.STALL:
            self._hold()
        if fault is Fault.RESET:
            self._reset()
        self.close_connection |= end < stop or fault in (Fault.STALL, Fault.RESET)

    def _write(self, piece: memoryview, *, chunked: bool = False) -> None:
        if chunked:
            self.connection.sendall(f"{len(piece):x}\r\n".encode())
        for first in range(0, len(piece), _SEND):
            part = piece[first : first + _SEND]
            # Counted before it leaves: a test that has read it all must find it in the log.
            self.entry.bytes_sent += len(part)
            self.connection.sendall(part)
        if chunked:
            self.connection.sendall(b"\r\n")

    def _drip(self, pieces: Iterable[memoryview], bytes_per_second: int) -> Iterator[memoryview]:
        drop = max(1, int(bytes_per_second * _DRIP))
        for piece in pieces:
            for first in range(0, len(piece), drop):
                if self.server.stopping.wait(drop / bytes_per_second):
                    raise ConnectionAbortedError("the server stops")
                yield piece[first : first + drop]

    def _hold(self) -> None:
        # Over TLS as well, where a leaving client may send something first.
        left = select.poll()
        left.register(self.connection, select.POLLRDHUP)
        while not self.server.stopping.is_set() and not left.poll(_DRIP * 1000):
            pass

    def _reset(self) -> None:
        # A lingering time of zero turns the close into a reset; rfile keeps the socket open otherwise.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()


def _refusal(breakage: Breakage, path: str, now: datetime) -> S3Error | None:
    match breakage.fault:
        case Fault.EXPIRED:
            return expired(now - timedelta(seconds=WEEK + 1), WEEK, now)
        case Fault.NOT_FOUND:
            return _no_such_key(path)
        case Fault.TOO_MANY_REQUESTS:
            wait = {"Retry-After": str(breakage.retry_after)}
            return S3Error(429, "TooManyRequests", "Please reduce your request rate.", headers=wait)
        case Fault.SERVER_ERROR if breakage.status == 503:
            return S3Error(503, "SlowDown", "Please reduce your request rate.")
        case Fault.SERVER_ERROR:
            return S3Error(breakage.status, "InternalError", "We encountered an internal error. Please try again.")
    return None


def _no_such_key(path: str) -> S3Error:
    key = path.lstrip("/").partition("/")[2]
    return S3Error(404, "NoSuchKey", "The specified key does not exist.", details={"Key": key})


def _sendable(breakage: Breakage, length: int) -> int:
    if breakage.fault in (Fault.STALL, Fault.CUT_SHORT, Fault.RESET):
        return breakage.position(length)
    return breakage.position(length, None) if breakage.fault is Fault.NO_LENGTH else length


def _moved(start: int, stop: int, size: int) -> tuple[int, int]:
    """A range a byte further on, or a byte back where there is nothing further on."""
    return (start + 1, stop + 1) if stop < size else (max(0, start - 1), max(1, stop - 1))


def _byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; S3 ignores a header that is not one range."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not found or found[0] == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < int(first):
            return None
    if start >= size:
        raise S3Error(
            416,
            "InvalidRange",
            "The requested range is not satisfiable",
            details={"RangeRequested": header or "", "ActualObjectSize": str(size)},
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, stop
