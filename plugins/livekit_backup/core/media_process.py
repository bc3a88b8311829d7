"""The process that looks into media with FFmpeg, and what it may take: time, memory, and bytes of one file alone."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from livekit_backup.core.bounded_reader import BoundedReader, ProbeGivenUpError

TASK_SECONDS = 600.0
"""For all files of one task; each has what its reader has."""
DEMUXERS = {
    **dict.fromkeys(("mp4", "m4a", "mov"), "mov,mp4,m4a,3gp,3g2,mj2"),
    **dict.fromkeys(("ogg", "opus", "oga"), "ogg"),
    **dict.fromkeys(("webm", "mkv"), "matroska,webm"),
    "ts": "mpegts",
    "mp3": "mp3",
}
"""FFmpeg's names, by the ending of a file's. It is told and does not guess: among its others are playlists and scripts
that make it open further files."""

MOST_AT_ONCE = 1024 * 1024
"""Bytes that it may ask for in one go; FFmpeg's own buffer is 32 KiB."""
_LONGEST_LINE = 64 * 1024
_CHILD = Path(__file__).with_name("media_child.py")


class MediaCrashedError(Exception):
    """The process ended over a file, by itself or by a limit of its memory."""


def is_installed() -> bool:
    """Whether the extra ``media`` is: PyAV, which brings FFmpeg's libraries."""
    return importlib.util.find_spec("av") is not None


class MediaProcess:
    """Looks into one file after the other. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._seconds_left = TASK_SECONDS

    def look_into(self, reader: BoundedReader, ending: str) -> dict[str, Any]:
        """Return what ``media_child.look_into`` found: ``duration`` in seconds or None, and ``wrong``.

        :raises ProbeGivenUpError: by a limit of time or of bytes.
        :raises MediaCrashedError: the process ended over it.
        :raises LivekitBackupError: as the store says.
        """
        with self._lock:
            began = time.monotonic()
            seconds = min(reader.ends - began, self._seconds_left)
            if seconds <= 0:
                raise ProbeGivenUpError("the time of this task for looking into media is over")
            is_new = self._process is None
            process = self._process = self._process or _started()
            # What is stuck in native code hears nothing: it has to be killed.
            watchdog = threading.Timer(seconds, process.kill)
            watchdog.start()
            is_done = False
            try:
                if is_new and not _is_ready(process):
                    raise ProbeGivenUpError("PyAV is installed, and does not work here")
                found = _converse(process, reader, DEMUXERS[ending])
                is_done = True
                return found
            except (OSError, EOFError, ValueError):
                if time.monotonic() - began >= seconds:
                    raise ProbeGivenUpError(f"it was not found out within {seconds:.0f} s") from None
                raise MediaCrashedError from None
            finally:
                watchdog.cancel()
                self._seconds_left -= time.monotonic() - began
                if not is_done:
                    self._end()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if process := self._process:
            self._process = None
            process.kill()
            process.communicate()


def _started() -> subprocess.Popen[bytes]:
    """Start it with nothing of this process but where modules are: no credentials, and no open files."""
    return subprocess.Popen(  # noqa: S603 - this very interpreter, and a file beside this one
        [sys.executable, "-P", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd="/",
    )


def _is_ready(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout
    return process.stdout.readline(_LONGEST_LINE) == b"READY\n"


def _converse(process: subprocess.Popen[bytes], reader: BoundedReader, demuxer: str) -> dict[str, Any]:
    """Give a job, and read for it what it asks for. :raises OSError, EOFError: it has ended."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{json.dumps({'size': reader.size, 'demuxer': demuxer})}\n".encode())
    process.stdin.flush()
    while True:
        line = process.stdout.readline(_LONGEST_LINE)
        word, _, rest = line.decode("utf-8", "replace").partition(" ")
        if word == "READ":
            offset, count = map(int, rest.split())
            if offset < 0 or not 0 < count <= MOST_AT_ONCE:
                raise EOFError
            process.stdin.write(reader.read_at(offset, count))
            process.stdin.flush()
        elif word == "FOUND":
            found: dict[str, Any] = json.loads(rest)
            return found
        else:
            raise EOFError
