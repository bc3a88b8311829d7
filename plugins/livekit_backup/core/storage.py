"""What the core needs of an object store. The adapter over S3 is in ``hooks.object_store``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class ObjectHead:
    """An object's metadata."""

    size: int
    """Bytes."""
    etag: str
    """Without quotes."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UploadedPart:
    """One part of an open multipart upload, as the store lists it."""

    number: int
    size: int
    """Bytes."""
    etag: str
    """Without quotes."""


class ReadableBody(Protocol):
    """A stream of an object's bytes; gives ``b""`` at its end."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


@runtime_checkable
class ObjectStore(Protocol):
    """An object store addressed by ``s3://bucket/key`` URIs.

    Every method raises ``StorageUnavailableError`` when the store does not answer and
    ``AccessDeniedError`` when rights are missing; both name the URI.
    """

    def list_keys(self, prefix_uri: str) -> Iterator[str]:
        """Give the URIs of all objects that start with the prefix, in key order."""
        ...

    def open(self, uri: str) -> ReadableBody:
        """Stream an object. :raises FileNotFoundError: it is not there."""
        ...

    def get(self, uri: str) -> bytes | None:
        """Return a small object, or None."""
        ...

    def put(self, uri: str, body: bytes, *, content_type: str = "application/json") -> None:
        """Store a small object, replacing what is there."""
        ...

    def put_new(self, uri: str, body: bytes, *, content_type: str, metadata: Mapping[str, str]) -> bool:
        """Store a small object where none is; False when there is one."""
        ...

    def head(self, uri: str) -> ObjectHead | None:
        """Return an object's metadata, or None."""
        ...

    def delete(self, uri: str) -> None:
        """Remove an object; removing what is not there is no error."""
        ...

    def create_upload(self, uri: str, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """Open a multipart upload and return its id. Nothing is visible at the key yet."""
        ...

    def upload_part(self, uri: str, upload_id: str, number: int, body: memoryview, md5: bytes) -> None:
        """Store one part; the store must refuse it when its MD5 differs. :raises UploadGoneError: aborted."""
        ...

    def list_parts(self, uri: str, upload_id: str) -> list[UploadedPart] | None:
        """List the parts of an open upload in order, or None when the upload is gone."""
        ...

    def complete_upload(self, uri: str, upload_id: str, parts: list[UploadedPart]) -> bool:
        """Make the upload the object at the key, where there is none; False when there is one."""
        ...

    def abort_upload(self, uri: str, upload_id: str) -> None:
        """Drop an open upload and its parts; dropping one that is gone is no error."""
        ...

    def list_uploads(self, uri: str) -> list[str]:
        """List the ids of all open uploads at exactly this key."""
        ...


def join_uri(base: str, *parts: str) -> str:
    """Append key parts to a URI with single slashes between."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def split_uri(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key`` into bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
