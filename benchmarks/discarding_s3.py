"""An S3 API, over TLS unless said otherwise, that drops recordings and answers as if it had kept them.

What it answers is right: a part's ETag is the MD5 of the bytes that the recording has there, known
from the recording's name (:mod:`synthetic_recordings`), so that every engine's own checks pass and
the sink spends no hash on them. ``--verify`` has it hash what comes and refuse what differs. Small
documents, as the ledger's, are kept. Only signatures are not checked. See :mod:`tls_stream` for why
it is in Python.

By hand: ``python benchmarks/discarding_s3.py --tls /tmp/bench-tls --port 9443``.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from awscrt.checksums import crc64nvme

from discarded_objects import CRC64NVME, DiscardedObjects
from local_server import end_gracefully, say_ready
from local_tls import HOST, local_tls
from s3_answers import Answer, Body, Request, is_checksum
from synthetic_recordings import recording_content
from tls_stream import AwsChunks, PlainStream, TlsStream

REASONS = {100: "Continue", 200: "OK", 204: "No Content", 206: "Partial Content", 404: "Not Found"}
_TRAILER = re.compile(rb"(x-amz-checksum-[a-z0-9]+):([A-Za-z0-9+/=]+)\r\n")


class Connection:
    """Answers one client's requests, one after the other."""

    def __init__(self, stream: TlsStream, objects: DiscardedObjects, *, verify: bool) -> None:
        self._stream = stream
        self._objects = objects
        self._verify = verify

    def serve(self) -> None:
        """Answer until the client leaves."""
        while lines := self._stream.read_head():
            method, target, _ = lines[0].split(" ")
            path, _, query = target.partition("?")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            request = Request(method, unquote(path), dict(parse_qsl(query, keep_blank_values=True)), headers)
            body = self._take_body(request)
            if path == "/_stats":
                answer = Answer(200, json.dumps({**self._objects.stats, "cpu_seconds": time.process_time()}).encode())
            else:
                answer = self._objects.answer(request, body)
            self._send(method, answer)

    def _take_body(self, request: Request) -> Body:
        headers = request.headers
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        framed = int(headers.get("content-length", 0))
        if not chunked and not framed:
            return Body(0, b"", hashlib.md5(usedforsecurity=False).digest(), {})
        if headers.get("expect", "").lower() == "100-continue":
            self._stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        taken = TakenBody(request, self._objects, verify=self._verify)
        if chunked:
            self._stream.drain_chunked(taken.see)
        else:
            self._stream.drain(framed, taken.see)
        return taken.end()

    def _send(self, method: str, answer: Answer) -> None:
        lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Status')}", "Server: discarding"]
        headers = {"Content-Length": str(len(answer.body)), "x-amz-request-id": "0", **answer.headers}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self._stream.send(head if method == "HEAD" else head + answer.body)


class TakenBody:
    """What is learnt of a body while it passes."""

    def __init__(self, request: Request, objects: DiscardedObjects, *, verify: bool) -> None:
        self._request = request
        self._objects = objects
        headers = request.headers
        self._length = int(headers.get("x-amz-decoded-content-length") or headers.get("content-length") or 0)
        self._content = recording_content(request.path) if _is_recording(request) else None
        is_known = self._content is not None and self._length > 0
        if is_known:
            objects.announce_part(request, self._length)
        self._digest = None if is_known and not verify else hashlib.md5(usedforsecurity=False)
        self._crc64nvme = 0
        self._seen = 0
        self._kept = None if self._content else bytearray()
        self._tail = b""
        # A body whose digest is known already is only counted, framing and all.
        payload = self._payload if self._digest else None
        self.see: Callable[[memoryview], object] | None = payload
        if "aws-chunked" in headers.get("content-encoding", ""):
            inner = AwsChunks(payload) if payload else None
            self.see = lambda piece: (self._remember_tail(piece), inner(piece) if inner else None)

    def _payload(self, piece: memoryview) -> None:
        self._seen += len(piece)
        self._digest.update(piece)
        self._crc64nvme = crc64nvme(piece, self._crc64nvme)
        if self._kept is not None:
            self._kept += piece

    def _remember_tail(self, piece: memoryview) -> None:
        self._tail = (self._tail + bytes(piece[-256:]))[-256:]

    def end(self) -> Body:
        """Return what is known of the whole body."""
        headers = self._request.headers
        length = self._length or self._seen
        expected = None
        if self._content and length:
            start = self._objects.part_start(self._request, length, self._content.size)
            expected = self._content.md5(start, length)
        md5 = self._digest.digest() if self._digest else expected
        checksums = {name: value for name, value in headers.items() if is_checksum(name)}
        checksums |= {name.decode(): value.decode() for name, value in _TRAILER.findall(self._tail)}
        wrong = ""
        if expected and md5 != expected:
            wrong = "the bytes are not the recording's"
        # That of a completion is not of this body.
        sent = checksums.get(CRC64NVME) if self._digest and self._request.method == "PUT" else None
        if sent and base64.b64decode(sent) != self._crc64nvme.to_bytes(8, "big"):
            wrong = "the CRC64NVME is not that of the bytes"
        if (said := headers.get("content-md5")) and base64.b64decode(said) != md5:
            wrong = "the Content-MD5 is not that of the bytes"
        kept = None if self._kept is None else bytes(self._kept)
        return Body(length, kept, md5, checksums, wrong=wrong, hashed=bool(self._digest and self._content))


def _is_recording(request: Request) -> bool:
    return request.method == "PUT" and "tagging" not in request.query


def serve(listener: socket.socket, tls_folder: Path | None, *, verify: bool) -> None:
    """Answer every connection in a thread of its own; without a folder of certificates in the clear."""
    context = tls_folder and local_tls(tls_folder).server_context()
    objects = DiscardedObjects()

    def answer(connection: socket.socket) -> None:
        try:
            stream = TlsStream(connection, context) if context else PlainStream(connection)
            Connection(stream, objects, verify=verify).serve()
        except (EOFError, OSError):
            pass  # a client that leaves is no error
        finally:
            connection.close()

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def airflow_connection(url: str) -> str:
    """The connection to this sink as JSON, ready for ``AIRFLOW_CONN_AWS_DEFAULT``."""
    extra = {
        "endpoint_url": url,
        "region_name": CREDENTIALS["AWS_DEFAULT_REGION"],
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
    login = {"login": CREDENTIALS["AWS_ACCESS_KEY_ID"], "password": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}
    return json.dumps({"conn_type": "aws", **login, "extra": extra})


CREDENTIALS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "bench-key",
    "AWS_SECRET_ACCESS_KEY": "bench-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""Any would do: signatures are not checked."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tls", type=Path, help="folder of the certificate, made where there is none")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--verify", action="store_true", help="hash what comes and refuse what is not the recording's")
    parser.add_argument("--until-stdin-closes", action="store_true")
    arguments = parser.parse_args()
    end_gracefully(with_stdin=arguments.until_stdin_closes)
    listener = socket.create_server((HOST, arguments.port), backlog=128)
    place = f"{HOST}:{listener.getsockname()[1]}"
    if arguments.tls:
        say_ready(url=f"https://{place}", ca=str(local_tls(arguments.tls).ca_file))
    else:
        say_ready(url=f"http://{place}")
    serve(listener, arguments.tls, verify=arguments.verify)


if __name__ == "__main__":
    main()
