"""What one task hands to the next: references, never a signed URL."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime

from livekit_backup.models.outcome import Outcome
from livekit_backup.models.stored_webhook import EventSource
from livekit_backup.models.wire import FrozenModel


class FileKind(StrEnum):
    """What a file is within its egress."""

    FILE = "file"
    PLAYLIST = "playlist"
    SEGMENT = "segment"
    IMAGE = "image"
    UNKNOWN = "unknown"
    """A stand-in for files that are known to exist, but not by name."""


class EventRef(FrozenModel):
    """Where one event lies in the inbox."""

    uri: str
    """``s3://bucket/key`` of the inbox object."""
    position: int
    """Which document of the object, from 0. A hint: what counts is the egress and run found there."""
    offset: int | None = None
    """Where its bytes begin, so that it can be read again alone; None in a compressed object. A hint too."""
    length: int = 0
    """Bytes of the document, where ``offset`` is known."""


class BackupRef(FrozenModel):
    """One run of an egress whose recording lies in LiveKit's backup."""

    egress_id: str
    run: int
    """The run's ``startedAt``, nanoseconds since the epoch."""
    room_name: str = ""
    events: tuple[EventRef, ...]
    """All its stored events, newest first."""
    ended_at: int = 0
    """When the egress ended by its newest event, nanoseconds since the epoch; 0 where no event says."""
    brought_by: EventSource = EventSource.WEBHOOK
    """A webhook if one of its events came by webhook."""


class UnreadableDocument(FrozenModel):
    """Something in the inbox that is not an event; it stays there."""

    uri: str
    position: int
    reason: str
    may_be_backup: bool
    """It mentions the backup flag, so a recording may depend on it."""


class Intake(FrozenModel):
    """What a window of the inbox holds."""

    backups: tuple[BackupRef, ...] = ()
    unreadable: tuple[UnreadableDocument, ...] = ()
    failed_without_backup: tuple[str, ...] = ()
    """Ids of egresses that failed and were not backed up: nothing to recover."""
    failed_uploads: tuple[str, ...] = ()
    """Those of them that had something to upload."""
    wanted: tuple[str, ...] = ()
    """Egress ids that the run was asked for; empty means all."""
    objects: int = 0
    events: int = 0
    """Readable documents of every kind."""
    late: int = 0
    """How many of the backups, the last of them, were found by looking back before the window."""

    @property
    def came_late(self) -> tuple[BackupRef, ...]:
        """The backups that were found by looking back."""
        return self.backups[len(self.backups) - self.late :]


class FileIdentity(FrozenModel):
    """Which file of which egress: what every mention of a file has in common."""

    egress_id: str
    run: int
    """The egress's ``startedAt``, nanoseconds since the epoch."""
    filename: str
    kind: FileKind
    room_name: str = ""
    room_id: str = ""
    started: AwareDatetime
    deadline: AwareDatetime | None = None
    """When its link dies; None for an unsigned location."""

    @property
    def key(self) -> tuple[str, int, str]:
        """What a file is known by: egress, run and filename."""
        return self.egress_id, self.run, self.filename

    def identity(self) -> dict[str, Any]:
        """These fields alone, to describe the same file in another model."""
        return {name: getattr(self, name) for name in FileIdentity.model_fields}


class RecordingFile(FileIdentity):
    """One file to recover: the argument of a mapped task."""

    size: int | None = None
    """Bytes by the event; None where it does not say."""
    seconds: float | None = None
    """That it plays by the event; None where it does not say. No check that a landing depends on goes by it."""
    landing_uri: str = ""
    """``s3://bucket/key`` where it lands; empty when it cannot."""
    is_beside: bool = False
    """That key is another than the file should have, which holds other content."""
    events: tuple[EventRef, ...] = ()
    label: str = ""
    """What a person recognises in the UI."""
    primary_uri: str = ""
    """``s3://bucket/key`` in the customer's own bucket, for a file that never was in the backup."""


class BackupFiles(FrozenModel):
    """The whole list of a backup's files."""

    files: tuple[FileIdentity, ...]


class AccountedFile(FrozenModel):
    """A file whose outcome is known without a download."""

    file: RecordingFile
    outcome: Outcome
    reason: str


class Plan(FrozenModel):
    """What a run sets out to do: every file of every backup, once."""

    to_recover: tuple[RecordingFile, ...] = ()
    """Nearest deadline first."""
    accounted: tuple[AccountedFile, ...] = ()
    made_at: AwareDatetime | None = None
    """What the ledger heard of these files since then may be this run's or that of another beside it."""

    @property
    def files(self) -> tuple[RecordingFile, ...]:
        """Every file of the plan."""
        return (*self.to_recover, *(known.file for known in self.accounted))


class Upload(FrozenModel):
    """A download's result: an uncompleted multipart upload at the landing key, and what is known of its bytes."""

    egress_id: str
    run: int
    filename: str
    """Whose bytes these are: a rerun of the task before can shift the list that both tasks are mapped over."""
    landing_uri: str
    upload_id: str | None
    """None: nothing of it is in the store yet, since it is held in memory."""
    size: int = 0
    """Bytes in all parts."""
    part_size: int = 0
    """Bytes of every part but the last."""
    sha256: str = ""
    """Of the whole, hexadecimal; empty when an earlier try or the store itself put some of the parts."""
    crc64nvme: str = ""
    """Of the whole, base64; empty where it is not known."""
    etag: str = ""
    """What the warehouse's ETag must be by its ETags of the parts; empty where those are no MD5s."""
    own_etag: str = ""
    """The same by MD5s of ours; empty where none were needed."""
    computed_etags: tuple[str, ...] = ()
    """What the source's ETag must be by its possible part sizes, computed while the bytes passed."""
    announced_size: int = 0
    """Bytes by the source's Content-Length."""
    source_etag: str = ""
    """As the source sent it, without quotes."""
    source_etag_by_warehouse: str = ""
    """What the source's ETag must be by the warehouse's own checksums of the parts; empty where they cannot tell."""
    mark: str = ""
    """Stands in the landed object's metadata."""
    source_etag_is_certain: bool = False
    """Whether another ETag proves wrong bytes; if not, the source's part size is only guessed."""


class OpenUpload(FrozenModel):
    """A multipart upload that a run has opened, and which version of the source it is filled from."""

    landing_uri: str
    upload_id: str
    source_etag: str = ""
    size: int = 0
    """Bytes of the source."""
    part_size: int = 0
    """Bytes of every part but the last."""
    with_crc64nvme: bool = True
    """Parts have to come with one."""
    mark: str = ""
    """Stands in the object's metadata too: by it a landed object is known as this upload's."""
    holder: str = ""
    """Which try has it now: a zombie drops nothing that another has taken over."""
    result: Upload | None = None
    """What the download found once all bytes were up: verify_and_land goes by it."""
