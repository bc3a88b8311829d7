"""``doctor`` on the buckets: each right that recovery needs, tried with objects of its own that it removes again."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.commands.s3_faults import Attempt, explain, is_denial, policy
from livekit_backup.core.examination import CannotCheckError
from livekit_backup.core.storage import UploadedPart, join_uri, split_uri
from livekit_backup.errors import LivekitBackupError
from livekit_backup.hooks.object_store import S3ObjectStore
from livekit_backup.models.finding import Finding, note, ok, warning

PROBE = b'{"event": "livekit_backup_probe"}\n'
"""Were it ever read as an event, it would be one of no egress."""
CONTENT_TYPE = "application/json"
FOLDER = "_livekit_backup/doctor"
"""No hour's prefix; and under the warehouse not where recordings land."""

_Result = TypeVar("_Result")
_FAILED: Any = object()


class Tries:
    """Calls on one store, each answered by a finding where it fails."""

    def __init__(self, setup: ExaminedSetup, role: str) -> None:
        self.store: S3ObjectStore = setup.store(role)
        self.place = setup.place(role)
        self.probe = join_uri(self.place, FOLDER, f"{uuid.uuid4().hex}.json")
        self.findings: list[Finding] = []
        self._conn_id = setup.conn_id(role)
        self._setting = f"AIRFLOW__LIVEKIT_BACKUP__{role.upper()}"

    def attempt(self, doing: str, *actions: str, uri: str = "") -> Attempt:
        """Describe a call."""
        return Attempt(
            doing=doing,
            uri=uri or self.probe,
            place=self.place,
            actions=actions,
            conn_id=self._conn_id,
            setting=self._setting,
            partition=self.store.connection.place.partition,
        )

    def call(self, attempt: Attempt, call: Callable[[], _Result]) -> _Result:
        """Return the call's result, or ``_FAILED`` with a finding."""
        try:
            return call()
        except (LivekitBackupError, FileNotFoundError) as error:
            self.findings.append(explain(error, attempt))
            return _FAILED  # type: ignore[no-any-return]


def reach_check(role: str) -> Callable[[ExaminedSetup], Iterator[Finding]]:
    """Return the check that a store answers, takes the keys, and has the bucket."""
    return lambda setup: _check_reach(setup, role)


def _check_reach(setup: ExaminedSetup, role: str) -> Iterator[Finding]:
    place, conn_id = setup.place(role), setup.conn_id(role)
    setting = f"AIRFLOW__LIVEKIT_BACKUP__{role.upper()}"
    attempt = Attempt("list objects", place, place, ("s3:ListBucket",), conn_id, setting)
    try:
        # Without options: whether those can be used is a check of its own.
        store = setup.store_with(role)
        next(store.list_keys(f"{place}/"), None)
    except Exception as error:  # noqa: BLE001 - boto raises what it likes of a connection that it cannot read
        setup.unreachable.add((conn_id, split_uri(place)[0]))
        yield explain(error, attempt)
        return
    yield ok(f"{store.place_name()} answers, takes the keys of {conn_id}, and lists {place}")


def check_inbox_rights(setup: ExaminedSetup) -> Iterator[Finding]:
    """Store, read and remove an object, as the receiver and reconcile store events."""
    tries = Tries(setup, "inbox")
    store, probe = tries.store, tries.probe

    def put() -> bool:
        return store.put_new(probe, PROBE, content_type=CONTENT_TYPE, metadata={})

    stored = tries.call(tries.attempt("store an event", "s3:PutObject"), put)
    if stored is not _FAILED:
        tries.call(tries.attempt("read an event", "s3:GetObject"), lambda: store.get(probe))
    yield from tries.findings
    if not tries.findings:
        yield ok(f"events can be stored and read in {tries.place}")
    yield from _remove(tries)


def _remove(tries: Tries) -> Iterator[Finding]:
    try:
        tries.store.delete(tries.probe)
    except LivekitBackupError:
        # A bucket of evidence may well allow no deletion, and what is not there needs none.
        if not tries.findings:
            yield note(f"the probe {tries.probe} could not be removed; no right to delete is needed here")


