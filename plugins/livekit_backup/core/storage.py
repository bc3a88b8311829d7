"""What the core needs of an object store. The adapter over S3 is in ``hooks.object_store``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    crc64nvme: str = ""
    """Of the whole object, base64; empty where the store keeps none."""
    etag_is_md5: bool = True
    """False where the store says that it encrypts with keys under which ETags are no MD5s (SSE-KMS, SSE-C)."""


@dataclass(frozen=True)
class ListedObject:
    """An object as a listing shows it."""

    uri: str
    size: int
    """Bytes."""
    etag: str
    """Without quotes."""


@dataclass(frozen=True)
class UploadedPart:
    """One part of an open multipart upload, as the store lists it."""

    number: int
    size: int
    """Bytes."""
    etag: str
    """Without quotes."""
    crc64nvme: str = ""
    """Base64; empty where the store keeps none."""


@dataclass(frozen=True)
class NewUpload:
    """A multipart upload that was just opened."""

    upload_id: str
    etags_are_md5: bool = True
    """False where the store says that it encrypts with keys under which ETags are no MD5s (SSE-KMS, SSE-C)."""


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

    def place_name(self) -> str:
        """Name the store among others whose buckets may be called the same; safe to show."""
        ...

    def list_keys(self, prefix_uri: str) -> Iterator[str]:
        """Give the URIs of all objects that start with the prefix, in key order."""
        ...

    def list_objects(self, prefix_uri: str, after: str = "", page: int = 1000) -> Iterator[ListedObject]:
        """Give all objects that start with the prefix, in key order.

        :param after: only those whose URI sorts behind it.
        :param page: how many are asked for at a time, at most 1,000.
        """
        ...

    def open(self, uri: str, start: int = 0, stop: int | None = None, etag: str = "") -> ReadableBody:
        """Stream an object, or the bytes from ``start`` to ``stop`` of the version with this ETag.

        :raises FileNotFoundError: it is not there.
        :raises SourceChangedError: another version is there.
        """
        ...

    def get(self, uri: str) -> bytes | None:
        """Return a small object, or None."""
        ...

    def put(self, uri: str, body: bytes, *, content_type: str = "application/json") -> None:
        """Store a small object, replacing what is there."""
        ...

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

        :param replace: store it in any case.
        :raises ChecksumMismatchError: the store received other bytes than were sent.
        """
        ...

    def head(self, uri: str) -> ObjectHead | None:
        """Return an object's metadata, or None."""
        ...

    def delete(self, uri: str) -> None:
        """Remove an object; removing what is not there is no error."""
        ...

    def create_upload(
        self, uri: str, *, content_type: str, metadata: Mapping[str, str], crc64nvme: bool = True
    ) -> NewUpload:
        """Open a multipart upload. Nothing is visible at the key yet.

        :param crc64nvme: declare that parts and whole come with this checksum.
        """
        ...

    def upload_part(
        self, uri: str, upload_id: str, number: int, body: memoryview, *, crc64nvme: str = "", md5: bytes = b""
    ) -> str:
        """Store one part with the checksums given, and return its ETag.

        :raises ChecksumMismatchError: the store received other bytes than were sent.
        :raises UploadGoneError: the upload was aborted or completed.
        """
        ...

    def copy_part(self, uri: str, upload_id: str, number: int, source_uri: str, span: range, etag: str) -> str:
        """Let the store copy these bytes of another of its objects, of this ETag, into a part; return the part's ETag.

        :raises FileNotFoundError: the source is not there.
        :raises SourceChangedError: the source has another ETag.
        :raises UploadGoneError: the upload was aborted or completed.
        """
        ...

    def list_parts(self, uri: str, upload_id: str) -> list[UploadedPart] | None:
        """List the parts of an open upload in order, or None when the upload is gone."""
        ...

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
        ...

    def add_tags(self, uri: str, tags: Mapping[str, str]) -> bool:
        """Add tags to an object, keeping those it has; False where the store has no tags or the right is missing."""
        ...

    def abort_upload(self, uri: str, upload_id: str) -> None:
        """Drop an open upload and its parts; dropping one that is gone is no error."""
        ...

    def list_uploads(self, uri: str) -> list[str]:
        """List the ids of all open uploads at exactly this key."""
        ...


@runtime_checkable
class ConditionalStore(Protocol):
    """A store that can leave out the look at a key before it makes an object there."""

    def without_looking(self) -> ObjectStore:
        """Return the same store, relying on the store's own condition alone."""
        ...


def join_uri(base: str, *parts: str) -> str:
    """Append key parts to a URI with single slashes between."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def split_uri(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key`` into bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
