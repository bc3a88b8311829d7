"""The webhook receiver against a bare application that writes the same bodies to the same S3 server.

Each runs behind uvicorn in a process of its own, the load in a third, the S3 server (the bench's own, which keeps
small objects in memory) in a fourth. Both take turns in every round; what is compared is the ratio within one.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from livekit_backup.testing.s3_endpoint import free_port
from local_server import LocalServer, end_with_parent
from local_tls import local_tls
from table import Table, spread
from transfer_bed import CREDENTIALS, FOLDER, TransferBed, run_script
from webhook_load import API_KEY, SECRET

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
EVENTS = 2000
"""A round; some seconds."""
WHOLE = 10_000
CONNECTIONS = 50
GOAL = 0.8
OURS, BARE = "livekit_backup.receiver", "bare Starlette"
COMMANDS: dict[str, Callable[[int], list[str]]] = {
    OURS: lambda port: ["-m", "livekit_backup.receiver", "--port", str(port), "--no-access-log"],
    BARE: lambda port: [str(FOLDER / "bare_receiver.py"), str(port)],
}


@dataclass
class ReceiverBed:
    """An S3 server and both receivers."""

    environment: dict[str, str]
    sink: TransferBed
    ports: dict[str, int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(step=100_000))

    def load(self, engine: str, count: int) -> dict[str, Any]:
        """Send so many events that were never sent before. :raises RuntimeError: one was not accepted."""
        url = f"http://127.0.0.1:{self.ports[engine]}/webhook"
        arguments = [url, str(count), str(CONNECTIONS), str(next(self.numbers))]
        taken = run_script(self.environment, "webhook_load.py", *arguments)
        if taken["statuses"] != {"200": count}:
            raise RuntimeError(f"{engine} answered {taken['statuses']}")
        return taken

    def ask(self, engine: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[engine], timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.read() if answer.status == 200 else b""

    def stored(self) -> int:
        """Objects that the S3 server has."""
        return int(self.sink.sink_stats()["documents"])


@contextlib.contextmanager
def receiver_bed() -> Iterator[ReceiverBed]:
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="livekit-backup-bench-")))
        tls = local_tls(scratch / "tls")
        sink = stack.enter_context(LocalServer("discarding_s3.py", "--tls", str(tls.folder))).answer
        environment = {
            **tls.environment(),
            **CREDENTIALS,
            "AWS_ENDPOINT_URL_S3": sink["url"],
            "LIVEKIT_BACKUP_INBOX": "s3://events/inbox",
            "LIVEKIT_API_KEY": API_KEY,
            "LIVEKIT_API_SECRET": SECRET,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        bed = ReceiverBed(environment, TransferBed("", {}, environment, scratch))
        for engine, command in COMMANDS.items():
            bed.ports[engine] = free_port(others=bed.ports.values())
            process = subprocess.Popen(
                [sys.executable, *command(bed.ports[engine])],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - no other thread runs yet
            )
            stack.callback(_end, process)
            _await_health(bed, engine, process)
        yield bed


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(60)


def _await_health(bed: ReceiverBed, engine: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError):
            bed.ask(engine, "/health")
            return
        time.sleep(0.05)
    raise RuntimeError(f"{engine} did not start")


def measure() -> list[Table]:
    with receiver_bed() as bed:
        for engine in COMMANDS:
            bed.load(engine, EVENTS // 4)
        rounds = [_round(bed, turn) for turn in range(ROUNDS)]
        whole = _whole(bed)
    return [_compared(rounds), whole]


def _round(bed: ReceiverBed, turn: int) -> dict[str, dict[str, Any]]:
    order = list(COMMANDS) if turn % 2 else list(reversed(COMMANDS))
    taken = {}
    for engine in order:
        taken[engine] = bed.load(engine, EVENTS)
        print(f"{engine}: {taken[engine]['rate']:.0f} requests/s", file=sys.stderr, flush=True)
    return taken


def _compared(rounds: list[dict[str, dict[str, Any]]]) -> Table:
    rates = [taken[OURS]["rate"] / taken[BARE]["rate"] for taken in rounds]
    waits = [taken[BARE]["p99"] / taken[OURS]["p99"] for taken in rounds]
    rows = []
    for engine in COMMANDS:
        figures = [spread([taken[engine][name] for taken in rounds]) for name in ("rate", "p50", "p99")]
        rows.append([engine, *figures])
    rows.append([f"{OURS} over it", f"{spread(rates, 2)} x", "", f"{spread([1 / wait for wait in waits], 2)} x"])
    return Table(
        f"{EVENTS} signed events of 2 KiB over {CONNECTIONS} connections, {len(rounds)} rounds",
        f"rate at least {GOAL} x, p99 at most {1 / GOAL} x, medians of the ratios within a round",
        statistics.median(rates) >= GOAL and statistics.median(waits) >= GOAL,
        ["", "requests/s", "p50 ms", "p99 ms"],
        rows,
    )


def _whole(bed: ReceiverBed) -> Table:
    """All of many events, counted at the S3 server, whose keys are those of the events' bodies."""
    before = bed.stored()
    taken = bed.load(OURS, WHOLE)
    stored = bed.stored() - before
    found = re.search(rb"^livekit_backup_webhooks_already_stored_total (\S+)", bed.ask(OURS, "/metrics"), re.MULTILINE)
    twice = int(float(found[1])) if found else -1
    return Table(
        f"{WHOLE} events over {CONNECTIONS} connections",
        "all stored, none twice",
        stored == WHOLE and twice == 0,
        ["sent", "answered 200", "objects", "stored twice", "requests/s", "p99 ms"],
        [[str(WHOLE), str(WHOLE), str(stored), str(twice), f"{taken['rate']:.0f}", f"{taken['p99']:.0f}"]],
    )
