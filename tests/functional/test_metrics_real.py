"""Metrics as they arrive: a process as Airflow's task runner is, and a listener on loopback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# The first lines are the task runner's own.
TASK = """
from datetime import UTC, datetime, timedelta
from airflow.sdk import conf
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
stats.initialize(
    factory=stats_utils.get_stats_factory(),
    export_legacy_names=conf.getboolean("metrics", "legacy_names_on"),
)
from livekit_backup.hooks.recovery_metrics import emit_download, emit_landed, emit_statement
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.statement import Statement, StatementLine
now = datetime.now(UTC)
lines = [
    StatementLine(egress_id="EG_1", run=1, filename="a", outcome=outcome, size=size, hours_left=hours)
    for outcome, size, hours in [(Outcome.LANDED, 7, None), (Outcome.LANDED, 8, None), (Outcome.CORRUPT, 5, 2.5)]
]
emit_statement(Statement(dag_id="d", run_id="r", written_at=now, lines=lines))
emit_landed(
    LedgerEntry(
        egress_id="EG_1", run=1, filename="a", kind="file", started=now - timedelta(seconds=90),
        deadline=now + timedelta(hours=1), outcome="landed", recorded_at=now,
    )
)
emit_download(4000, 2.0)
"""


def _run(tmp_path: Path, **environment: str) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "OTEL"))}
    done = subprocess.run(
        [sys.executable, "-c", TASK],
        env={**kept, "AIRFLOW_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def packets() -> Iterator[tuple[int, set[str]]]:
    """A statsd server: its port, and what it was sent."""
    got: set[str] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))

        def listen() -> None:
            while (packet := listener.recv(65535)) != b"stop":
                got.update(packet.decode().splitlines())

        thread = threading.Thread(target=listen)
        thread.start()

        port = listener.getsockname()[1]
        try:
            yield port, got
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"stop", ("127.0.0.1", port))
            thread.join()


def _await(condition) -> None:
    for _ in range(200):
        if condition():
            return
        threading.Event().wait(0.05)


def test_statsd(packets: tuple[int, set[str]], tmp_path: Path) -> None:
    pytest.importorskip("statsd")
    port, got = packets
    _run(
        tmp_path,
        AIRFLOW__METRICS__STATSD_ON="True",
        AIRFLOW__METRICS__STATSD_HOST="127.0.0.1",
        AIRFLOW__METRICS__STATSD_PORT=str(port),
    )
    expected = {
        "airflow.livekit_backup.files.landed:2|c",
        "airflow.livekit_backup.files.corrupt:1|c",
        "airflow.livekit_backup.bytes.landed:15|c",
        "airflow.livekit_backup.bytes.corrupt:5|c",
        "airflow.livekit_backup.unsafe_files:1|g",
        "airflow.livekit_backup.smallest_margin_hours:2.5|g",
        "airflow.livekit_backup.landing_age:90000.000000|ms",
        "airflow.livekit_backup.landing_margin:3600000.000000|ms",
        "airflow.livekit_backup.download_duration:2000.000000|ms",
        "airflow.livekit_backup.download_bytes:4000|c",
        "airflow.livekit_backup.download_bytes_per_second:2000.0|g",
    }
    _await(lambda: expected <= got)
    assert expected <= got, got


def test_statsd_with_tags(packets: tuple[int, set[str]], tmp_path: Path) -> None:
    pytest.importorskip("statsd")
    port, got = packets
    _run(
        tmp_path,
        AIRFLOW__METRICS__STATSD_ON="True",
        AIRFLOW__METRICS__STATSD_HOST="127.0.0.1",
        AIRFLOW__METRICS__STATSD_PORT=str(port),
        AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED="True",
        AIRFLOW__METRICS__LEGACY_NAMES_ON="False",
    )
    expected = {
        "airflow.livekit_backup.files,outcome=landed:2|c",
        "airflow.livekit_backup.bytes,outcome=corrupt:5|c",
        "airflow.livekit_backup.landing_age,kind=file:90000.000000|ms",
    }
    _await(lambda: expected <= got)
    assert expected <= got, got
    assert not [name for name in got if re.search(r"files\.landed", name)]


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OpenTelemetry collector: its address, and what it was sent."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", got
        finally:
            server.shutdown()
            thread.join()


def _points(bodies: list[bytes]) -> dict[tuple[str, str], float]:
    """The last value of each series, a histogram's its sum."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    found: dict[tuple[str, str], float] = {}
    for body in bodies:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    for point in getattr(metric, kind).data_points:
                        tags = ",".join(f"{tag.key}={tag.value.string_value}" for tag in point.attributes)
                        value = point.sum if "histogram" in kind else point.as_int or point.as_double
                        found[metric.name, tags] = value
    return found


def test_opentelemetry(collector: tuple[str, list[bytes]], tmp_path: Path) -> None:
    address, got = collector
    _run(
        tmp_path,
        AIRFLOW__METRICS__OTEL_ON="True",
        OTEL_EXPORTER_OTLP_ENDPOINT=address,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_METRIC_EXPORT_INTERVAL="60000",
    )
    expected = {
        ("airflow.livekit_backup.files", "outcome=landed"): 2,
        ("airflow.livekit_backup.files", "outcome=corrupt"): 1,
        ("airflow.livekit_backup.bytes", "outcome=landed"): 15,
        ("airflow.livekit_backup.bytes", "outcome=corrupt"): 5,
        ("airflow.livekit_backup.unsafe_files", ""): 1,
        ("airflow.livekit_backup.smallest_margin_hours", ""): 2.5,
        ("airflow.livekit_backup.landing_age", "kind=file"): 90_000,
        ("airflow.livekit_backup.landing_margin", "kind=file"): 3_600_000,
        ("airflow.livekit_backup.download_duration", ""): 2_000,
        ("airflow.livekit_backup.download_bytes", ""): 4_000,
        ("airflow.livekit_backup.download_bytes_per_second", ""): 2_000,
    }
    points = _points(got)
    assert {series: points.get(series) for series in expected} == expected, points
