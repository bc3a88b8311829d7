"""Source, sink and environment between which engines are measured, each run in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from discarding_s3 import CREDENTIALS, airflow_connection
from engines import Job
from local_server import LocalServer, roomy_folder
from local_tls import local_tls
from synthetic_recordings import recording_content

RUN_SECONDS = 900.0
"""The slowest, 20 GiB at 85 MiB/s, would take 240."""
FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Taken:
    """What one engine took for all jobs of one run."""

    seconds: float
    cpu_seconds: float
    idle_mib: float
    peak_mib: float

    @property
    def over_idle_mib(self) -> float:
        """Peak memory beyond that of the same process before its work began."""
        return self.peak_mib - self.idle_mib


@dataclass
class TransferBed:
    """A running source and sink."""

    source: str
    urls: dict[str, str]
    environment: dict[str, str]
    scratch: Path
    _runs: Iterator[int] = field(default_factory=itertools.count)

    def run(self, engine: str, names: Sequence[str], at_a_time: int) -> Taken:
        """Move recordings to keys where nothing is yet. :raises RuntimeError: the engine failed."""
        folder = f"s3://warehouse/run-{next(self._runs)}"
        jobs = [asdict(Job(name, recording_content(name).size, self.urls[name], f"{folder}/{name}")) for name in names]
        file = self.scratch / "jobs.json"
        file.write_text(json.dumps({"jobs": jobs, "at_a_time": at_a_time}))
        return Taken(**run_script(self.environment, "engine_process.py", engine, str(file)))

    def sink_stats(self) -> dict[str, Any]:
        """What the sink has counted, and its CPU seconds."""
        context = ssl.create_default_context(cafile=self.environment["SSL_CERT_FILE"])
        # Not urlopen: a proxy of the environment would be asked.
        connection = http.client.HTTPSConnection(
            urlsplit(self.environment["AWS_ENDPOINT_URL_S3"]).netloc, context=context
        )
        with contextlib.closing(connection):
            connection.request("GET", "/_stats")
            return dict(json.loads(connection.getresponse().read()))


@contextlib.contextmanager
def transfer_bed(names: Sequence[str], *, invent: bool = False, verify: bool = False) -> Iterator[TransferBed]:
    """Start a source of these recordings and a sink.

    :param invent: the source makes the bytes up, so that their size does not matter.
    :param verify: the sink hashes all bytes and refuses wrong ones. Not for measuring.
    """
    with contextlib.ExitStack() as stack:
        # One engine writes files; the largest recording that one is measured with has 1 GiB.
        folder = roomy_folder(1024**3)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="livekit-backup-bench-", dir=folder)))
        tls = local_tls(scratch / "tls")
        own = ["--tls", str(tls.folder)]
        sink = stack.enter_context(LocalServer("discarding_s3.py", *own, *["--verify"] * verify)).answer
        source = stack.enter_context(LocalServer("tls_source.py", *own, *["--invent"] * invent, *names)).answer
        (scratch / "airflow").mkdir()
        place = urlsplit(source["urls"][names[0]])
        source_connection = {"conn_type": "http", "schema": "https", "host": place.hostname, "port": place.port}
        environment = {
            **tls.environment(),
            **CREDENTIALS,
            "AWS_ENDPOINT_URL_S3": sink["url"],
            "AIRFLOW_HOME": str(scratch / "airflow"),
            "AIRFLOW_CONN_AWS_DEFAULT": airflow_connection(sink["url"]),
            "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps(source_connection),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "TMPDIR": str(scratch),
        }
        yield TransferBed(source["server"], source["urls"], environment, scratch)


def run_script(environment: dict[str, str], script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of this folder and return the JSON of its last line. :raises RuntimeError: it failed."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments],
        check=False,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
