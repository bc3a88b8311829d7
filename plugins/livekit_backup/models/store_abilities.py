"""What an object store was found to honour: the result of ``core.store_check``."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import AwareDatetime

from livekit_backup.models.wire import FrozenModel

STORE_CHECK_LIFETIME = timedelta(days=7)
"""Stores change when they are upgraded or a bucket's policy is edited, so not by the hour; a check costs about
forty small requests."""
DOUBTFUL_LIFETIME = timedelta(minutes=10)
"""Where the store was away in the middle of its check. Some answer 500 to what they lack, so it is not asked for ever;
meanwhile what counts as absent is made up for by reading landed objects back."""


class StoreAbilities(FrozenModel):
    """Findings about one bucket. What could not be found out counts as absent."""

    checked_at: AwareDatetime
    store: str = ""
    """Which store it is: buckets of several may be called the same."""
    in_doubt: bool = False
    """Something counts as absent for the only reason that the store did not answer."""
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
    """A completion, and a whole object, on condition that there is no object leave one that is there."""
    tags: bool = False
    """Objects can be tagged."""

    def is_fresh(self, now: datetime) -> bool:
        """Whether the findings are young enough to rely on; findings from the future are not."""
        lifetime = DOUBTFUL_LIFETIME if self.in_doubt else STORE_CHECK_LIFETIME
        return timedelta(0) <= now - self.checked_at < lifetime

    def describe(self) -> str:
        """Return one line for the log."""
        found = {name: value for name, value in self if isinstance(value, bool) and name != "in_doubt"}
        present = ", ".join(name for name, value in found.items() if value)
        absent = ", ".join(name for name, value in found.items() if not value)
        doubt = "; it did not always answer" if self.in_doubt else ""
        return f"the store {self.store}: {present or 'nothing'}; not: {absent or 'nothing'}{doubt}"


class StoreProbe(FrozenModel):
    """Where a run tries what the store honours."""

    uris: tuple[str, ...]
