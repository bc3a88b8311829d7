"""LiveKit's backup storage: it answers as its files' fates and the run's faults say."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from http.client import responses
from random import Random
from urllib.parse import parse_qs, urlsplit

from .chaos import Chaos
from .recordings import FRESH_UNTIL, HOST, Backup, Truth, World
from .simulated_time import Clock
from .stage import Stage
from .wire import Step

UNCONNECTED = {
    "source: connection refused": "refused",
    "source: no such name": "name",
    "source: connecting takes too long": "time",
    "source: TLS fails": "tls",
}
STATUSES = {
    "source: 403 expired": (403, b"<Code>AccessDenied</Code><Message>Request has expired</Message>", {}),
    "source: 403 denied": (403, b"<Code>AccessDenied</Code>", {}),
    "source: 404": (404, b"<Code>NoSuchKey</Code>", {}),
    "source: 416": (416, b"", {}),
    "source: 412": (412, b"", {}),
    "source: 429": (429, b"", {"Retry-After": "7"}),
    "source: 429 for an hour": (429, b"", {"Retry-After": "3600"}),
    "source: 500": (500, b"<Code>InternalError</Code>", {}),
    "source: 503": (503, b"<Code>SlowDown</Code>", {}),
    "source: redirect": (302, b"", {"Location": "http://169.254.169.254/"}),
}
BODIES = (
    "source: reset in the middle",
    "source: stalls",
    "source: drips",
    "source: cut short",
    "source: cut short without a length",
    "source: more bytes than announced",
    "source: wrong bytes",
    "source: an encoding that nobody asked for",
    "source: a page with status 200",
)
RANGES = (
    "source: 200 instead of 206",
    "source: a range that was not asked for",
    "source: no word of which range",
)
BROKEN = ("source: reset in the middle", "source: cut short")
CHANGES = ("source: another ETag",)
LINKS = ("source: the link dies",)
UNCONNECTED_MANIFESTS = {"manifest: connection refused": "refused"}
MANIFESTS: dict[str, Exception | float | tuple[int, bytes, dict[str, str]]] = {
    "manifest: time-out": 1e6,
    "manifest: reset": ConnectionResetError(104, "reset by peer"),
    "manifest: 503": (503, b"", {}),
    "manifest: 429": (429, b"", {"Retry-After": "3"}),
    "manifest: 404": (404, b"<Code>NoSuchKey</Code>", {}),
    "manifest: 403 denied": (403, b"<Code>AccessDenied</Code>", {}),
    "manifest: a page with status 200": (200, b"<html>Sorry</html>", {"Content-Type": "text/html"}),
    "manifest: redirect": (302, b"", {"Location": "http://169.254.169.254/"}),
}
MANIFEST_BODIES = ("manifest: cut short",)
KINDS = (
    *UNCONNECTED,
    *STATUSES,
    *BODIES,
    *RANGES,
    *CHANGES,
    *LINKS,
    *UNCONNECTED_MANIFESTS,
    *MANIFESTS,
    *MANIFEST_BODIES,
)

_RANGE = re.compile(rb"\r\nRange: bytes=(\d+)-(\d*)\r\n", re.IGNORECASE)
_MATCH = re.compile(rb'\r\nIf-Match: "([^"]*)"\r\n', re.IGNORECASE)


class Home:
    """Answers requests."""

    def __init__(self, world: World, stage: Stage, chaos: Chaos, clock: Clock, rng: Random) -> None:
        self._files = {file.path: file for _, file in world.files()}
        self._manifests = {backup.path: backup for backup in world.backups}
        self._stage, self._chaos, self._clock, self._rng = stage, chaos, clock, rng
        self.requests = 0

    def connect(self, url: bytes) -> str:
        """Say what is wrong with the way to a path."""
        self._stage.step("connect")
        path = urlsplit(url.decode()).path.lstrip("/")
        if backup := self._manifests.get(path):
            return UNCONNECTED_MANIFESTS.get(self._chaos.strike(list(UNCONNECTED_MANIFESTS), backup.egress_id), "")
        wrong = UNCONNECTED.get(self._chaos.strike(list(UNCONNECTED), path, 1.5), "")
        if wrong == "tls":
            raise ssl.SSLError(1, "handshake failure")
        return wrong

    def answer(self, request: bytes) -> Iterator[Step]:
        """Answer the request for a recording or for a manifest."""
        url = urlsplit(request.split(b" ", 2)[1].decode())
        if backup := self._manifests.get(url.path.lstrip("/")):
            return self._manifest(backup)
        self._stage.step("request")
        self.requests += 1
        file = self._files[url.path.lstrip("/")]
        is_fresh = "fresh" in parse_qs(url.query)
        asked = _RANGE.search(request)
        matches = _MATCH.search(request)
        has_condition = bool(matches) or b"\r\nIf-Unmodified-Since: " in request
        status, body, headers = self._status(file, is_fresh=is_fresh)
        changed: dict[str, str] = {}
        if not status:
            fault = self._chaos.strike([*STATUSES, *CHANGES, *LINKS], file.path, 3)
            if fault in STATUSES:
                status, body, headers = STATUSES[fault]
            elif fault in CHANGES:
                changed = file.other_headers()
            elif fault:
                self._die(file)
                status, body, headers = self._status(file, is_fresh=is_fresh)
        etag = {**file.headers(), **changed}.get("ETag", "").strip('"')
        if changed and has_condition and self._rng.random() < 0.5:
            # A home that knows no conditions gives the bytes of the other version.
            return self._body(file, asked, changed, _altered(file.data, len(file.data) // 3, 0x02))
        if not status and matches and matches[1].decode() != etag:
            status = 412
        if status:
            return _plain(status, body, headers)
        return self._body(file, asked, changed, file.data)

    def _die(self, file: Truth) -> None:
        """Let the link die; there is a fresh one where its fate says so."""
        if file.fate not in ("dies", "dies, and there is a fresh link"):
            # The key that signed it is no more: what follows is a fate of its own.
            file.fate = (
                self._rng.choice(("dies", "dies, and there is a fresh link")) if file.fate == "fine" else file.fate
            )
        file.died = True
        file.is_renewed = file.fate == "dies, and there is a fresh link"

    def _status(self, file: Truth, *, is_fresh: bool) -> tuple[int, bytes, dict[str, str]]:
        """Return what a file's fate says for ever."""
        is_over = self._clock.now() > (FRESH_UNTIL if is_fresh else file.deadline)
        if is_over or (file.died and not is_fresh and file.fate.startswith("dies")):
            return STATUSES["source: 403 expired"]
        return {
            "gone": STATUSES["source: 404"],
            "dead before": STATUSES["source: 403 expired"],
            "redirects": STATUSES["source: redirect"],
            "denied": STATUSES["source: 403 denied"],
            "down": STATUSES["source: 503"],
            "a page": (200, b"<html>Sorry</html>", {"Content-Type": "text/html; charset=utf-8"}),
            "encoded": (200, b"x" * 20, {"Content-Encoding": "gzip"}),
            "no length": (200, b"", {"Transfer-Encoding": "chunked"}),
        }.get(file.fate, (0, b"", {}))

    def _body(self, file: Truth, asked: re.Match[bytes] | None, changed: dict[str, str], data: bytes) -> Iterator[Step]:
        size = len(data)
        if file.fate == "wrong bytes":
            data = _altered(data, size // 2, 0x01)
        start, stop, status = 0, size, 200
        headers = {"Content-Type": "video/mp4", **file.headers(), **changed}
        if asked:
            start, status = int(asked[1]), 206
            stop = min(size, int(asked[2]) + 1) if asked[2] else size
            if start >= size:
                return _plain(416, b"", {})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        fault = self._chaos.strike([*BODIES, *(RANGES if asked else ())], file.path, 4)
        body = data[start:stop]
        if fault in RANGES:
            body, status = self._other_range(fault, data, start, stop, headers)
        elif fault == "source: wrong bytes" and body and file.proves:
            body = _altered(body, self._rng.randrange(len(body)))
        elif fault == "source: an encoding that nobody asked for":
            headers["Content-Encoding"] = "gzip"
        elif fault == "source: a page with status 200":
            return _plain(200, b"<html>Sorry</html>", {"Content-Type": "text/html"})
        headers["Content-Length"] = str(len(body))
        if fault == "source: cut short without a length":
            del headers["Content-Length"]
        return self._steps(_head(status, headers), body, fault)

    def _other_range(
        self, fault: str, data: bytes, start: int, stop: int, headers: dict[str, str]
    ) -> tuple[bytes, int]:
        """Answer with another range than the one that was asked for, or without a word of which it is."""
        del headers["Content-Range"]
        if fault == "source: 200 instead of 206":
            return data, 200
        if fault == "source: a range that was not asked for":
            start = start - 1 if start else min(1, stop - 1)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return data[start:stop], 206

    def _steps(self, head: bytes, body: bytes, fault: str) -> Iterator[Step]:
        at = self._rng.randrange(len(body)) if body else 0
        yield head
        if fault == "source: reset in the middle":
            yield from self._pieces(body[:at])
            yield ConnectionResetError(104, "reset by peer")
        elif fault == "source: stalls":
            yield from self._pieces(body[:at])
            yield 1e6
        elif fault == "source: drips":
            for byte in range(len(body)):
                yield 20.0
                yield body[byte : byte + 1]
        elif fault.startswith("source: cut short"):
            yield from self._pieces(body[:at])
        elif fault == "source: more bytes than announced":
            yield from self._pieces(body)
            yield b"and more"
        else:
            yield from self._pieces(body)

    def _pieces(self, body: bytes) -> Iterator[Step]:
        """Give a body as packets bring it: the process can be killed between any two."""
        while body:
            self._stage.step("read")
            count = self._rng.choice((len(body), 700, 5000))
            yield body[:count]
            body = body[count:]

    def _manifest(self, backup: Backup) -> Iterator[Step]:
        self._stage.step("manifest")
        fault = MANIFESTS.get(self._chaos.strike(list(MANIFESTS), backup.egress_id))
        if isinstance(fault, tuple):
            return _plain(*fault)
        if fault:
            return iter([fault])
        if backup.manifest == "gone":
            return _plain(*STATUSES["source: 404"])
        if backup.manifest == "dead" or self._clock.now() > backup.deadline:
            return _plain(*STATUSES["source: 403 expired"])
        body = b"{}" if backup.manifest == "not a manifest" else backup.manifest_body()
        if self._chaos.strike(MANIFEST_BODIES, backup.egress_id):
            return iter([_head(200, {"Content-Length": str(len(body))}), body[: len(body) // 2]])
        return _plain(200, body, {})


def _altered(data: bytes, at: int, bits: int = 0x40) -> bytes:
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {responses.get(status, '')}", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def _plain(status: int, body: bytes, headers: dict[str, str]) -> Iterator[Step]:
    if "Transfer-Encoding" in headers:
        return iter([_head(status, headers), b"5\r\nhello\r\n0\r\n\r\n"])
    return iter([_head(status, {"Content-Length": str(len(body)), **headers}), body])


__all__ = ["HOST", "KINDS", "Home"]
