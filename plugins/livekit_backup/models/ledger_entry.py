"""The ledger's document of one file."""

from __future__ import annotations

from pydantic import AwareDatetime

from livekit_backup.models.outcome import IN_WAREHOUSE, Outcome
from livekit_backup.models.references import FileIdentity
from livekit_backup.models.wire import FrozenModel

HAD_LANDED = "had_landed"


class Attempt(FrozenModel):
    """Which task instance wrote an entry."""

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    """For finding the log; nothing is keyed by it."""
    try_number: int = 1


class LedgerEntry(FileIdentity):
    """What became of one file. Times are UTC; sizes are bytes; digests are hexadecimal."""

    outcome: Outcome
    reason: str = ""
    landed_uri: str = ""
    size: int | None = None
    sha256: str = ""
    crc64nvme: str = ""
    """Base64, as S3 shows it; empty where it is not known."""
    etag: str = ""
    """Of the landed object."""
    source_etag: str = ""
    verified_by: tuple[str, ...] = ()
    """The checks that passed: length, event_size, source_etag, destination_crc64nvme, destination_etag, read_back; and
    probe where the media was looked into, whatever was found."""
    unverified: tuple[str, ...] = ()
    """The checks that could not be made, each with why."""
    flags: tuple[str, ...] = ()
    """What a person should know all the same: ``empty``, or ``had_landed`` of what has not landed now."""
    suspect: tuple[str, ...] = ()
    """What seems damaged in the media, each in half a sentence. It landed all the same, as the source has it."""
    first_seen: AwareDatetime | None = None
    """When the ledger first heard of this file; None in its first entry."""
    recorded_at: AwareDatetime
    attempt: Attempt = Attempt()

    @property
    def had_landed(self) -> bool:
        """Whether it was ever written down that it landed: what has taken that object's place is somebody else's."""
        return self.outcome in IN_WAREHOUSE or HAD_LANDED in self.flags
