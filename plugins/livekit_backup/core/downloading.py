"""The first half of a file's recovery: into memory where it is small, else into an upload that nobody sees.

Any step may be killed at any instant and run again, also beside itself: the next try goes on
with the upload that this run has open for the file, and the report drops what is left.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from livekit_backup.core.etags import etag_rule
from livekit_backup.core.file_upload import EtagsProveNothingError, FileUpload, Work
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.object_metadata import new_mark
from livekit_backup.core.pacing import Pace
from livekit_backup.core.part_plan import plan_parts
from livekit_backup.core.progress import ProgressLog
from livekit_backup.core.small_files import WholeFile, read_whole
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.transfer import Transfer
from livekit_backup.core.transfer_protocols import Source, SourceBody
from livekit_backup.core.verification import contradicts_source
from livekit_backup.core.wording import quoted
from livekit_backup.errors import CorruptError, SourceChangedError
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.references import RecordingFile, Upload
from livekit_backup.models.store_abilities import StoreAbilities

MOST_PASSES = 4
"""Over one recording in one try: a source that changes more often is left to the next try."""

log = logging.getLogger(__name__)


class Download:
    """Brings one file into memory, or into an uncompleted multipart upload at its landing key."""

    def __init__(
        self,
        file: RecordingFile,
        store: ObjectStore,
        ledger: Ledger,
        attempt: Attempt,
        abilities: StoreAbilities,
        *,
        streams: int = 1,
        small: int = 0,
        pace: Pace | None = None,
        turn: AbstractContextManager[object] | None = None,
        anew: bool = False,
        show: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare.

        :param abilities: of the warehouse's store.
        :param streams: ranges that are read side by side.
        :param small: bytes up to which a file is held in memory instead of an upload.
        :param pace: that reading keeps to.
        :param turn: held while an upload in parts is filled.
        :param anew: leave alone what an earlier try has open.
        :param show: takes the progress in a few words.
        """
        self._file = file
        self._attempt = attempt
        self._small = small
        self._anew = anew
        self._pace = pace
        self._turn = turn or contextlib.nullcontext()
        self._upload = FileUpload(file, store, ledger, attempt)
        self._abilities = abilities
        self._streams = streams
        self._show = show
        self.kept = 0
        """Bytes that an earlier try had brought."""

    def run(
        self, open_source: Callable[[], Source], copy: Callable[[FileUpload], Upload | None] | None = None
    ) -> Upload | WholeFile:
        """Download all of it.

        :param copy: lets the warehouse's store copy the file by itself; None when it cannot.
        :raises RetryableError, PermanentError, NeedsOperatorError: as the source or the store says.
        """
        left = None if self._anew else self._upload.left_open(self._abilities)
        self.kept = left.start if left else 0
        if copy and not left and (copied := copy(self._upload)):
            return copied
        return self._in_passes(open_source(), left)

    def _in_passes(self, source: Source, left: Work | None) -> Upload | WholeFile:
        """Pass over the recording until it is up, and proven if that can be."""
        thorough = False
        for passes_left in range(MOST_PASSES - 1, -1, -1):
            try:
                done = self._go_on(source, left) if left else self._begin(source, thorough=thorough)
                upload = done.upload if isinstance(done, WholeFile) else done
            except SourceChangedError as error:
                if not passes_left:
                    raise
                log.warning("%s; beginning anew at byte 0", error)
            else:
                if not passes_left or thorough or not _is_worth_another_pass(upload):
                    return done
                log.warning("%s arrived with wrong bytes; fetching it again", quoted(self._file.filename))
                self._upload.drop()
                thorough = True
            left = None
        raise AssertionError("the last pass returns or raises")

    def _begin(self, source: Source, *, thorough: bool) -> Upload | WholeFile:
        """Read the whole recording."""
        body = source.open()
        with _closing_on_error(body):
            self._refuse_another_size(body)
            rule = etag_rule(body.etag, body.size, is_digest=body.etag_is_digest)
            if body.size <= max(0, self._small):
                mark = new_mark(self._attempt)
                return read_whole(self._file, source, body, rule, self._abilities, self._pace, mark)
            plan = plan_parts(body.size, rule, self._abilities, thorough=thorough)
        try:
            with self._turn:
                return self._transfer(source, body, Work(plan, rule, body.etag))
        except EtagsProveNothingError as error:
            log.info("%s: the source's ETag is computed on the way", error)
            self._abilities = self._abilities.model_copy(update={"etags_are_md5": False})
            return self._begin(source, thorough=thorough)

    def _refuse_another_size(self, body: SourceBody) -> None:
        """See before any byte is stored what verifying would see at the end: a source may announce 48 TiB."""
        if self._file.size not in (None, body.size):
            # What an earlier pass has put of another version.
            self._upload.drop()
            raise CorruptError(f"the recording has {body.size} bytes, LiveKit's event says {self._file.size}")

    def _go_on(self, source: Source, work: Work) -> Upload:
        """Read what an earlier try has left."""
        with self._turn, self._upload.kept_for_the_next_try():
            if work.start == work.plan.size:
                upload = self._upload.result(work, work.checksums(), [])
            else:
                upload = self._transfer(source, source.open(work.start, etag=work.source_etag), work)
            if upload.source_etag_by_warehouse != upload.source_etag:
                raise SourceChangedError(f"the parts of {quoted(self._file.filename)} that are up are not the source's")
        return upload

    def _transfer(self, source: Source, body: SourceBody, work: Work) -> Upload:
        with _closing_on_error(body):
            if body.size != work.plan.size:
                raise SourceChangedError(f"{source.name} has {body.size} bytes now, and had {work.plan.size}")
            checksums = work.checksums()
            name = quoted(self._file.filename)
            progress = ProgressLog(log, name, body.size, self._file.deadline, done=work.start, show=self._show)
            transfer = Transfer(
                source,
                body,
                work.plan,
                checksums,
                first=len(work.parts) + 1,
                streams=self._streams,
                pace=self._pace,
                on_progress=progress,
            )
        with self._upload.kept_for_the_next_try():
            # Metadata is set when the upload is opened, and only of a single part all is known by then.
            etags = transfer.run(lambda hashed: self._upload.open(work, hashed.sha256 if work.plan.count == 1 else ""))
        upload = self._upload.result(work, checksums, etags)
        progress.end(_what_was_checked(upload))
        return upload


def _is_worth_another_pass(upload: Upload) -> bool:
    """Whether a mismatch may be gone, or be explained by a part size that was not tried, when all is read again."""
    has_more_readings = bool(upload.source_etag_by_warehouse)
    return contradicts_source(upload) and (upload.source_etag_is_certain or has_more_readings)


def _what_was_checked(upload: Upload) -> str:
    checked = ["length"]
    if upload.sha256:
        checked.append("SHA-256 taken")
    if upload.crc64nvme:
        checked.append("CRC64NVME sent")
    if upload.source_etag and not contradicts_source(upload):
        how = "by the warehouse's own checksums" if upload.source_etag_by_warehouse else "computed on the way"
        checked.append(f"source's ETag {how}")
    return f"checked: {', '.join(checked)}"


@contextlib.contextmanager
def _closing_on_error(body: SourceBody) -> Iterator[None]:
    try:
        yield
    except BaseException:
        body.close()
        raise
