"""Reads a synthetic inbox in a process of its own and prints what that took: ``python ingest_process.py WAY COUNT``.

WAY is ``selection``, ``json`` or ``pydantic`` (JSON Lines, 100,000 events an object), ``objects`` (one event an
object, from memory) or ``s3`` (the same by S3's API, where the connection ``aws_default`` leads); ``idle`` and
``idle_s3`` only import and connect.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from livekit_backup.core.inbox import IntakeReader
from livekit_backup.models.egress import WebhookEvent
from synthetic_events import ROUND, event_line, lines_of_round

AN_OBJECT = 100_000
"""Events: 86 MB, as a Firehose delivers at most 128 MiB."""
PREFIX = "s3://bench/inbox/"


class Lines:
    """An object's body: rounds of events, made when they are read, which takes a twentieth of the time."""

    def __init__(self, first: int, count: int) -> None:
        self._rounds = iter(range(first // ROUND, (first + count) // ROUND))
        self._ready = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        if not self._ready:
            number = next(self._rounds, None)
            if number is None:
                return b""
            self._ready = memoryview(lines_of_round(number))
        data, self._ready = bytes(self._ready[:size]), self._ready[size:]
        return data

    def close(self) -> None:
        pass


class OneEvent:
    def __init__(self, number: int) -> None:
        self._data = event_line(number)

    def read(self, size: int = -1, /) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data

    def close(self) -> None:
        pass


class Store:
    """An inbox whose objects are made when they are read; the name of each is the number of its first event."""

    def __init__(self, open_object: Callable[[int], Any]) -> None:
        self._open = open_object

    def open(self, uri: str) -> Any:
        return self._open(int(uri.rpartition("/")[2]))


def names(count: int, step: int) -> Iterator[str]:
    return (f"{PREFIX}{number:010}" for number in range(0, count, step))


def all_lines(count: int) -> Iterator[bytes]:
    """Give the lines of the same objects, as plainly as can be."""
    for first in range(0, count, AN_OBJECT):
        body = Lines(first, min(AN_OBJECT, count - first))
        rest = b""
        while block := body.read(1024 * 1024):
            *lines, rest = (rest + block).split(b"\n")
            yield from lines


def by_json(count: int) -> int:
    return sum(_is_backup(json.loads(line)) for line in all_lines(count))


def by_pydantic(count: int) -> int:
    return sum(WebhookEvent.model_validate_json(line).backup is not None for line in all_lines(count))


def by_selection(count: int) -> int:
    def open_lines(first: int) -> Lines:
        return Lines(first, min(AN_OBJECT, count - first))

    return _ingest(Store(open_lines), names(count, AN_OBJECT), count)


def from_objects(count: int) -> int:
    return _ingest(Store(OneEvent), names(count, 1), count)


def from_s3(count: int) -> int:
    store = _connected()
    return _ingest(store, store.list_keys(PREFIX), count)


def _connected() -> Any:
    from livekit_backup.hooks.object_store import S3ObjectStore

    store = S3ObjectStore("aws_default")
    store.place_name()
    return store


def _is_backup(event: dict[str, Any]) -> bool:
    return event["event"] == "egress_ended" and bool(event["egressInfo"].get("backupStorageUsed"))


def _ingest(store: Any, uris: Iterator[str], count: int) -> int:
    reader = IntakeReader()
    reader.read(store, uris)
    intake = reader.result()
    assert (intake.events, intake.unreadable) == (count, ()), intake.unreadable[:3]
    return len(intake.backups)


WAYS: dict[str, Callable[[int], int]] = {
    "idle": lambda _: 0,
    "idle_s3": lambda _: 0 * len(_connected().place_name()),
    "selection": by_selection,
    "json": by_json,
    "pydantic": by_pydantic,
    "objects": from_objects,
    "s3": from_s3,
}


def main() -> None:
    way, count = sys.argv[1], int(sys.argv[2])
    lines_of_round(0)
    event_line(0)
    began = time.perf_counter()
    backups = WAYS[way](count)
    seconds = time.perf_counter() - began
    usage = resource.getrusage(resource.RUSAGE_SELF)
    answer = {
        "backups": backups,
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
