"""The object store of the core, over Airflow's S3Hook: endpoint, region, role and keys are the connection's."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from livekit_backup.core.storage import ObjectHead, ReadableBody, UploadedPart, split_uri
from livekit_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    LivekitBackupError,
    StorageUnavailableError,
    UploadGoneError,
)

MAX_LEDGER_DOCUMENT_BYTES = 64 * 1024 * 1024
"""A plan of max_map_length files is below 1 MiB; one of 20,000 accounted segments about 14 MiB."""

_DENIED = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
_ABSENT = frozenset({"404", "NoSuchKey"})
_CONFLICT = frozenset({"412", "PreconditionFailed"})
_TRANSIENT = frozenset(
    {
        "ConditionalRequestConflict",
        "SlowDown",
        "RequestTimeout",
        "BadDigest",
        "InternalError",
        "ServiceUnavailable",
        "RequestTimeTooSkewed",
    }
)
_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"mode": "standard", "max_attempts": 5},
    "max_pool_connections": 32,
    # Every part carries its MD5 already; a further CRC32 would cost CPU and prove nothing more.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


class S3ObjectStore:
    """S3 buckets through one Airflow connection. Safe to share between threads.

    :param aws_conn_id: the Airflow connection.
    """

    def __init__(self, aws_conn_id: str) -> None:
        self.aws_conn_id = aws_conn_id

    @cached_property
    def _client(self) -> Any:
        hook = S3Hook(aws_conn_id=self.aws_conn_id)
        own: dict[str, Any] = dict(getattr(hook.config, "_user_provided_options", {}))
        # Over TLS the body is protected already; its SHA-256 in the signature would cost a fifth of the CPU.
        s3 = {"payload_signing_enabled": False, **(own.pop("s3", None) or {})}
        return hook.get_client_type(region_name=hook.region_name, config=Config(**{**_DEFAULTS, **own, "s3": s3}))

    def list_keys(self, prefix_uri: str) -> Iterator[str]:
        """Give the URIs of all objects that start with the prefix, in key order."""
        bucket, prefix = split_uri(prefix_uri)
        with _errors(prefix_uri):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield f"s3://{bucket}/{item['Key']}"

    def open(self, uri: str) -> ReadableBody:
        """Stream an object. :raises FileNotFoundError: it is not there."""
        bucket, key = split_uri(uri)
        with _errors(uri):
            try:
                return _Body(uri, self._client.get_object(Bucket=bucket, Key=key)["Body"])
            except ClientError as error:
                if _code(error) in _ABSENT:
                    raise FileNotFoundError(uri) from None
                raise

    def get(self, uri: str) -> bytes | None:
        """Return a small object, or None."""
        try:
            body = self.open(uri)
        except FileNotFoundError:
            return None
        data = bytearray()
        try:
            # Read to the end: only there a body that was cut short shows.
            while len(data) <= MAX_LEDGER_DOCUMENT_BYTES and (chunk := body.read(1024 * 1024)):
                data += chunk
        finally:
            body.close()
        if len(data) > MAX_LEDGER_DOCUMENT_BYTES:
            raise ConfigurationError(f"{uri} is over {MAX_LEDGER_DOCUMENT_BYTES} bytes: not a document of this ledger")
        return bytes(data)

    def put(self, uri: str, body: bytes, *, content_type: str = "application/json") -> None:
        """Store a small object, replacing what is there."""
        bucket, key = split_uri(uri)
        with _errors(uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)

    def put_new(self, uri: str, body: bytes, *, content_type: str, metadata: Mapping[str, str]) -> bool:
        """Store a small object where none is; False when there is one."""
        return self._where_none_is(
            uri,
            self._client.put_object,
            Body=body,
            ContentType=content_type,
            Metadata=dict(metadata),
        )

    def head(self, uri: str) -> ObjectHead | None:
        """Return an object's metadata, or None."""
        bucket, key = split_uri(uri)
        with _errors(uri):
            try:
                answer = self._client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
        return ObjectHead(answer["ContentLength"], answer["ETag"].strip('"'), answer.get("Metadata", {}))

    def delete(self, uri: str) -> None:
        """Remove an object; removing what is not there is no error."""
        bucket, key = split_uri(uri)
        with _errors(uri):
            self._client.delete_object(Bucket=bucket, Key=key)

    def create_upload(self, uri: str, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """Open a multipart upload and return its id. Nothing is visible at the key yet."""
        bucket, key = split_uri(uri)
        with _errors(uri):
            answer = self._client.create_multipart_upload(
                Bucket=bucket, Key=key, ContentType=content_type, Metadata=dict(metadata)
            )
        return str(answer["UploadId"])

    def upload_part(self, uri: str, upload_id: str, number: int, body: memoryview, md5: bytes) -> None:
        """Store one part; the store refuses it when its MD5 differs. :raises UploadGoneError: aborted."""
        bucket, key = split_uri(uri)
        with _errors(uri):
            self._client.upload_part(
                Bucket=bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=io.BytesIO(body),
                ContentLength=len(body),
                ContentMD5=base64.b64encode(md5).decode(),
            )

    def list_parts(self, uri: str, upload_id: str) -> list[UploadedPart] | None:
        """List the parts of an open upload in order, or None when the upload is gone."""
        bucket, key = split_uri(uri)
        try:
            with _errors(uri):
                pages = self._client.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=upload_id)
                return [
                    UploadedPart(part["PartNumber"], part["Size"], part["ETag"].strip('"'))
                    for page in pages
                    for part in page.get("Parts", ())
                ]
        except UploadGoneError:
            return None

    def complete_upload(self, uri: str, upload_id: str, parts: list[UploadedPart]) -> bool:
        """Make the upload the object at the key, where there is none; False when there is one."""
        listed = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        complete = self._client.complete_multipart_upload
        return self._where_none_is(uri, complete, UploadId=upload_id, MultipartUpload={"Parts": listed})

    def _where_none_is(self, uri: str, store: Callable[..., Any], **arguments: Any) -> bool:
        """Make an object on condition that there is none; False when there is one."""
        if self.head(uri):
            # Some stores ignore the condition.
            return False
        bucket, key = split_uri(uri)
        with _errors(uri):
            try:
                store(Bucket=bucket, Key=key, IfNoneMatch="*", **arguments)
            except ClientError as error:
                if _code(error) in _CONFLICT:
                    return False
                raise
        return True

    def abort_upload(self, uri: str, upload_id: str) -> None:
        """Drop an open upload and its parts; dropping one that is gone is no error."""
        bucket, key = split_uri(uri)
        with contextlib.suppress(UploadGoneError), _errors(uri):
            try:
                self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
            except ClientError as error:
                # Swift says so, and not NoSuchUpload, of an upload that was completed.
                if _code(error) not in _ABSENT:
                    raise

    def list_uploads(self, uri: str) -> list[str]:
        """List the ids of all open uploads at exactly this key."""
        bucket, key = split_uri(uri)
        with _errors(uri):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
            return [upload["UploadId"] for page in pages for upload in page.get("Uploads", ()) if upload["Key"] == key]


