"""Sends signed events over some connections at a time, and prints how long each answer took.

``python benchmarks/webhook_load.py URL COUNT CONNECTIONS FIRST_NUMBER``; all is signed before the clock starts.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from livekit_backup.testing.webhook_sender import CONTENT_TYPE, sign_webhook

API_KEY, SECRET = "APIbench", "a-secret-of-more-than-thirty-two-bytes"


def event(number: int) -> bytes:
    """An event of 2 KiB, as LiveKit's of a room's recording has."""
    info = {
        "egressId": f"EG_{number:09}",
        "roomName": "Standup",
        "status": "EGRESS_COMPLETE",
        "backupStorageUsed": True,
        "manifestLocation": f"https://example.com/{number}.json?X-Amz-Signature={'0' * 900}",
        "fileResults": [{"filename": "standup.mp4", "location": f"https://example.com/{'1' * 700}", "size": "1048576"}],
    }
    body = {"event": "egress_ended", "id": f"EV_{number:09}", "createdAt": str(int(time.time())), "egressInfo": info}
    return json.dumps(body, separators=(",", ":")).encode()


def request_of(path: str, host: str, number: int) -> bytes:
    body = event(number)
    head = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: LiveKit",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
        f"Authorization: {sign_webhook(body, API_KEY, SECRET)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


async def send(url: str, requests: Iterator[bytes], seconds: list[float], statuses: dict[str, int]) -> None:
    """Send one request after the other over one connection."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    for request in requests:
        began = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length")), 0)
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
        status = head.split(" ")[1]
        statuses[status] = statuses.get(status, 0) + 1
    writer.close()


async def load(url: str, count: int, connections: int, first: int) -> dict[str, object]:
    place = urlsplit(url)
    requests = iter([request_of(place.path, place.netloc, number) for number in range(first, first + count)])
    seconds: list[float] = []
    statuses: dict[str, int] = {}
    began = time.perf_counter()
    await asyncio.gather(*(send(url, requests, seconds, statuses) for _ in range(connections)))
    took = time.perf_counter() - began
    seconds.sort()
    return {
        "rate": count / took,
        "p50": seconds[len(seconds) // 2] * 1000,
        "p99": seconds[int(len(seconds) * 0.99)] * 1000,
        "statuses": statuses,
    }


if __name__ == "__main__":
    target, *numbers = sys.argv[1:]
    print(json.dumps(asyncio.run(load(target, *(int(number) for number in numbers)))))
