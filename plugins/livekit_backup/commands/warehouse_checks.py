"""``doctor`` on what the stores are like: upload options, what is honoured, lifecycle rules, and the primary bucket."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.commands.s3_faults import Attempt, boto_error, explain
from livekit_backup.commands.store_checks import CONTENT_TYPE, FOLDER
from livekit_backup.core.examination import CannotCheckError
from livekit_backup.core.storage import join_uri, split_uri
from livekit_backup.core.store_check import check_store
from livekit_backup.core.warehouse_check import PROBES
from livekit_backup.errors import LivekitBackupError
from livekit_backup.hooks.s3_errors import error_code, store_errors
from livekit_backup.models.finding import Finding, broken, note, ok, warning
from livekit_backup.models.upload_options import UploadOptions

_LEAST_DAYS = 7
"""As long as LiveKit's links live."""
_ENCRYPTION = ("ServerSideEncryption", "SSEKMSKeyId", "SSEKMSEncryptionContext", "BucketKeyEnabled")
_TOGETHER = [
    _ENCRYPTION,
    ("StorageClass",),
    ("ACL",),
    ("Tagging",),
    ("Metadata",),
    ("ExpectedBucketOwner",),
    ("RequestPayer",),
]
"""Options that can only be tried with each other."""


def check_upload_options(setup: ExaminedSetup) -> Iterator[Finding]:
    """Open an upload with them; where that fails, find out which of them it is."""
    options = setup.settings("upload_options").upload_options
    given = options.model_dump(exclude_defaults=True)
    if not given:
        yield ok("none are set, so the bucket's own defaults hold")
        return
    if _refusal(setup, options) is None:
        yield ok(f"the store takes {', '.join(given)}")
        return
    # What else is wrong shows without them.
    setup.do_without_options()
    if error := _refusal(setup, None):
        raise CannotCheckError("the warehouse takes no upload without them either") from error
    for name, refusal in _refused(setup, given):
        found = explain(refusal, _attempt(setup))
        yield broken(
            f"the store refuses {name}: {found.what}",
            f"correct {name} in AIRFLOW__LIVEKIT_BACKUP__UPLOAD_OPTIONS; or {found.mend}",
        )


def _refused(setup: ExaminedSetup, given: Mapping[str, Any]) -> Iterator[tuple[str, Exception]]:
    """Give each option that does not work by itself, or all of them where they only fail together."""
    alone = False
    for group in _TOGETHER:
        if of_group := {name: given[name] for name in group if name in given}:
            refusal = _refusal(setup, UploadOptions.model_validate(of_group))
            if refusal is not None:
                alone = True
                yield " with ".join(of_group), refusal
    if not alone and (refusal := _refusal(setup, UploadOptions.model_validate(given))):
        yield " with ".join(given), refusal


def _refusal(setup: ExaminedSetup, options: UploadOptions | None) -> Exception | None:
    """Open an upload and drop it again; return the error of the first."""
    uri = join_uri(setup.place("warehouse"), FOLDER, f"{uuid.uuid4().hex}-options")
    store = setup.store_with("warehouse", options)
    try:
        made = store.create_upload(uri, content_type=CONTENT_TYPE, metadata={}, crc64nvme=False)
    except LivekitBackupError as error:
        return error
    # That it cannot be dropped is found by the check of the rights.
    with contextlib.suppress(LivekitBackupError):
        store.abort_upload(uri, made.upload_id)
    return None


def _attempt(setup: ExaminedSetup) -> Attempt:
    place, conn_id = setup.place("warehouse"), setup.conn_id("warehouse")
    return Attempt("open an upload", place, place, ("s3:PutObject",), conn_id, "AIRFLOW__LIVEKIT_BACKUP__WAREHOUSE")


def check_warehouse_abilities(setup: ExaminedSetup) -> Iterator[Finding]:
    """Find out what the store honours, as each warehouse is tried once a week."""
    place = setup.place("warehouse")
    try:
        found = check_store(setup.store("warehouse"), join_uri(place, PROBES), datetime.now(UTC))
    except LivekitBackupError as error:
        yield explain(error, _attempt(setup))
        return
    yield ok(found.describe())
    if not found.never_replaces:
        yield warning(
            "the store ignores If-None-Match: of two runs that land one file at the same moment, both may",
            "keep max_active_runs at 1 for what recovers the same egresses, or upgrade the store",
        )


def check_lifecycle(setup: ExaminedSetup) -> Iterator[Finding]:
    """See that no rule of the bucket drops uploads that a run goes on with, and that one drops forgotten ones."""
    place = setup.place("warehouse")
    store = setup.store("warehouse")
    bucket = split_uri(place)[0]
    try:
        with store_errors(place):
            rules = store.connection.client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", ())
    except LivekitBackupError as error:
        if _code(error) != "NoSuchLifecycleConfiguration":
            # Not having this right is no fault.
            raise CannotCheckError("the bucket's lifecycle rules cannot be read, which no recovery needs") from None
        rules = ()
    days = [
        (rule.get("ID", ""), int(rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]))
        for rule in rules
        if rule.get("Status") == "Enabled" and "DaysAfterInitiation" in rule.get("AbortIncompleteMultipartUpload", {})
    ]
    for name, after in days:
        if after < _LEAST_DAYS:
            yield warning(
                f"the lifecycle rule {name!r} of {bucket} drops uploads after {after} days; a run can go on with one "
                f"for {_LEAST_DAYS}",
                f"set DaysAfterInitiation of its AbortIncompleteMultipartUpload to {_LEAST_DAYS} or more",
            )
    if not days:
        yield note(
            f"no lifecycle rule of {bucket} drops uploads that nobody completes; they cost like objects",
            'add one: {"ID": "drop-forgotten-uploads", "Status": "Enabled", "Filter": {}, '
            f'"AbortIncompleteMultipartUpload": {{"DaysAfterInitiation": {_LEAST_DAYS}}}}}',
        )
    elif all(after >= _LEAST_DAYS for _, after in days):
        yield ok(f"forgotten uploads are dropped after {min(after for _, after in days)} days")


def _code(error: Exception) -> str:
    cause = boto_error(error)
    return error_code(cause) if isinstance(cause, ClientError) else ""


def check_primary(setup: ExaminedSetup) -> Iterator[Finding]:
    """List the customer's own bucket, and look at one of its objects."""
    conn_id = setup.conn_id("primary")
    if not conn_id:
        yield ok("not set, so nothing is copied from your own bucket")
        return
    store = setup.store("primary")
    bucket = store.connection.place.bucket
    if not bucket:
        yield warning(
            f"the connection {conn_id} names no bucket, so a forged event could have any object copied that its keys "
            "can read; and its rights cannot be tried",
            f'put it into the extra of {conn_id}: {{"service_config": {{"s3": {{"bucket_name": "BUCKET"}}}}}}',
        )
        return
    place, setting = f"s3://{bucket}", f"bucket_name in the extra of {conn_id}"
    try:
        first = next(store.list_keys(f"{place}/"), None)
    except LivekitBackupError as error:
        yield explain(error, Attempt("list objects", place, place, ("s3:ListBucket",), conn_id, setting))
        return
    try:
        if first:
            store.open(first).close()
    except (LivekitBackupError, FileNotFoundError) as error:
        yield explain(error, Attempt("read an object", place, place, ("s3:GetObject",), conn_id, setting))
        return
    yield ok(f"the bucket {bucket} can be {'listed and read' if first else 'listed; it is empty'}")
