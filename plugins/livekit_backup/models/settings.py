"""The configuration of a recovery, as values. What each key means: ``docs/configuration.md``."""

from __future__ import annotations

from datetime import timedelta
from string import Formatter

from pydantic import field_validator

from livekit_backup.models.wire import FrozenModel

LANDING_FIELDS = frozenset({"started", "egress_id", "filename", "room_name", "room_id", "started_at", "kind"})
BACKUP_LIFETIME = timedelta(days=7)
"""How long LiveKit keeps a backup (its page "Backup Egress Recordings")."""


class Settings(FrozenModel):
    """Validated settings; every URI is ``s3://bucket[/prefix]`` without a slash at its end."""

    inbox: str
    inbox_layout: str = "%Y/%m/%d/%H/"
    warehouse: str
    landing_key: str = "dt={started:%Y-%m-%d}/{egress_id}/{filename}"
    ledger: str
    inbox_conn_id: str = "aws_default"
    warehouse_conn_id: str = "aws_default"
    allowed_hosts: tuple[str, ...] = ("*.amazonaws.com", "storage.googleapis.com")
    grace: timedelta = timedelta(seconds=300)

    @field_validator("inbox", "warehouse", "ledger")
    @classmethod
    def _is_s3_uri(cls, value: str) -> str:
        scheme, _, rest = value.partition("://")
        bucket = rest.partition("/")[0]
        if scheme != "s3" or not bucket or bucket != bucket.strip() or "?" in value or "#" in value:
            raise ValueError("must be s3://bucket or s3://bucket/prefix")
        return value.rstrip("/")

    @field_validator("landing_key")
    @classmethod
    def _is_landing_template(cls, value: str) -> str:
        try:
            fields = [name for _, name, _, _ in Formatter().parse(value) if name is not None]
        except ValueError as error:
            raise ValueError(f"is not a format string: {error}") from None
        unknown = sorted(set(fields) - LANDING_FIELDS)
        if unknown:
            known = ", ".join(sorted(LANDING_FIELDS))
            raise ValueError(f"has unknown fields {', '.join(unknown)!r}; known are {known}")
        if "filename" not in fields:
            raise ValueError("must contain {filename}, or the files of one egress share a key")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _has_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.strip().lower() for host in value if host.strip())
        if not hosts:
            raise ValueError("must name at least one host")
        if "*" in hosts:
            raise ValueError("must not be '*': a forged event could make a task fetch any address")
        return hosts

    @field_validator("grace")
    @classmethod
    def _is_not_negative(cls, value: timedelta) -> timedelta:
        if value < timedelta(0):
            raise ValueError("must be 0 or more seconds")
        return value
