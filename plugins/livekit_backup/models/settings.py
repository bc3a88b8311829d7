"""The configuration of a recovery, as values. What each key means: ``docs/configuration.md``."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum

from pydantic import Field, field_validator

from livekit_backup.models.landing_template import check_landing_template
from livekit_backup.models.upload_options import UploadOptions
from livekit_backup.models.wire import FrozenModel

BACKUP_LIFETIME = timedelta(days=7)
"""How long LiveKit keeps a backup (its page "Backup Egress Recordings")."""
LOOKBACK = BACKUP_LIFETIME + timedelta(days=1)
"""What a statement looks back over: a day longer, or nobody would read that a backup was lost."""

_HOST_ENTRY = re.compile(
    r"^(\*\.[a-z0-9_-]+(\.[a-z0-9_-]+)+|[a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$|^[0-9a-f]*:[0-9a-f:.]*:[0-9a-f.]*$"
)
"""A pattern is ``*.`` and at least two labels. IPv6 addresses stand in brackets, or bare without a port."""


class OnConflict(StrEnum):
    """What happens when a landing key holds other content."""

    KEEP_BOTH = "keep_both"
    """The new one lands beside, under a name with its checksum."""
    FAIL = "fail"
    """Nothing lands until a person has moved the other away."""
    OVERWRITE = "overwrite"
    """The new one replaces the other."""


class Verify(StrEnum):
    """How much has to be proven before a file counts as landed."""

    STANDARD = "standard"
    """What can be checked is; what cannot is written down beside it."""
    STRICT = "strict"
    """Nothing lands whose source's bytes nothing proves, and each landed object is read back."""


def plain_s3_uri(value: str) -> str:
    """Return ``s3://bucket[/prefix]`` without a slash at its end. :raises ValueError: it is something else."""
    scheme, _, rest = value.partition("://")
    bucket = rest.partition("/")[0]
    if scheme != "s3" or not bucket or bucket != bucket.strip() or "?" in value or "#" in value:
        raise ValueError("must be s3://bucket or s3://bucket/prefix")
    return value.rstrip("/")


class Settings(FrozenModel):
    """Validated settings; every URI is ``s3://bucket[/prefix]`` without a slash at its end."""

    inbox: str
    inbox_layout: str = "%Y/%m/%d/%H/"
    warehouse: str
    landing_key: str = "dt={started:%Y-%m-%d}/{egress_id}/{filename}"
    ledger: str
    inbox_conn_id: str = "aws_default"
    warehouse_conn_id: str = "aws_default"
    primary_conn_id: str | None = None
    """Of the bucket that LiveKit was asked to upload to; None: nothing is copied from there."""
    livekit_conn_id: str = "livekit_default"
    """Of LiveKit's API; its keys also sign webhooks."""
    upload_options: UploadOptions = UploadOptions()
    parallel_ranges: int = Field(default=1, ge=1, le=16)
    """Streams over one recording; each holds a buffer and a connection."""
    allowed_hosts: tuple[str, ...] = ("*.amazonaws.com", "storage.googleapis.com")
    grace: timedelta = timedelta(seconds=300)
    lookback: timedelta = timedelta(hours=3)
    """What a scheduled run reads again before its window, for events that came late."""
    on_conflict: OnConflict = OnConflict.KEEP_BOTH
    verify: Verify = Verify.STANDARD
    probe: bool = False
    """Whether landed media is looked into, and named where it seems damaged."""
    bundle_files: int = Field(default=64, ge=1, le=1000)
    """Files of one task, where they are too small or too many for a task each."""
    bundle_bytes: int = Field(default=256 * 1024 * 1024, ge=1)
    max_bytes_per_second: int | None = Field(default=None, ge=1024)
    """Of one task; None: as fast as it goes."""
    alarm_hours: tuple[float, ...] = (72.0, 24.0, 6.0)
    """Hours left at which a backup that is not safe raises an alarm."""

    _is_s3_uri = field_validator("inbox", "warehouse", "ledger")(plain_s3_uri)

    @field_validator("landing_key")
    @classmethod
    def _is_landing_template(cls, value: str) -> str:
        check_landing_template(value)
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _has_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.strip().lower() for host in value if host.strip())
        if not hosts:
            raise ValueError("must name at least one host")
        for host in hosts:
            if not _HOST_ENTRY.match(host):
                raise ValueError(
                    f"has {host!r}: give a host, host:port, or a pattern such as *.amazonaws.com; a wider one would "
                    "let a forged event make a task fetch any address"
                )
        return hosts

    @field_validator("alarm_hours")
    @classmethod
    def _are_hours(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(0 < hours <= BACKUP_LIFETIME.days * 24 for hours in value):
            raise ValueError(f"must be hours left, each over 0 and at most {BACKUP_LIFETIME.days * 24}")
        return tuple(sorted(set(value), reverse=True))

    @field_validator("grace", "lookback")
    @classmethod
    def _is_not_negative(cls, value: timedelta) -> timedelta:
        if value < timedelta(0):
            raise ValueError("must be 0 or more seconds")
        return value
