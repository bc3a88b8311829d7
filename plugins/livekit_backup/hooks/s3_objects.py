"""Whole objects of S3 buckets, over one connection."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from livekit_backup.core.locations import Location
from livekit_backup.core.storage import ListedObject, ObjectHead, ReadableBody, split_uri
from livekit_backup.errors import ConfigurationError
from livekit_backup.hooks.s3_bodies import ObjectBody
from livekit_backup.hooks.s3_client import EnvironmentConnection, S3Connection
from livekit_backup.hooks.s3_errors import (
    ABSENT,
    error_code,
    error_status,
    is_transient,
    source_changed,
    source_errors,
    store_errors,
)
from livekit_backup.hooks.s3_places import S3Place
from livekit_backup.hooks.s3_reads import ObjectReader
from livekit_backup.models.upload_options import MAX_TAGS, UploadOptions

MAX_LEDGER_DOCUMENT_BYTES = 64 * 1024 * 1024
"""A plan of max_map_length files is below 1 MiB; one of 20,000 accounted segments about 14 MiB."""

log = logging.getLogger(__name__)

_NO_MD5_ETAGS = frozenset({"aws:kms", "aws:kms:dsse"})
"""AWS: "Objects encrypted by an SSE-C or SSE-KMS have ETags that are not an MD5 digest" (its page on Object)."""


class S3Objects:
    """The part of an object store that needs no multipart upload.

    :param connection: an Airflow connection's id, or a connection itself.
    :param options: how objects are made, and what every call carries.
    """

    def __init__(
        self, connection: str | S3Connection | EnvironmentConnection, options: UploadOptions | None = None
    ) -> None:
        self.connection = S3Connection(connection) if isinstance(connection, str) else connection
        self.options = options or UploadOptions()

    @property
    def aws_conn_id(self) -> str:
        """The Airflow connection; empty where there is none."""
        return self.connection.aws_conn_id

    @property
    def _client(self) -> Any:
        return self.connection.client

    def _at(self, uri: str) -> dict[str, Any]:
        """The arguments that every call has."""
        bucket, key = split_uri(uri)
        return {"Bucket": bucket, "Key": key, **self.options.for_call()}

    def place_name(self) -> str:
        """Return the endpoint that the connection leads to."""
        return S3Place(self._client.meta.endpoint_url).name

    def uri_of(self, location: Location) -> str | None:
        """Return the ``s3://bucket/key`` that a plain location names in this store, or None where it is elsewhere.

        Where the connection names its bucket, only that one is meant: a forged event must not make
        a task copy whatever object the keys can read.
        """
        return self.connection.place.uri_of(location)

    def shares_with(self, other: object) -> bool:
        """Whether this store's objects are the other one's too, so that it can copy them without a detour."""
        # The keys that copy are the other one's.
        return isinstance(other, S3Objects) and other.connection.place.can_copy_from(self.connection.place)

    def list_keys(self, prefix_uri: str) -> Iterator[str]:
        """Give the URIs of all objects that start with the prefix, in key order."""
        return (item.uri for item in self.list_objects(prefix_uri))

    def list_objects(self, prefix_uri: str, after: str = "", page: int = 1000) -> Iterator[ListedObject]:
        """Give all objects that start with the prefix, in key order; with ``after`` those that sort behind it."""
        at = self._at(prefix_uri)
        at["Prefix"] = at.pop("Key")
        if after:
            at["StartAfter"] = split_uri(after)[1]
        with store_errors(prefix_uri):
            for answer in self._client.get_paginator("list_objects_v2").paginate(**at, MaxKeys=page):
                for item in answer.get("Contents", ()):
                    uri = f"s3://{at['Bucket']}/{item['Key']}"
                    yield ListedObject(uri, item["Size"], item["ETag"].strip('"'))

    def open(self, uri: str, start: int = 0, stop: int | None = None, etag: str = "") -> ReadableBody:
        """Stream an object, or the bytes from ``start`` to ``stop`` of the version with this ETag.

        :raises FileNotFoundError: it is not there.
        :raises SourceChangedError: another version is there, also one that ends before ``start``.
        :raises ConfigurationError: the store ignores ranges.
        """
        asked = self._at(uri)
        if not start and stop is None and not etag:
            with store_errors(uri), source_errors(uri):
                return ObjectBody(uri, self._reader.open(asked))
        if is_range := start > 0 or stop is not None:
            asked["Range"] = byte_range(start, stop)
        if etag:
            asked["IfMatch"] = f'"{etag}"'
        with store_errors(uri), source_errors(uri):
            answer = self._client.get_object(**asked)
        body = ObjectBody(uri, answer["Body"])
        if etag and answer["ETag"].strip('"') != etag:
            # A store that ignores the condition.
            body.close()
            raise source_changed(uri)
        if is_range and not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-"):
            body.close()
            raise ConfigurationError(f"{uri}: the store does not give the range of bytes that was asked for")
        return body

    @cached_property
    def _reader(self) -> ObjectReader:
        return ObjectReader(self._client)

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
        made = {**self._at(uri), **self.options.for_document(), "ContentType": content_type}
        with store_errors(uri):
            self._client.put_object(Body=body, **made)

    def head(self, uri: str) -> ObjectHead | None:
        """Return an object's metadata, or None."""
        with store_errors(uri):
            try:
                try:
                    answer = self._client.head_object(**self._at(uri), ChecksumMode="ENABLED")
                except ClientError as error:
                    # The checksum of an object under SSE-KMS takes the right to decrypt it, which HEAD alone
                    # does not; and a store may not know the header.
                    if error_status(error) not in (400, 403, 501):
                        raise
                    answer = self._client.head_object(**self._at(uri))
            except ClientError as error:
                if error_code(error) in ABSENT:
                    return None
                raise
        return ObjectHead(
            size=answer["ContentLength"],
            etag=answer["ETag"].strip('"'),
            metadata=answer.get("Metadata", {}),
            crc64nvme=answer.get("ChecksumCRC64NVME", ""),
            etag_is_md5=has_md5_etag(answer),
        )

    def delete(self, uri: str) -> None:
        """Remove an object; removing what is not there is no error."""
        with store_errors(uri):
            self._client.delete_object(**self._at(uri))

    def add_tags(self, uri: str, tags: Mapping[str, str]) -> bool:
        """Add tags to an object, keeping those it has; False where the store has no tags or the right is missing."""
        with store_errors(uri):
            try:
                present = self._client.get_object_tagging(**self._at(uri)).get("TagSet", ())
                merged = {tag["Key"]: tag["Value"] for tag in present} | dict(tags)
                if len(merged) > MAX_TAGS:
                    log.warning("%s would have %d tags, and S3 allows %d", uri, len(merged), MAX_TAGS)
                    return False
                tag_set = [{"Key": key, "Value": value} for key, value in merged.items()]
                self._client.put_object_tagging(**self._at(uri), Tagging={"TagSet": tag_set})
            except ClientError as error:
                if error_status(error) not in (403, 405, 501) or is_transient(error):
                    raise
                return False
        return True


def has_md5_etag(answer: Mapping[str, Any]) -> bool:
    """Whether an answer of the store leaves its ETags to be made of MD5s."""
    return answer.get("ServerSideEncryption") not in _NO_MD5_ETAGS and not answer.get("SSECustomerAlgorithm")


def byte_range(start: int, stop: int | None) -> str:
    """Name the bytes from ``start`` to before ``stop`` as HTTP does, which cannot say none."""
    if stop is not None and stop <= start:
        raise ValueError(f"no bytes from {start} to {stop}")
    return f"bytes={start}-{'' if stop is None else stop - 1}"
