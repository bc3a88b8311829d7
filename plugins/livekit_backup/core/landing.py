"""The second half of a file's recovery: verify the upload, complete it, look again, write it down.

What holds it together: nothing is visible before :func:`land` completes the upload,
completing never replaces an object, and a landing stays in the ledger while its object is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from livekit_backup.core.adopting import adopt
from livekit_backup.core.completing import Completion
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.open_uploads import drop_rivals
from livekit_backup.core.small_files import WholeFile
from livekit_backup.core.storage import ObjectStore
from livekit_backup.core.wording import quoted
from livekit_backup.errors import ChecksumMismatchError, CorruptError, LandingConflictError, UploadLostError
from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.references import RecordingFile, Upload
from livekit_backup.models.settings import Verify
from livekit_backup.models.store_abilities import StoreAbilities

log = logging.getLogger(__name__)


def land(
    file: RecordingFile,
    done: Upload | WholeFile,
    store: ObjectStore,
    ledger: Ledger,
    attempt: Attempt,
    abilities: StoreAbilities,
    *,
    replace: bool = False,
    is_new: bool = False,
    verify: Verify = Verify.STANDARD,
) -> LedgerEntry:
    """Verify an upload and complete it, which makes it visible, or verify and store a whole file; write it down.

    Run again after it succeeded, it finds the landed object and says so.

    :param done: what the download brought.
    :param replace: what is at the key and is other content makes way.
    :param is_new: the ledger was read a moment ago, and had no entry of this file.
    :param verify: how much has to be proven.
    :raises CorruptError: the bytes are not the recording's; the upload is dropped.
    :raises UnprovenError: by ``verify``, before anything shows; the upload is kept, since the link may die meanwhile.
    :raises ChecksumMismatchError: the store holds other bytes than were sent; of a landed object nothing was left.
    :raises LandingConflictError: the key holds other content; the upload is kept, since the link may die meanwhile.
    :raises UploadLostError: the upload is gone, altered or of another file, and nothing has landed: download has to
        run again.
    :raises StorageUnavailableError: the parts or the landed object do not show yet.
    """
    upload, content = (done.upload, done.content) if isinstance(done, WholeFile) else (done, b"")
    is_its_own = (upload.egress_id, upload.run, upload.filename) == file.key
    known = None if is_new else ledger.read(file)
    if known and ledger.has_landed(known):
        if is_its_own:
            _drop(upload, store)
        return known.model_copy(update={"outcome": Outcome.ALREADY_LANDED})
    if not is_its_own:
        raise UploadLostError(
            f"what download left here is of another file ({upload.egress_id} {quoted(upload.filename)}), since "
            "resolve_manifests ran again: clear the download task"
        )
    completion = Completion(
        file,
        upload,
        store,
        abilities,
        content=content,
        replace=replace,
        verify=verify,
        had_landed=bool(known and known.had_landed),
    )
    try:
        entry = _complete_or_adopt(
            completion, lambda: adopt(file, store, ledger, attempt, abilities, at_its_word=False)
        )
    except (CorruptError, UploadLostError):
        _drop(upload, store)
        raise
    entry = entry or ledger.record(completion.entry(attempt), is_new=is_new)
    if upload.upload_id:
        drop_rivals(upload.landing_uri, store)
    return entry


def _complete_or_adopt(completion: Completion, adopt_standing: Callable[[], LedgerEntry | None]) -> LedgerEntry | None:
    """Complete an upload; or return the entry of this very file, which an earlier try has put there unheard of.

    A wrong one that an earlier try of this run has put there makes way.
    """
    try:
        completion.run()
    except LandingConflictError:
        try:
            if standing := adopt_standing():
                return standing
        except ChecksumMismatchError as removed:
            log.warning("%s", removed)
        else:
            raise
        completion.run()
    return None


def _drop(upload: Upload, store: ObjectStore) -> None:
    if upload.upload_id:
        store.abort_upload(upload.landing_uri, upload.upload_id)