def check_ledger(setup: ExaminedSetup) -> Iterator[Finding]:
    """Write, replace and read a document, as tasks do."""
    if (setup.conn_id("ledger"), split_uri(setup.place("ledger"))[0]) in setup.unreachable:
        raise CannotCheckError("it lies in the warehouse's bucket")
    tries = Tries(setup, "ledger")
    store, probe = tries.store, join_uri(tries.place, "doctor", f"{uuid.uuid4().hex}.json")
    tries.probe = probe
    for _ in range(2):
        if tries.call(tries.attempt("write a document", "s3:PutObject"), lambda: store.put(probe, PROBE)) is _FAILED:
            break
    else:
        tries.call(tries.attempt("read a document", "s3:GetObject"), lambda: store.get(probe))
    list_documents = tries.attempt("list documents", "s3:ListBucket", uri=tries.place)
    tries.call(list_documents, lambda: next(store.list_keys(f"{tries.place}/doctor/"), None))
    yield from tries.findings
    if not tries.findings:
        yield ok(f"documents can be written, replaced, read and listed in {tries.place}")
    yield from _remove(tries)


def check_warehouse_rights(setup: ExaminedSetup) -> Iterator[Finding]:
    """Do what a landing does, with an object of a few bytes: upload, list, complete, look, tag, drop, remove."""
    tries = Tries(setup, "warehouse")
    store, probe = tries.store, tries.probe
    upload = _opened(tries, probe)
    if upload is not None:
        _complete(tries, upload)
        drop = tries.attempt("drop an upload", "s3:AbortMultipartUpload")
        other = _opened(tries, f"{probe}-2")
        for uri, upload_id in ((f"{probe}-2", other), (probe, upload)):
            if upload_id and tries.call(drop, partial(store.abort_upload, uri, upload_id)) is _FAILED:
                break
        yield from _tag(tries)
    yield from tries.findings
    if not tries.findings:
        yield ok(f"recordings can be uploaded, listed, completed, looked at and dropped in {tries.place}")
    try:
        store.delete(probe)
    except LivekitBackupError as error:
        if upload is not None and is_denial(error):
            remove = tries.attempt("remove an object", "s3:DeleteObject")
            yield warning(
                "no right to delete, so that an object which turned out wrong right after it landed stays, and so does "
                f"the probe {probe}",
                f"allow it: {policy(remove)}",
            )


def _opened(tries: Tries, uri: str) -> str | None:
    """Open an upload; None where that fails."""
    store = tries.store
    create = tries.attempt("open an upload", "s3:PutObject")

    def open_it() -> str:
        made = store.create_upload(uri, content_type=CONTENT_TYPE, metadata={}, crc64nvme=False)
        return made.upload_id

    upload_id = tries.call(create, open_it)
    return None if upload_id is _FAILED else upload_id


def _complete(tries: Tries, upload_id: str) -> None:
    store, probe = tries.store, tries.probe
    find = tries.attempt("list open uploads", "s3:ListBucketMultipartUploads", uri=tries.place)
    tries.call(find, lambda: store.list_uploads(probe))

    def put() -> str:
        return store.upload_part(probe, upload_id, 1, memoryview(PROBE))

    def complete() -> bool:
        return store.complete_upload(probe, upload_id, [UploadedPart(1, len(PROBE), etag)], size=len(PROBE))

    etag = tries.call(tries.attempt("store a part", "s3:PutObject"), put)
    if etag is _FAILED:
        return
    tries.call(
        tries.attempt("list an upload's parts", "s3:ListMultipartUploadParts"),
        lambda: store.list_parts(probe, upload_id),
    )
    if tries.call(tries.attempt("complete an upload", "s3:PutObject"), complete) is not _FAILED:
        tries.call(tries.attempt("look at an object", "s3:GetObject"), lambda: store.head(probe))
        tries.call(tries.attempt("read an object", "s3:GetObject"), lambda: store.get(probe))


def _tag(tries: Tries) -> Iterator[Finding]:
    store = tries.store
    if not store.options.Tagging or tries.findings:
        return
    tag = tries.attempt("tag an object", "s3:GetObjectTagging", "s3:PutObjectTagging")
    if tries.call(tag, lambda: store.add_tags(tries.probe, {"livekit-backup": "probe"})) is False:
        yield warning(
            "objects are not tagged: the store has no tags, or the right is missing", f"allow it: {policy(tag)}"
        )
