"""The open upload of one file: opened, noted for other tries, found again by them, or dropped."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from livekit_backup.core.checksums import Checksums
from livekit_backup.core.etags import EtagRule, etag_of_parts, etag_rule
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.object_metadata import content_type, new_mark, provenance
from livekit_backup.core.part_plan import PartPlan, plan_parts
from livekit_backup.core.storage import ObjectStore, UploadedPart
from livekit_backup.core.upload_notes import UploadNotes
from livekit_backup.core.upload_sink import UploadSink
from livekit_backup.errors import LivekitBackupError, PermanentError, SourceChangedError
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.references import OpenUpload, RecordingFile, Upload
from livekit_backup.models.store_abilities import StoreAbilities


class EtagsProveNothingError(Exception):
    """The plan counts on ETags that the store turns out not to give: plan again without them."""


@dataclass(frozen=True)
class Work:
    """What one pass over a recording has to do: all of it, or what an earlier try has left."""

    plan: PartPlan
    rule: EtagRule
    source_etag: str
    parts: tuple[UploadedPart, ...] = ()
    """Up already, from the first on without a gap."""

    @property
    def start(self) -> int:
        """The offset of the first byte that has to be moved."""
        return sum(part.size for part in self.parts)

    def checksums(self) -> Checksums:
        """Return checksums that have taken in what is up already."""
        checksums = Checksums(self.plan)
        checksums.skip(self.parts)
        return checksums


class FileUpload:
    """The multipart upload of a file at its landing key; at most one is open here at a time."""

    def __init__(self, file: RecordingFile, store: ObjectStore, ledger: Ledger, attempt: Attempt) -> None:
        self.file = file
        self.store = store
        self._attempt = attempt
        self._notes = UploadNotes(ledger, attempt)
        self._holder = uuid.uuid4().hex
        self._opened: OpenUpload | None = None

    def left_open(self, abilities: StoreAbilities) -> Work | None:
        """Find what earlier tries of this run have left, and take over what has most; the rest is dropped.

        Its parts are trusted without trusting who put them: by the warehouse's checksums the
        whole must come out with the source's own ETag. Where there is no such proof, none is.
        """
        left = [(noted, self._to_go_on_with(noted, abilities)) for noted in self._notes.of(self.file)]
        found = [(noted, work) for noted, work in left if work]
        taken, work = max(found, key=lambda one: one[1].start, default=(None, None))
        if taken:
            self._note(taken.model_copy(update={"holder": self._holder}))
        for noted, _ in left:
            if noted is not taken:
                self._abort(noted)
        return work

    def _to_go_on_with(self, noted: OpenUpload, abilities: StoreAbilities) -> Work | None:
        if not noted.size:
            return None
        rule = etag_rule(noted.source_etag, noted.size)
        plan = plan_parts(noted.size, rule, abilities)
        if not plan.proves_source or (plan.part_size, plan.with_crc64nvme) != (noted.part_size, noted.with_crc64nvme):
            return None
        parts = _in_order(self._sink(noted).parts() or (), plan)
        return Work(plan, rule, noted.source_etag, parts) if parts else None

    def open(self, work: Work, sha256: str = "") -> UploadSink:
        """Return the sink of the upload that is open; if none is, open one and note it.

        :param sha256: of the whole, where it is known already.
        :raises EtagsProveNothingError: the plan counts on ETags that this store does not give.
        """
        if self._opened:
            return self._sink(self._opened)
        opened = OpenUpload(
            landing_uri=self.file.landing_uri,
            upload_id="",
            source_etag=work.source_etag,
            size=work.plan.size,
            part_size=work.plan.part_size,
            with_crc64nvme=work.plan.with_crc64nvme,
            mark=new_mark(self._attempt),
            holder=self._holder,
        )
        # Also of one whose id is never heard the report must know.
        self._notes.put(self.file, opened)
        new = self.store.create_upload(
            self.file.landing_uri,
            content_type=content_type(self.file.filename),
            metadata=provenance(self.file, datetime.now(UTC), sha256, opened.mark),
            crc64nvme=work.plan.with_crc64nvme,
        )
        opened = opened.model_copy(update={"upload_id": new.upload_id})
        try:
            if work.plan.proves_source and not new.etags_are_md5:
                raise EtagsProveNothingError(f"{self.file.landing_uri} is encrypted so that ETags are no MD5s there")  # noqa: TRY301 - it is dropped like after any error
            self._note(opened)
        except BaseException:
            # What nobody knows of, nobody can go on with.
            self._abort(opened)
            raise
        return self._sink(opened)

    def _note(self, opened: OpenUpload) -> None:
        self._notes.put(self.file, opened)
        self._opened = opened

    def drop(self) -> None:
        """Drop the upload that is open, unless another try has taken it over. If that fails, the report does it."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        with contextlib.suppress(LivekitBackupError):
            noted = self._notes.marked(self.file, opened.mark)
            if noted and noted.holder == self._holder:
                self._abort(opened)

    def _abort(self, opened: OpenUpload) -> None:
        with contextlib.suppress(LivekitBackupError):
            self._sink(opened).abort()

    @contextlib.contextmanager
    def kept_for_the_next_try(self) -> Iterator[None]:
        """Leave the upload open for the next try, and drop it after an error that no try can go on behind."""
        try:
            yield
        except (SourceChangedError, PermanentError):
            self.drop()
            raise

    def result(self, work: Work, checksums: Checksums, etags: Sequence[str]) -> Upload:
        """Return what the next task needs to know of the filled upload.

        :param etags: of the parts behind those that were up already.
        """
        assert self._opened
        all_etags = [*(part.etag for part in work.parts), *etags]
        return self.describe(
            upload_id=self._opened.upload_id,
            size=work.plan.size,
            part_size=work.plan.part_size,
            sha256=checksums.sha256,
            crc64nvme=checksums.crc64nvme,
            etag=etag_of_parts(all_etags),
            own_etag=checksums.own_etag(),
            mark=self._opened.mark,
            computed_etags=checksums.etags(),
            announced_size=work.plan.size,
            source_etag=work.source_etag,
            source_etag_by_warehouse=work.plan.source_etag(all_etags),
            source_etag_is_certain=work.rule.is_certain,
        )

    def _sink(self, opened: OpenUpload) -> UploadSink:
        return UploadSink(self.store, opened.landing_uri, opened.upload_id)

    def describe(self, **facts: Any) -> Upload:
        """Return an upload of this file with these facts."""
        egress_id, run, filename = self.file.key
        known = {"egress_id": egress_id, "run": run, "filename": filename, "landing_uri": self.file.landing_uri}
        return Upload(**{**known, "upload_id": None, **facts})


def _in_order(stored: Sequence[UploadedPart], plan: PartPlan) -> tuple[UploadedPart, ...]:
    """Return the parts from the first on, up to the first that is missing or of another size than planned."""
    parts: list[UploadedPart] = []
    for number, part in enumerate(stored, 1):
        if part.number != number or number > plan.count or part.size != len(plan.span(number)):
            break
        parts.append(part)
    return tuple(parts)
