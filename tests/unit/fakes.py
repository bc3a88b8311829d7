"""In-memory stand-ins for a store and a source, and small builders of events."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from awscrt import checksums

from livekit_backup.core.etags import multipart_etag
from livekit_backup.core.inbox import parse_event
from livekit_backup.core.storage import ListedObject, NewUpload, ObjectHead, UploadedPart
from livekit_backup.errors import ChecksumMismatchError, SourceChangedError, TransferInterruptedError, UploadGoneError
from livekit_backup.models.egress import WebhookEvent
from livekit_backup.models.store_abilities import StoreAbilities

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
SIGNED = "?X-Amz-Date=20261120T204342Z&X-Amz-Expires=604800&X-Amz-Signature=00ff"
"""Dies on 2026-11-27 20:43:42 UTC."""
BACKUP = "https://livekit-egress.s3.amazonaws.com/"
OWN = "https://acme.s3.amazonaws.com/"


def signed(path: str, date: str = "20261120T204342Z") -> str:
    """A signed URL in the backup bucket."""
    return BACKUP + path + SIGNED.replace("20261120T204342Z", date)


def egress_ended(egress_id: str = "EG_1", **info: Any) -> dict[str, Any]:
    """A webhook body."""
    return {
        "event": "egress_ended",
        "id": "EV_1",
        "egressInfo": {"egressId": egress_id, "startedAt": "1732135319356232371", **info},
    }


def backup_event(egress_id: str = "EG_1", **info: Any) -> WebhookEvent:
    """A parsed event whose recording lies in the backup."""
    return parse_event(egress_ended(egress_id, **{"backupStorageUsed": True, **info}))


class Body:
    """A stream that gives no more at a time than it is told."""

    def __init__(self, data: bytes, chunks: Sequence[int] = ()) -> None:
        self._stream = io.BytesIO(data)
        self._chunks = itertools.cycle(chunks) if chunks else itertools.repeat(1 << 30)
        self.closed = False

    def read(self, size: int = -1, /) -> bytes:
        most = next(self._chunks)
        return self._stream.read(most if size < 0 else min(size, most))

    def close(self) -> None:
        self.closed = True


class MemoryStore:
    """An object store with S3's rules. With ``md5_etags=False`` its ETags prove nothing, as under SSE-KMS."""

    def __init__(self, *, md5_etags: bool = True, keeps_crc64nvme: bool = False, says_kms: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self.heads: dict[str, ObjectHead] = {}
        self.uploads: dict[str, tuple[str, dict[int, bytes], Mapping[str, str]]] = {}
        self.content_types: dict[str, str] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.put_parts: list[int] = []
        self._md5_etags = md5_etags
        self._keeps_crc64nvme = keeps_crc64nvme
        self._says_kms = says_kms
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def _etag(self, honest: str) -> str:
        return honest if self._md5_etags else f"kms{hashlib.sha256(honest.encode()).hexdigest()[:29]}"

    def _crc64nvme(self, body: bytes) -> str:
        return crc64nvme_of(body) if self._keeps_crc64nvme else ""

    def place_name(self) -> str:
        return "memory://"

    def list_keys(self, prefix_uri: str) -> Iterator[str]:
        yield from sorted(uri for uri in self.objects if uri.startswith(prefix_uri))

    def list_objects(self, prefix_uri: str, after: str = "", page: int = 1000) -> Iterator[ListedObject]:
        assert 0 < page <= 1000
        for uri in self.list_keys(prefix_uri):
            if uri > after:
                yield ListedObject(uri, self.heads[uri].size, self.heads[uri].etag)

    def open(self, uri: str, start: int = 0, stop: int | None = None, etag: str = "") -> Body:
        if uri not in self.objects:
            raise FileNotFoundError(uri)
        if etag and self.heads[uri].etag != etag:
            raise SourceChangedError(uri)
        return Body(self.objects[uri][start:stop])

    def get(self, uri: str) -> bytes | None:
        return self.objects.get(uri)

    def put(self, uri: str, body: bytes, *, content_type: str = "application/json") -> None:
        self._store(uri, body, content_type, ObjectHead(len(body), self._etag(hashlib.md5(body).hexdigest())))

    def _store(self, uri: str, body: bytes, content_type: str, head: ObjectHead) -> None:
        with self._lock:
            self.objects[uri], self.heads[uri], self.content_types[uri] = bytes(body), head, content_type

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
        if uri in self.objects and not replace:
            return False
        if (md5 and hashlib.md5(body).digest() != md5) or (crc64nvme and crc64nvme_of(body) != crc64nvme):
            raise ChecksumMismatchError("BadDigest")
        etag = self._etag(hashlib.md5(body).hexdigest())
        head = ObjectHead(len(body), etag, metadata, self._crc64nvme(body), not self._says_kms)
        # At once, as a store does: an object without its metadata is never there.
        self._store(uri, body, content_type, head)
        return True

    def head(self, uri: str) -> ObjectHead | None:
        return self.heads.get(uri)

    def delete(self, uri: str) -> None:
        self.objects.pop(uri, None)
        self.heads.pop(uri, None)

    def create_upload(
        self, uri: str, *, content_type: str, metadata: Mapping[str, str], crc64nvme: bool = True
    ) -> NewUpload:
        upload_id = f"upload-{next(self._ids)}"
        self.uploads[upload_id] = (uri, {}, metadata)
        self.content_types[uri] = content_type
        return NewUpload(upload_id, etags_are_md5=not self._says_kms)

    def upload_part(
        self, uri: str, upload_id: str, number: int, body: memoryview, *, crc64nvme: str = "", md5: bytes = b""
    ) -> str:
        if upload_id not in self.uploads:
            raise UploadGoneError(f"{uri}: the upload was aborted")
        if (md5 and hashlib.md5(body).digest() != md5) or (crc64nvme and crc64nvme_of(bytes(body)) != crc64nvme):
            raise ChecksumMismatchError("BadDigest")
        with self._lock:
            self.uploads[upload_id][1][number] = bytes(body)
            self.put_parts.append(number)
        return self._etag(hashlib.md5(body).hexdigest())

    def copy_part(self, uri: str, upload_id: str, number: int, source_uri: str, span: range, etag: str) -> str:
        body = self.open(source_uri, span.start, span.stop, etag).read()
        return self.upload_part(uri, upload_id, number, memoryview(body))

    def list_parts(self, uri: str, upload_id: str) -> list[UploadedPart] | None:
        if upload_id not in self.uploads:
            return None
        return [
            UploadedPart(number, len(part), self._etag(hashlib.md5(part).hexdigest()), self._crc64nvme(part))
            for number, part in sorted(self.uploads[upload_id][1].items())
        ]

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
        if upload_id not in self.uploads:
            raise UploadGoneError(f"{uri}: the upload was aborted")
        if uri in self.objects and not replace:
            return False
        stored = [part for _, part in sorted(self.uploads[upload_id][1].items())]
        whole = b"".join(stored)
        if self._keeps_crc64nvme and (len(whole) != size or (crc64nvme and crc64nvme != crc64nvme_of(whole))):
            raise ChecksumMismatchError(f"{uri}: complete_upload answered BadDigest")
        _, _, metadata = self.uploads.pop(upload_id)
        self.objects[uri] = whole
        etag = self._etag(multipart_etag(hashlib.md5(part).digest() for part in stored))
        self.heads[uri] = ObjectHead(len(whole), etag, metadata, self._crc64nvme(whole), not self._says_kms)
        return True

    def add_tags(self, uri: str, tags: Mapping[str, str]) -> bool:
        self.tags.setdefault(uri, {}).update(tags)
        return True

    def abort_upload(self, uri: str, upload_id: str) -> None:
        self.uploads.pop(upload_id, None)

    def list_uploads(self, uri: str) -> list[str]:
        return [upload_id for upload_id, (at, _, _) in self.uploads.items() if at == uri]


def crc64nvme_of(body: bytes) -> str:
    """Base64, as S3 takes it."""
    return base64.b64encode(checksums.crc64nvme(body).to_bytes(8, "big")).decode()


def abilities(**found: bool) -> StoreAbilities:
    """Those of a store that honours everything, but for what is said."""
    names = [name for name in StoreAbilities.model_fields if name not in ("checked_at", "store", "in_doubt")]
    return StoreAbilities(checked_at=datetime.now(UTC), **{**dict.fromkeys(names, True), **found})


class MemorySource:
    """A recording that breaks off at given offsets, once each, however often it is opened."""

    name = "https://livekit.example/recording"

    def __init__(
        self,
        data: bytes,
        *,
        etag: str = "",
        etag_is_digest: bool = True,
        faults: Sequence[int] = (),
        chunk: int = 1 << 20,
        version: str | None = None,
    ) -> None:
        self.version = version
        self.data, self.etag, self.etag_is_digest, self.chunk = data, etag, etag_is_digest, chunk
        self.faults = sorted(faults)
        self.opened: list[tuple[int, str]] = []
        self.bodies: list[MemoryBody] = []
        self.refusals: list[Exception] = []

    def open(self, start: int = 0, stop: int | None = None, etag: str = "") -> MemoryBody:
        self.opened.append((start, etag))
        if self.refusals:
            raise self.refusals.pop(0)
        body = MemoryBody(self, start, stop)
        self.bodies.append(body)
        return body


class MemoryBody:
    """One open answer of a :class:`MemorySource`."""

    def __init__(self, source: MemorySource, start: int, stop: int | None = None) -> None:
        self._source, self._at, self._stop = source, start, len(source.data) if stop is None else stop
        self.size, self.etag, self.etag_is_digest = len(source.data), source.etag, source.etag_is_digest
        self.version = (source.etag or "date:then") if source.version is None else source.version
        self.closed = False

    def readinto(self, view: memoryview) -> int:
        source = self._source
        end = min(self._at + len(view), self._at + source.chunk, self._stop)
        if source.faults and source.faults[0] < end:
            end = max(self._at, source.faults[0])
            if end == self._at:
                source.faults.pop(0)
                raise TransferInterruptedError("broke off")
        view[: end - self._at] = source.data[self._at : end]
        count, self._at = end - self._at, end
        return count

    def close(self) -> None:
        self.closed = True
