"""A server of the bench in a process of its own, which ends with the process that started it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

START_SECONDS = 120.0
"""Writing 2 GiB of recordings takes a few."""

ROOM_LEFT = 1024**3
"""Bytes that must stay free in memory beside what is put there."""


class LocalServer:
    """Runs a script of this folder and reads the line of JSON by which it says where it listens."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name(script)), "--until-stdin-closes", *arguments]
        self.answer: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            ready = selector.select(START_SECONDS)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self.__exit__()
            raise RuntimeError(f"did not start: {' '.join(self._command)}")
        self.answer = json.loads(line)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def say_ready(**facts: Any) -> None:
    """Tell whoever started this process where it listens."""
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


def end_gracefully(*, with_stdin: bool) -> None:
    """Turn the signals to end into SystemExit in the main thread, once, so that what is open is closed.

    :param with_stdin: end too once the standard input closes, as it does even when the parent is killed.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)

    def leave(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        sys.exit(1)

    for number in numbers:
        signal.signal(number, leave)
    if with_stdin:
        threading.Thread(target=_await_end_of_stdin, daemon=True).start()


def _await_end_of_stdin() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def end_with_parent() -> None:
    """Have the kernel end this process when its parent is gone (prctl, PR_SET_PDEATHSIG): for ``preexec_fn``."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def roomy_folder(size: int) -> str | None:
    """Where to keep so many bytes: in memory where there is room, so that no disk is measured, else the default."""
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() and shutil.disk_usage(shm).free > size + ROOM_LEFT else None
