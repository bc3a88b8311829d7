"""An object at a file's landing key of which nobody wrote down that it landed: proven by its own word, and adopted.

A task that is killed between completing an upload and writing that down leaves one, and so does a run whose
word another's took the place of. Should the link be dead by then, it is all that there is of the recording.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from livekit_backup.core.completing import Completion
from livekit_backup.core.landing_keys import beside_prefix
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.object_metadata import MARK, SHA256, is_of, is_of_run
from livekit_backup.core.storage import ObjectHead, ObjectStore
from livekit_backup.core.upload_notes import UploadNotes
from livekit_backup.core.verification import Checks, check_source
from livekit_backup.core.wording import quoted
from livekit_backup.errors import CorruptError, LandingConflictError, UploadLostError
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.references import RecordingFile, Upload
from livekit_backup.models.store_abilities import StoreAbilities

UNSAID = "whoever put it there ended before the checks were written down"

log = logging.getLogger(__name__)


def adopt(
    file: RecordingFile,
    store: ObjectStore,
    ledger: Ledger,
    attempt: Attempt,
    abilities: StoreAbilities,
    *,
    at_its_word: bool,
) -> LedgerEntry | None:
    """Write down that a file has landed whose object stands at its landing key or beside it, and proves right.

    What this run itself has put there and nobody ever called landed is removed, if it proves wrong.

    :param at_its_word: that its metadata tells its SHA-256 will do, where nobody noted what its download had found.
        Whoever may write there can say so too.
    :return: None where nothing of this file stands there, or nothing proves it.
    :raises ChecksumMismatchError: a wrong one was removed.
    :raises StorageUnavailableError, AccessDeniedError: as the store says.
    """
    for there, head in _standing(file, store):
        mark = head.metadata.get(MARK, "")
        is_ours = is_of_run(mark, attempt)
        noted = UploadNotes(ledger, attempt).marked(there, mark) if is_ours else None
        result = noted.result if noted else None
        claim = result or _by_metadata(there, head)
        if claim is None:
            continue
        known = ledger.read(there)
        is_removable = is_ours and not (known and known.had_landed)
        claim = claim.model_copy(update={"mark": mark if is_removable else ""})
        completion = Completion(there, claim, store, abilities)
        try:
            completion.look(check_source(result, there.size) if result else _unsaid(there, head.size))
        except (CorruptError, LandingConflictError, UploadLostError):
            # It is another by now, or gone, or says what it is not.
            continue
        if result or at_its_word:
            log.warning(
                "%s stands at %s, and nobody wrote that down: it does now", quoted(there.filename), there.landing_uri
            )
            return ledger.record(completion.entry(attempt))
    return None


def _standing(file: RecordingFile, store: ObjectStore) -> Iterator[tuple[RecordingFile, ObjectHead]]:
    """Give what says that it is this file: the object at its landing key, else those beside another's."""
    head = store.head(file.landing_uri)
    if head is None:
        return
    if is_of(file, head.metadata):
        yield file, head
        return
    for uri in list(store.list_keys(beside_prefix(file.landing_uri))):
        head = store.head(uri)
        if head and is_of(file, head.metadata):
            yield file.model_copy(update={"landing_uri": uri, "is_beside": True}), head


def _by_metadata(file: RecordingFile, head: ObjectHead) -> Upload | None:
    """Return what an object says of itself, if it says which bytes it has: those were checked before it was stored."""
    if SHA256 not in head.metadata:
        return None
    return Upload(
        **dict(zip(("egress_id", "run", "filename"), file.key, strict=True)),
        landing_uri=file.landing_uri,
        upload_id=None,
        size=head.size,
        sha256=head.metadata[SHA256],
    )


def _unsaid(file: RecordingFile, size: int) -> Checks:
    """What can be said of the checks that were made before, and that nobody wrote down."""
    checks = Checks(unverified=[f"length: {UNSAID}", f"source_etag: {UNSAID}"])
    if file.size == size:
        checks.passed.append("event_size")
    else:
        checks.unverified.append(f"event_size: {UNSAID}")
    return checks
