"""What looks into media, in a process of its own: FFmpeg is native code, and the media may be hostile.

Run by :mod:`livekit_backup.core.media_process`, not imported: it stands alone, and needs PyAV. It has no credentials,
and can open neither a file nor a connection: it asks its parent for every byte. A line of JSON on its standard input is
one file to look into; for each ``READ offset count`` that it writes it gets those bytes, and ``FOUND {...}`` ends it.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
from typing import Any

import av

MOST_MEMORY = 512 * 1024 * 1024
"""Bytes of addresses: Python and FFmpeg take 121 MiB of them before they have read anything."""
MOST_CPU_SECONDS = 600
"""A parent that was killed kills nobody: so no child lives on by working."""
MOST_AT_ONCE = 1024 * 1024
"""Bytes that the parent gives in one go."""
MOST_PACKETS = 20_000
"""Of one stretch of a file; two seconds of picture and sound are some 200."""
TAIL_SECONDS = 2.0
"""Read at the end of a file."""


class ParentsFile:
    """The file that the parent reads for this process; a seekable file as PyAV takes it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes, asked of the parent."""
        count = max(0, min(count if count >= 0 else MOST_AT_ONCE, MOST_AT_ONCE, self._size - self._at))
        if not count:
            return b""
        _say(f"READ {self._at} {count}")
        data = sys.stdin.buffer.read(count)
        if len(data) != count:
            sys.exit()
        self._at += count
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place from the start, the present one or the end."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        """Return the present place."""
        return self._at


def look_into(file: ParentsFile | io.BytesIO, demuxer: str) -> dict[str, Any]:
    """Return the duration in seconds, None where it is unknown, and what seems wrong, in sentences."""
    wrong: list[str] = []
    options = {"protocol_whitelist": "none", "format_whitelist": demuxer, "probesize": "2000000"}
    try:
        with av.open(
            file, "r", format=demuxer.partition(",")[0], options=options, metadata_errors="replace"
        ) as container:
            streams = [stream for stream in container.streams if stream.type in ("audio", "video")]
            if not streams:
                return {"duration": None, "wrong": ["there is neither audio nor video in it"]}
            duration = container.duration / av.time_base if container.duration else None
            start = (container.start_time or 0) / av.time_base
            _read(container, streams, "beginning", wrong)
            last = None
            if duration and duration > TAIL_SECONDS:
                container.seek(int((start + duration - TAIL_SECONDS) * av.time_base), backward=True)
                last = _read(container, streams, "end", wrong)
            if last is not None and duration and last < start + duration - TAIL_SECONDS:
                wrong.append(f"it says {duration:.1f} s, and nothing can be read behind {last - start:.1f} s")
            return {"duration": duration, "wrong": wrong}
    except MemoryError:
        return {"duration": None, "wrong": [*wrong, f"reading it takes over {MOST_MEMORY // 1024**2} MiB of memory"]}
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        return {"duration": None, "wrong": [*wrong, f"it cannot be read: {type(error).__name__}"]}


def _read(container: Any, streams: Any, where: str, wrong: list[str]) -> float | None:
    """Read a stretch's packets, and return the time at which the last of them ends."""
    last, packets, bytes_read, blank, corrupt = None, 0, 0, 0, 0
    first_time = None
    for packet in container.demux(streams):
        if packet.pts is None or not packet.size:
            continue
        packets += 1
        bytes_read += packet.size
        blank += packet.size > 16 and not any(memoryview(packet))
        corrupt += packet.is_corrupt
        time = float((packet.pts + (packet.duration or 0)) * packet.time_base)
        first_time = time if first_time is None else first_time
        last = time if last is None else max(last, time)
        if packets >= MOST_PACKETS or (where == "beginning" and time - first_time > TAIL_SECONDS):
            break
    if not packets:
        wrong.append(f"no packet can be read at its {where}")
    if blank:
        wrong.append(f"{blank} of {packets} packets at its {where} are all zero")
    if corrupt:
        wrong.append(f"{corrupt} of {packets} packets at its {where} are damaged")
    return last


def _say(line: str) -> None:
    sys.stdout.buffer.write(f"{line}\n".encode())
    sys.stdout.buffer.flush()


def _give_up_rights() -> None:
    """Bound this process: a bomb meets a limit, and what is hostile finds nothing to open."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_SECONDS, MOST_CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # Input, output and errors stay open; nothing else opens, also not in place of one that is closed.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _warm_up() -> None:
    """Have all modules loaded that PyAV loads when it first needs them: later no file can be opened."""
    samples = bytes(800)
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 836, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8, b"data", 800)
    look_into(io.BytesIO(header + samples), "wav")
    look_into(io.BytesIO(b"no media"), "ogg")


def main() -> None:
    """Look into one file a line, until the parent closes the input."""
    av.logging.set_level(None)
    _warm_up()
    _give_up_rights()
    _say("READY")
    while line := sys.stdin.buffer.readline():
        job = json.loads(line)
        _say(f"FOUND {json.dumps(look_into(ParentsFile(job['size']), job['demuxer']))}")


if __name__ == "__main__":
    main()
