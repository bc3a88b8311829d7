"""The command line of the fake LiveKit: sample recordings, served for a demo.

``python -m livekit_backup.testing.fake_livekit_cli serve --events-dir DIR``
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from livekit_backup.testing.fake_livekit import FakeLiveKit
from livekit_backup.testing.recordings import Json
from livekit_backup.testing.synthetic_bytes import MIB


def _record_samples(livekit: FakeLiveKit) -> list[Json]:
    now = datetime.now(UTC)
    recordings = [
        livekit.record_file("egress/standup.mp4", size=64 * MIB, room_name="Standup"),
        livekit.record_track("recordings/alice/TR_AMicrophone1.ogg", room_name="Interview"),
        livekit.record_hls("hls/webinar", segments=8, in_primary=2, room_name="Webinar"),
        livekit.record_images("thumbs/webinar", room_name="Webinar"),
        livekit.record_file("egress/last-week.mp4", room_name="Retro", uploaded_at=now - timedelta(days=8)),
    ]
    crashed = livekit.record_file("egress/crashed.mp4", size=5 * MIB + 1, room_name="Planning")
    return [recording.event() for recording in recordings] + [crashed.event(status="EGRESS_FAILED")]


def _serve(arguments: argparse.Namespace) -> None:
    def put(key: str, body: bytes) -> None:
        path = arguments.events_dir / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    with FakeLiveKit(host=arguments.host, port=arguments.port, base_url=arguments.public_url) as livekit:
        for event in _record_samples(livekit):
            livekit.store_event(put, event)
        for recording in livekit.recordings:
            print(recording.egress_id, recording.room_name, *recording.files, flush=True)
        print(f"fake LiveKit at {livekit.base_url}; events in {arguments.events_dir}", flush=True)
        stopped.wait()


def main(argv: Sequence[str] | None = None) -> None:
    """The command line: ``serve``."""
    parser = argparse.ArgumentParser(prog="python -m livekit_backup.testing.fake_livekit_cli")
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", help="serve sample recordings until SIGTERM")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    serve.add_argument("--port", type=int, default=8090)
    serve.add_argument("--public-url", help="scheme, host and port by which clients reach it")
    serve.add_argument("--events-dir", type=Path, required=True, help="where the webhook events are written")
    serve.set_defaults(run=_serve)
    arguments = parser.parse_args(argv)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
