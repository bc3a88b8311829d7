"""A real HTTP proxy on loopback that lets nobody through without a user and a password."""

from __future__ import annotations

import base64
import select
import socket
import ssl
import threading
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Self
from urllib.parse import quote, urlsplit

USER, PASSWORD = "jo@acme", "hush:ß"


class DemandingProxy(ThreadingTCPServer):
    """Tunnels by CONNECT and forwards plain requests; over TLS where it is given a context."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.place = f"{'https' if tls else 'http'}://{{}}127.0.0.1:{self.server_address[1]}"
        self.asked: list[tuple[str, str, bool]] = []
        """Method, host and port, and whether the login was right."""
        self.stopping = threading.Event()

    @property
    def login(self) -> str:
        """What it demands, as the header has it."""
        return base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def url(self, password: str | None = PASSWORD) -> str:
        """As it stands in a variable of the environment."""
        return self.place.format("" if password is None else f"{quote(USER)}:{quote(password)}@")

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no error."""


class _Handler(StreamRequestHandler):
    server: DemandingProxy
    rbufsize = 0

    def handle(self) -> None:
        method, target, headers = self._head()
        place = urlsplit(target if "://" in target else f"//{target}")
        host, port = place.hostname or "", place.port or 80
        is_known = f"proxy-authorization: basic {self.server.login}".lower() in (line.lower() for line in headers)
        self.server.asked.append((method, f"{host}:{port}", is_known))
        if not is_known:
            answer = "HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n"
            self.wfile.write(answer.encode())
            return
        with socket.create_connection((host, port), timeout=5) as upstream:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                kept = [line for line in headers if not line.lower().startswith(("proxy-", "connection:"))]
                path = f"{place.path}?{place.query}"
                head = [f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
                upstream.sendall("\r\n".join(head).encode("latin-1"))
            self._relay(upstream)

    def _head(self) -> tuple[str, str, list[str]]:
        lines = []
        while line := self.rfile.readline().decode("latin-1").rstrip("\r\n"):
            lines.append(line)
        method, target, _ = lines[0].split(" ")
        return method, target, lines[1:]

    def _relay(self, upstream: socket.socket) -> None:
        ends = {self.connection: upstream, upstream: self.connection}
        while not self.server.stopping.is_set():
            pending = [end for end in ends if isinstance(end, ssl.SSLSocket) and end.pending()]
            for end in pending or select.select(list(ends), [], [], 0.05)[0]:
                data = end.recv(65_536)
                if not data:
                    return
                ends[end].sendall(data)
