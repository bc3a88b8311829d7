"""What an object store was found to honour: the result of ``core.store_check``."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import AwareDatetime

from livekit_backup.models.wire import FrozenModel

STORE_CHECK_LIFETIME = timedelta(days=7)
"""Stores change when they are upgraded or a bucket's policy is edited, so not by the hour; a check costs about
forty small requests."""


class StoreAbilities(FrozenModel):
    """Findings about one bucket. What could not be found out counts as absent."""

    checked_at: AwareDatetime
    accepts_crc64nvme: bool = False
    """Parts and completions may come with a CRC64NVME."""
    refuses_wrong_crc64nvme: bool = False
    """A part whose CRC64NVME is wrong is not stored."""
    refuses_wrong_md5: bool = False
    """A part whose Content-MD5 is wrong is not stored."""
    refuses_wrong_whole: bool = False
    """A completion whose CRC64NVME of the whole is wrong fails."""
    gives_crc64nvme: bool = False
    """HEAD tells the CRC64NVME of an object that was uploaded with one."""
    etags_are_md5: bool = False
    """A multipart upload's ETag is the MD5 of its parts' MD5s."""
    never_replaces: bool = False
    """A completion on condition that there is no object leaves one that is there."""
    tags: bool = False
    """Objects can be tagged."""

    def is_fresh(self, now: datetime) -> bool:
        """Whether the findings are young enough to rely on; findings from the future are not."""
        return timedelta(0) <= now - self.checked_at < STORE_CHECK_LIFETIME

    def describe(self) -> str:
        """Return one line for the log."""
        found = {name: value for name, value in self if isinstance(value, bool)}
        present = ", ".join(name for name, value in found.items() if value)
        absent = ", ".join(name for name, value in found.items() if not value)
        return f"the store: {present or 'nothing'}; not: {absent or 'nothing'}"
