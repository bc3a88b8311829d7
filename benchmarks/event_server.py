"""An S3 API that has so many events, each an object of its own: ``python event_server.py COUNT``.

It answers listings and whole objects from memory and checks no signature, in a process of its own, so that the
client's work is what takes the time.
"""

from __future__ import annotations

import asyncio
import sys
from functools import lru_cache
from urllib.parse import parse_qs, unquote

from local_server import end_gracefully, say_ready
from synthetic_events import event_line

PAGE = 1000
_HEAD = b'HTTP/1.1 %d OK\r\nContent-Length: %d\r\nContent-Type: %s\r\nETag: "e"\r\nx-amz-request-id: 0\r\n\r\n'


class Events(asyncio.Protocol):
    """One client's requests, one after the other."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            target = self._received.split(b" ", 2)[1].decode()
            self._received = self._received[end + 4 :]
            path, _, query = target.partition("?")
            if "list-type" in query:
                body, kind = _page(parse_qs(query), self._count), b"application/xml"
            else:
                body, kind = event_line(int(unquote(path).rpartition("/")[2])), b"application/json"
            self._transport.write(_HEAD % (200, len(body), kind) + body)


@lru_cache(maxsize=4)
def _item(prefix: str) -> str:
    return (
        f"<Contents><Key>{prefix}%09d</Key><LastModified>2026-11-20T00:00:00.000Z</LastModified>"
        "<ETag>&quot;e&quot;</ETag><Size>900</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def _page(query: dict[str, list[str]], count: int) -> bytes:
    prefix = query.get("prefix", [""])[0]
    start = int(query.get("continuation-token", ["0"])[0])
    end = min(start + PAGE, count)
    more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < count else ""
    items = "".join(_item(prefix) % number for number in range(start, end))
    truncated = "true" if more else "false"
    return (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{truncated}</IsTruncated>{more}{items}</ListBucketResult>"
    ).encode()


async def main() -> None:
    count = int(sys.argv[-1])
    server = await asyncio.get_running_loop().create_server(lambda: Events(count), "127.0.0.1", 0)
    say_ready(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    end_gracefully(with_stdin=True)
    asyncio.run(main())