async def holds_any_object(aws_conn_id: str, prefix_uris: Iterable[str]) -> bool:
    """Whether an object lies under any of the prefixes. For triggers: nothing in it blocks the event loop."""
    hook = S3Hook(aws_conn_id=aws_conn_id)
    async with await hook.get_async_conn() as client:  # type: ignore[no-untyped-call]
        for uri in prefix_uris:
            bucket, prefix = split_uri(uri)
            with _errors(uri):
                answer = await client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
            if answer.get("Contents"):
                return True
    return False


class _Body:
    """A stream whose errors are ours."""

    def __init__(self, uri: str, body: Any) -> None:
        self._uri = uri
        self._body = body

    def read(self, size: int = -1, /) -> bytes:
        with _errors(self._uri):
            try:
                return bytes(self._body.read(None if size < 0 else size))
            except OSError as error:
                raise StorageUnavailableError(f"{self._uri} broke off: {type(error).__name__}") from None

    def close(self) -> None:
        self._body.close()


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Turn boto's errors into ours, naming the URI."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError):
        raise AccessDeniedError(f"{uri}: the connection has no credentials, and none were found around it") from None
    except ClientError as error:
        raise _translate(uri, error) from None
    except BotoCoreError as error:
        raise StorageUnavailableError(f"{uri}: the store did not answer: {error}") from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _translate(uri: str, error: ClientError) -> LivekitBackupError:
    code = _code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = f"{uri}: {error.operation_name} answered {code}"
    if code == "NoSuchUpload":
        return UploadGoneError(f"{text}: the upload was aborted")
    if code in _TRANSIENT or (status >= 500 and status != 501) or status == 429:
        return StorageUnavailableError(text)
    if code in _DENIED or status in (401, 403):
        return AccessDeniedError(f"{text}: check the connection's keys and the bucket's policy")
    if code == "NoSuchBucket":
        return ConfigurationError(f"{text}: create the bucket or correct the setting")
    return ConfigurationError(f"{text}: {error.response.get('Error', {}).get('Message', '')}")
