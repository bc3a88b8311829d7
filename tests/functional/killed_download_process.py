"""Processes that recover a recording and may be killed at any instant: ``python -m tests.functional.killed_download_process``.

Importing Airflow and boto takes two seconds, so one process does it once and forks a child a job.
It has no thread and no connection when it forks. A child stays a zombie until it is waited for,
so its id is nobody else's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from livekit_backup.models.references import RecordingFile, Upload

from ..conftest import ROOT
from .recovery_pipeline import Pipeline

CONNECTION = "killed"


@dataclass(frozen=True)
class Job:
    """One child at work."""

    pid: int
    result: Path
    nursery: Nursery

    @property
    def has_ended(self) -> bool:
        """Whether it has said what came of it."""
        return self.result.exists()

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        os.kill(self.pid, signal.SIGKILL)
        status = self.nursery.wait(self.pid)
        assert status in (0, -signal.SIGKILL), self.outcome()

    def wait(self) -> dict[str, Any]:
        """Let it come to its end, which has to be a good one, and return its upload and its entry."""
        status = self.nursery.wait(self.pid)
        assert status == 0, f"ended with {status}: {self.outcome()}"
        return self.outcome()

    def wait_until_killed(self) -> bool:
        """Let it come to its end; False when it ended well before it was killed."""
        status = self.nursery.wait(self.pid)
        assert status in (0, -signal.SIGKILL), self.outcome()
        return status != 0

    def outcome(self) -> dict[str, Any]:
        return json.loads(self.result.read_text()) if self.has_ended else {}


class Nursery:
    """The process that forks, seen from the test."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self._process = process
        self._directory = directory
        self._count = 0

    def start(
        self,
        pipeline: Pipeline,
        file: RecordingFile,
        *,
        upload: Upload | None = None,
        land: bool = False,
        die_after: int = 0,
    ) -> Job:
        """Begin to download a file.

        :param upload: downloaded before.
        :param land: land it too.
        :param die_after: be killed behind so many calls of the store.
        """
        self._count += 1
        result = self._directory / f"job-{self._count}.json"
        answer = self._say(
            file=file.model_dump(mode="json"),
            settings=pipeline.settings.model_dump(mode="json"),
            abilities=pipeline.abilities().model_dump(mode="json"),
            attempt=pipeline.attempt.model_dump(mode="json"),
            upload=upload and upload.model_dump(mode="json"),
            land=land,
            streams=pipeline.streams,
            die_after=die_after,
            result=str(result),
        )
        return Job(answer["pid"], result, self)

    def wait(self, pid: int) -> int:
        """Wait for a child's end and return its exit code, negative for a signal."""
        return int(self._say(wait_for=pid)["status"])

    def _say(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(order), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, (self._directory / "nursery.log").read_text()[-4000:]
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def nursery(connection: str, directory: Path) -> Iterator[Nursery]:
    """Start a nursery whose children use a server by its Airflow connection."""
    directory.mkdir(parents=True, exist_ok=True)
    with (
        (directory / "nursery.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name if __spec__ else __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={**os.environ, f"AIRFLOW_CONN_{CONNECTION.upper()}": connection},
        ) as process,
    ):
        try:
            yield Nursery(process, directory)
        finally:
            # It ends when there is nothing more to read.
            assert process.stdin
            process.stdin.close()


def _serve() -> None:
    from livekit_backup.hooks.object_store import S3ObjectStore

    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    store = S3ObjectStore(CONNECTION)
    assert store.connection.client
    for line in sys.stdin:
        order = json.loads(line)
        if "wait_for" in order:
            _, status = os.waitpid(order["wait_for"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            answer = {"pid": os.fork()}
            if not answer["pid"]:
                _child(order, store)
        print(json.dumps(answer), file=answers, flush=True)


def _child(order: dict[str, Any], store: Any) -> None:
    outcome, status = {}, 1
    try:
        outcome, status = _recover(order, store), 0
    except BaseException:  # noqa: BLE001 - told to the test
        outcome = {"error": traceback.format_exc()}
    finally:
        written = Path(order["result"])
        half_written = written.with_suffix(".half")
        half_written.write_text(json.dumps(outcome))
        half_written.rename(written)
        os._exit(status)


def _recover(order: dict[str, Any], store: Any) -> dict[str, Any]:
    from livekit_backup.core.ledger import Ledger
    from livekit_backup.models.ledger_entry import Attempt
    from livekit_backup.models.settings import Settings
    from livekit_backup.models.store_abilities import StoreAbilities

    settings = Settings.model_validate(order["settings"])
    pipeline = Pipeline(store, Ledger(store, settings.ledger), settings, SimpleNamespace())  # type: ignore[arg-type]
    pipeline.attempt = Attempt.model_validate(order["attempt"])
    pipeline.known_abilities = StoreAbilities.model_validate(order["abilities"])
    pipeline.streams = order["streams"]
    if order["die_after"]:
        _die_after(order["die_after"])
    file = RecordingFile.model_validate(order["file"])
    upload = Upload.model_validate(order["upload"]) if order["upload"] else pipeline.download(file)
    entry = pipeline.land(file, upload) if order["land"] else None
    return {"upload": upload.model_dump(mode="json"), "entry": entry and entry.model_dump(mode="json")}


def _die_after(calls: int) -> None:
    from botocore.client import BaseClient

    made = iter(range(1, 1_000_000))
    call: Any = BaseClient._make_api_call

    def counted(client: Any, *arguments: Any) -> Any:
        nth = next(made)
        answer = call(client, *arguments)
        if nth >= calls:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return answer

    BaseClient._make_api_call = counted


if __name__ == "__main__":
    _serve()
