"""How fast the inbox is read, over ``json.loads`` and pydantic on every line, and that memory stays flat.

``BENCH_INGEST=0.1`` in the environment takes a tenth of every number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from local_server import LocalServer
from table import Table, spread

GOAL = 5.0
GOAL_MIB = 64
"""Over the idle process, and beside it so much for each backup that was found."""
GOAL_KIB_A_BACKUP = 4
ROUNDS = 5
DAY = 5_000_000
OBJECTS = 200_000
_SAMPLE = {"selection": 1_000_000, "json": 200_000, "pydantic": 200_000}
"""Events a round; each way has one speed from there on."""
_NAMES = {"selection": "livekit_backup", "json": "json.loads of every line", "pydantic": "pydantic on every line"}


def measure() -> list[Table]:
    scale = float(os.environ.get("BENCH_INGEST", "1"))
    return [_ratios(scale), _sizes(scale)]


def _ratios(scale: float) -> Table:
    rates: dict[str, list[float]] = {way: [] for way in _SAMPLE}
    for _ in range(ROUNDS):
        for way, count in _SAMPLE.items():
            events = _thousands(count * scale)
            rates[way].append(events / _process(way, events)["seconds"])
    ratios = {
        way: [ours / theirs for ours, theirs in zip(rates["selection"], rates[way], strict=True)] for way in rates
    }
    return Table(
        "JSON Lines, of 1,000 events one backup, about 860 bytes an event",
        f"at least {GOAL:.0f} x json.loads",
        sorted(ratios["json"])[ROUNDS // 2] >= GOAL,
        ["way", "events/s", "livekit_backup is"],
        [
            [name, spread(rates[way]), f"{spread(ratios[way], 1)} x" if way != "selection" else ""]
            for way, name in _NAMES.items()
        ],
    )


def _sizes(scale: float) -> Table:
    idle = _process("idle", 1)["peak_mib"]
    rows, reached = [], True
    for way, name, count in (
        ("selection", "JSON Lines, 100,000 events an object", DAY),
        ("selection", "the same", 10 * DAY),
        ("objects", "one event an object, from memory", OBJECTS),
        ("objects", "the same", 10 * OBJECTS),
        ("s3", "one event an object, by S3's API", OBJECTS),
    ):
        events = _thousands(count * scale)
        if way == "s3":
            taken, over = _from_server(events)
        else:
            taken = _process(way, events)
            over = taken["peak_mib"] - idle
        reached = reached and taken["backups"] == events // 1000
        reached = reached and over <= GOAL_MIB + taken["backups"] * GOAL_KIB_A_BACKUP / 1024
        rows.append(
            [
                name,
                f"{events:,}",
                f"{taken['seconds']:.1f}",
                f"{events / taken['seconds']:,.0f}",
                f"{taken['cpu_seconds'] / events * 1e6:.1f}",
                f"{taken['backups']:,}",
                f"{over:.0f}",
            ]
        )
    return Table(
        "A day, and ten times as much",
        f"every backup found, at most {GOAL_MIB} MiB and {GOAL_KIB_A_BACKUP} KiB a backup over the idle process",
        reached,
        ["inbox", "events", "s", "events/s", "CPU µs/event", "backups", "MiB over idle"],
        rows,
    )


def _thousands(count: float) -> int:
    return max(1, round(count / 1000)) * 1000


def _from_server(events: int) -> tuple[dict[str, Any], float]:
    """Read so many objects; its idle process has Airflow and boto in memory."""
    with LocalServer("event_server.py", str(events)) as server:
        extra = {
            "endpoint_url": f"http://127.0.0.1:{server.answer['port']}",
            "region_name": "us-east-1",
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        }
        login = {"conn_type": "aws", "login": "bench", "password": "bench-secret", "extra": extra}
        connection = {"AIRFLOW_CONN_AWS_DEFAULT": json.dumps(login)}
        idle = _process("idle_s3", 1, **connection)
        taken = _process("s3", events, **connection)
        return taken, taken["peak_mib"] - idle["peak_mib"]


def _process(way: str, count: int, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ingest_process.py")), way, str(count)],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))
