"""A reverse proxy in front of a real S3 server that refuses or alters what it is told to, and shows another time."""

from __future__ import annotations

import http.client
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

Refusal = Callable[[str, str, Any], tuple[int, str] | None]
"""By method, path with query, and headers: a status and S3's code, or None to let it pass."""
Alteration = Callable[[str, str, bytes], bytes]
"""By method, path with query, and the server's body: the body that is sent on."""


class AlteringS3Proxy(ThreadingHTTPServer):
    """The same buckets at another address. The Host header stays, so that signatures hold."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream)
        self.endpoint_url = f"http://127.0.0.1:{self.server_address[1]}"
        self.refusal: Refusal = lambda method, path, headers: None
        self.alteration: Alteration = lambda method, path, body: body
        self.clock_ahead = timedelta(0)

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AlteringS3Proxy

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0") or 0))
        if refused := self.server.refusal(self.command, self.path, self.headers):
            status, code = refused
            text = f"<Error><Code>{code}</Code><Message>refused</Message><RequestId>{uuid.uuid4()}</RequestId></Error>"
            self._send(status, {"Content-Type": "application/xml"}, text.encode())
            return
        connection = http.client.HTTPConnection(self.server.upstream.hostname or "", self.server.upstream.port)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            body = self.server.alteration(self.command, self.path, answer.read())
            self._send(answer.status, dict(answer.getheaders()), body)
        finally:
            connection.close()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() == "date":
                shown = format_datetime(parsedate_to_datetime(value) + self.server.clock_ahead, usegmt=True)
                self.send_header(name, shown)
            elif name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        if status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
