"""What the demo plays: a company whose uploads failed, and what must come of each recording."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from livekit_backup.testing import FakeLiveKit, Fault
from livekit_backup.testing.embedded_airflow import EmbeddedAirflow
from livekit_backup.testing.embedded_s3 import EmbeddedS3
from livekit_backup.testing.recordings import Recording

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
DAG_ID = "livekit_backup_recovery"
RECONCILE_DAG_ID = "livekit_backup_reconcile"
EVENTS, RECORDINGS = "demo-events", "demo-recordings"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Moment:
    """When a demo was played: with it, ``make ui`` can serve the same links again."""

    now: str
    livekit_port: int
    airflow_port: int

    @property
    def time(self) -> datetime:
        """When it was."""
        return datetime.fromisoformat(self.now)

    @property
    def hour(self) -> datetime:
        """The hour whose events the demo recovers: past, so that it is closed."""
        return self.time.replace(minute=0, second=0) - timedelta(hours=3)

    @property
    def inbox(self) -> str:
        """Prefix of the events in their bucket: each demo has its own, so that one can follow another."""
        return f"{self.time:%Y%m%dT%H%M%S}"

    @classmethod
    def this(cls) -> Moment:
        """A demo played now."""
        return cls(datetime.now(UTC).replace(microsecond=0).isoformat(), _free_port(8090), _free_port(8080))

    @classmethod
    def last(cls) -> Moment | None:
        """The last demo played, or None."""
        file = HOME / "moment.json"
        return cls(**json.loads(file.read_text())) if file.exists() else None

    def save(self) -> None:
        """Remember it."""
        HOME.mkdir(exist_ok=True)
        (HOME / "moment.json").write_text(json.dumps(asdict(self)))


def make_recordings(livekit: FakeLiveKit, now: datetime) -> tuple[list[Recording], dict[tuple[str, str], str]]:
    """Record everything, and say what must come of each (egress id, filename)."""
    hours, days = timedelta(hours=1), timedelta(days=1)
    meeting = livekit.record_file(
        "egress/all-hands.mp4", size=96 * MIB, room_name="All hands", uploaded_at=now - 30 * hours
    )
    voice = livekit.record_track(
        "recordings/alice/TR_AMicrophone.ogg", size=733_184, room_name="Standup", uploaded_at=now - 5 * days
    )
    webinar = livekit.record_hls(
        "hls/webinar",
        segments=6,
        segment_size=MIB,
        in_primary=2,
        room_name="Webinar",
        uploaded_at=now - 2 * days,
    )
    old = livekit.record_file("egress/interview.mp4", size=4 * MIB, room_name="Interview", uploaded_at=now - 8 * days)
    damaged = livekit.record_file("egress/retro.mp4", size=12 * MIB, room_name="Retro", uploaded_at=now - 20 * hours)
    livekit.break_(damaged, Fault.WRONG_BYTES)
    expected = {
        (recording.egress_id, name): "in_primary" if stored.in_primary else outcome
        for recording, outcome in (
            (meeting, "landed"),
            (voice, "landed"),
            (webinar, "landed"),
            (old, "expired"),
            (damaged, "corrupt"),
        )
        for name, stored in recording.files.items()
    }
    return [meeting, voice, webinar, old, damaged], expected


def record_unannounced(livekit: FakeLiveKit, now: datetime) -> Recording:
    """A recording whose webhook is lost on its way: only LiveKit's API knows of it."""
    return livekit.record_file(
        "egress/board.mp4", size=8 * MIB, room_name="Board", uploaded_at=now - timedelta(hours=50)
    )


def fake_livekit(moment: Moment) -> FakeLiveKit:
    """The LiveKit of a moment: the same moment gives the same recordings and links."""
    return FakeLiveKit(port=moment.livekit_port, seed=moment.now)


def embedded_s3() -> EmbeddedS3:
    """The demo's S3 server; its data survives a restart."""
    return EmbeddedS3(HOME / "s3", venv_dir=ROOT / ".embedded-s3" / "venv")


def airflow(moment: Moment, s3: EmbeddedS3, livekit: FakeLiveKit) -> EmbeddedAirflow:
    """The demo's Airflow, set up by environment variables as a user would."""
    return EmbeddedAirflow(
        HOME / "airflow",
        dags=ROOT / "dags",
        port=moment.airflow_port,
        environment={
            "AIRFLOW_CONN_AWS_DEFAULT": s3.airflow_connection(),
            "AIRFLOW_CONN_LIVEKIT_DEFAULT": livekit.airflow_connection(),
            "AIRFLOW__LIVEKIT_BACKUP__INBOX": f"s3://{EVENTS}/{moment.inbox}",
            # The hour's scheduled run would look back, and take up the scene before the curtain rises.
            "AIRFLOW__LIVEKIT_BACKUP__LOOKBACK": "0",
            "AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE": f"s3://{RECORDINGS}/recovered",
            "AIRFLOW__LIVEKIT_BACKUP__ALLOWED_HOSTS": f"127.0.0.1:{moment.livekit_port}, *.amazonaws.com",
        },
    )


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RuntimeError("no free port on 127.0.0.1")
