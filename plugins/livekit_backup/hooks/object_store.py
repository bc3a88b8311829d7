"""The object store of the core, over boto: endpoint, region, role and keys are the connection's."""

from __future__ import annotations

import base64
import contextlib
import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from livekit_backup.core.storage import NewUpload, UploadedPart, split_uri
from livekit_backup.errors import UploadGoneError
from livekit_backup.hooks.s3_client import EnvironmentConnection, S3Connection
from livekit_backup.hooks.s3_errors import (
    ABSENT,
    CONFLICT,
    call_without_unknown,
    error_code,
    source_errors,
    store_errors,
)
from livekit_backup.hooks.s3_objects import S3Objects, byte_range, has_md5_etag
from livekit_backup.hooks.s3_parts import PartSender
from livekit_backup.models.upload_options import UploadOptions

log = logging.getLogger(__name__)

_CONDITION = frozenset({"IfNoneMatch"})
_TAGS = frozenset({"Tagging"})
_WHOLE_CHECKS = frozenset({"MpuObjectSize", "ChecksumCRC64NVME", "ChecksumType"})


class S3ObjectStore(S3Objects):
    """S3 buckets through one connection. Safe to share between threads.

    :param connection: an Airflow connection's id, or a connection itself.
    :param options: how objects are made, and what every call carries.
    """

    def __init__(
        self, connection: str | S3Connection | EnvironmentConnection, options: UploadOptions | None = None
    ) -> None:
        super().__init__(connection, options)
        self._looks_first = True

    def without_looking(self) -> S3ObjectStore:
        """Return the same store, relying on the store's own condition where none is to be replaced; for its check."""
        store = copy.copy(self)
        store._looks_first = False  # noqa: SLF001 - one of its own class
        return store

    def put_new(
        self,
        uri: str,
        body: bytes,
        *,
        content_type: str,
        metadata: Mapping[str, str],
        crc64nvme: str = "",
        md5: bytes = b"",
        replace: bool = False,
    ) -> bool:
        """Store a small object with the checksums given, where none is; False when there is one.

        :param metadata: of a recording; a document of the ledger has none, and none of a recording's options.
        :param replace: store it in any case.
        :raises ChecksumMismatchError: the store received other bytes than were sent.
        """
        options = self.options.for_recording(metadata) if metadata else self.options.for_document()
        made = {**options, "Body": body, "ContentType": content_type}
        made |= _checks(crc64nvme, md5)
        return self._make_object(uri, self._client.put_object, (_CONDITION,), made, replace=replace)

    def create_upload(
        self, uri: str, *, content_type: str, metadata: Mapping[str, str], crc64nvme: bool = True
    ) -> NewUpload:
        """Open a multipart upload. Nothing is visible at the key yet.

        :param crc64nvme: declare that parts and whole come with this checksum.
        """
        declared = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"} if crc64nvme else {}
        made = {**self.options.for_recording(metadata), **declared, "ContentType": content_type}
        with store_errors(uri):
            answer = self._make(uri, self._client.create_multipart_upload, (), made)
        return NewUpload(str(answer["UploadId"]), etags_are_md5=has_md5_etag(answer))

    def upload_part(
        self, uri: str, upload_id: str, number: int, body: memoryview, *, crc64nvme: str = "", md5: bytes = b""
    ) -> str:
        """Store one part with the checksums given, and return its ETag.

        :raises ChecksumMismatchError: the store received other bytes than were sent.
        :raises UploadGoneError: the upload was aborted or completed.
        """
        at = {**self._at(uri), "UploadId": upload_id}
        return self._parts.send(uri, number, body, at, _checks(crc64nvme, md5))

    @cached_property
    def _parts(self) -> PartSender:
        return PartSender(self._client)

    def copy_part(self, uri: str, upload_id: str, number: int, source_uri: str, span: range, etag: str) -> str:
        """Let the store copy these bytes of another of its objects, of this ETag, into a part; return the part's ETag.

        :raises FileNotFoundError: the source is not there.
        :raises SourceChangedError: the source has another ETag.
        :raises UploadGoneError: the upload was aborted or completed.
        """
        bucket, key = split_uri(source_uri)
        with store_errors(f"{uri} from {source_uri}"), source_errors(source_uri):
            answer = self._client.upload_part_copy(
                **self._at(uri),
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": bucket, "Key": key},
                CopySourceRange=byte_range(span.start, span.stop),
                CopySourceIfMatch=f'"{etag}"',
            )
        return str(answer["CopyPartResult"]["ETag"]).strip('"')

    def list_parts(self, uri: str, upload_id: str) -> list[UploadedPart] | None:
        """List the parts of an open upload in order, or None when the upload is gone."""
        try:
            with store_errors(uri):
                pages = self._client.get_paginator("list_parts").paginate(**self._at(uri), UploadId=upload_id)
                parts = [
                    UploadedPart(
                        part["PartNumber"], part["Size"], part["ETag"].strip('"'), part.get("ChecksumCRC64NVME", "")
                    )
                    for page in pages
                    for part in page.get("Parts", ())
                ]
        except UploadGoneError:
            return None
        # Swift goes on listing the parts of an upload that was completed: they are the object.
        return None if self.head(uri) and upload_id not in self.list_uploads(uri) else parts

    def complete_upload(
        self,
        uri: str,
        upload_id: str,
        parts: Sequence[UploadedPart],
        *,
        size: int,
        crc64nvme: str = "",
        replace: bool = False,
    ) -> bool:
        """Make the upload the object at the key, where there is none; False when there is one.

        :param size: bytes of the whole, for the store to check.
        :param crc64nvme: of the whole, base64, for the store to check; empty to leave it out.
        :param replace: make it the object in any case.
        :raises ChecksumMismatchError: the store has other bytes, or another number of them.
        :raises UploadGoneError: the upload was aborted or completed.
        """
        listed = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        whole = {"ChecksumCRC64NVME": crc64nvme, "ChecksumType": "FULL_OBJECT"} if crc64nvme else {}
        return self._make_object(
            uri,
            self._client.complete_multipart_upload,
            (_WHOLE_CHECKS, _CONDITION, _WHOLE_CHECKS | _CONDITION),
            {"UploadId": upload_id, "MultipartUpload": {"Parts": listed}, "MpuObjectSize": size, **whole},
            replace=replace,
        )

    def _make_object(
        self,
        uri: str,
        store: Callable[..., Any],
        optional: Sequence[frozenset[str]],
        arguments: dict[str, Any],
        *,
        replace: bool,
    ) -> bool:
        """Make an object, unless one may be replaced on condition that there is none; False when there is one."""
        # Some stores ignore the condition.
        if self._looks_first and not replace and self.head(uri):
            return False
        condition = {} if replace else {"IfNoneMatch": "*"}
        with store_errors(uri):
            try:
                self._make(uri, store, optional, {**condition, **arguments})
            except ClientError as error:
                if error_code(error) in CONFLICT:
                    return False
                raise
        return True

    def _make(
        self, uri: str, store: Callable[..., Any], optional: Sequence[frozenset[str]], arguments: dict[str, Any]
    ) -> Any:
        """Make something of ours, without what the store says that it does not know."""
        if "Tagging" in arguments:
            optional = [left_out | more for left_out in (frozenset[str](), *optional) for more in (_TAGS, frozenset())]
        answer, left_out = call_without_unknown(store, optional, {**self._at(uri), **arguments})
        if left_out:
            log.warning("%s: the store does not know %s, so it was left out", uri, ", ".join(sorted(left_out)))
        return answer

    def abort_upload(self, uri: str, upload_id: str) -> None:
        """Drop an open upload and its parts; dropping one that is gone is no error."""
        with contextlib.suppress(UploadGoneError), store_errors(uri):
            try:
                self._client.abort_multipart_upload(**self._at(uri), UploadId=upload_id)
            except ClientError as error:
                # Swift says so, and not NoSuchUpload, of an upload that was completed.
                if error_code(error) not in ABSENT:
                    raise

    def list_uploads(self, uri: str) -> list[str]:
        """List the ids of all open uploads at exactly this key."""
        at = self._at(uri)
        key = at["Prefix"] = at.pop("Key")
        with store_errors(uri):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(**at)
            return [upload["UploadId"] for page in pages for upload in page.get("Uploads", ()) if upload["Key"] == key]


def _checks(crc64nvme: str, md5: bytes) -> dict[str, str]:
    checks: dict[str, str] = {}
    if crc64nvme:
        # Ceph checks the sum only where the algorithm is named beside it.
        checks |= {"ChecksumAlgorithm": "CRC64NVME", "ChecksumCRC64NVME": crc64nvme}
    if md5:
        checks["ContentMD5"] = base64.b64encode(md5).decode()
    return checks


async def holds_any_object(aws_conn_id: str, prefix_uris: Iterable[str]) -> bool:
    """Whether an object lies under any of the prefixes. For triggers: nothing in it blocks the event loop."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=aws_conn_id)
    async with await hook.get_async_conn() as client:  # type: ignore[no-untyped-call]
        for uri in prefix_uris:
            bucket, prefix = split_uri(uri)
            with store_errors(uri):
                answer = await client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
            if answer.get("Contents"):
                return True
    return False
