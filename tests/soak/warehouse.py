"""An object store that fails as stores do, and that watches what becomes visible in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from livekit_backup.core.storage import ListedObject, NewUpload, UploadedPart
from livekit_backup.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    ConfigurationError,
    LivekitBackupError,
    StorageUnavailableError,
    UploadGoneError,
)
from unit.fakes import Body, MemoryStore

from .chaos import Chaos
from .stage import Stage

BEFORE = {
    "warehouse: 500": StorageUnavailableError("answered InternalError"),
    "warehouse: 503 SlowDown": StorageUnavailableError("answered SlowDown"),
    "warehouse: access denied": AccessDeniedError("answered AccessDenied: check the connection's keys"),
    "warehouse: access denied for a while": AccessDeniedError("answered AccessDenied: check the connection's keys"),
    "warehouse: killed and started again": StorageUnavailableError("the store did not answer"),
}
FULL = {
    "warehouse: quota exceeded": ConfigurationError("answered QuotaExceeded"),
    "warehouse: disk full": StorageUnavailableError("answered 507"),
}
LAST = (
    "warehouse: access denied for a while",
    "warehouse: killed and started again",
    "warehouse: quota exceeded",
    "warehouse: disk full",
)
"""They last for some calls, whoever makes them."""
AFTER = ("warehouse: the answer to a change is lost",)
COMPLETE = (
    "warehouse: complete answers 200 with an error",
    "warehouse: complete answers nothing after it succeeded",
    "warehouse: complete is sent twice by the client",
    "warehouse: another's object appears at the key (412)",
)
PUT = (
    "warehouse: a PUT is sent twice by the client",
    "warehouse: another's object appears at the key (412)",
)
PARTS = (
    "warehouse: a part is lost after its 200",
    "warehouse: a part arrives altered",
)
LISTING = ("warehouse: a listing of parts lags",)
LIFECYCLE = ("warehouse: a lifecycle rule aborts the upload",)
LATE = ("warehouse: an object shows late",)
READ = ("warehouse: a body breaks off",)
KINDS = tuple(dict.fromkeys((*BEFORE, *FULL, *AFTER, *COMPLETE, *PUT, *PARTS, *LISTING, *LIFECYCLE, *LATE, *READ)))
OTHERS = b"somebody else's"

Watch = Callable[[str, bytes, bool], None]


class Warehouse(MemoryStore):
    """A store with the abilities that the seed gives it."""

    def __init__(self, stage: Stage, chaos: Chaos, rng: Random, watch: Watch) -> None:
        self.honours_condition = rng.random() < 0.85
        self.checks_crc64nvme = rng.random() < 0.7
        self.checks_md5 = rng.random() < 0.85
        self.has_tags = rng.random() < 0.7
        kms = rng.random() < 0.15
        super().__init__(md5_etags=not kms, keeps_crc64nvme=self.checks_crc64nvme and rng.random() < 0.7, says_kms=kms)
        self.has_md5_etags = not kms
        self._stage, self._chaos, self._rng, self._watch = stage, chaos, rng, watch
        self._lasting: tuple[str, int] = ("", 0)
        self._looks_first = True
        self.altered: set[str] = set()
        """Uploads, and keys of whole objects, of which this store has stored other bytes than it was sent, and said nothing."""
        self.unsaid: list[str] = []
        """Words on files that took the place of a landing whose object stood there."""
        self.calls = 0

    def without_looking(self) -> Warehouse:
        other = object.__new__(Warehouse)
        other.__dict__ = dict(self.__dict__)
        other._looks_first = False
        return other

    def describe(self) -> str:
        names = ("honours_condition", "checks_crc64nvme", "checks_md5", "has_tags", "has_md5_etags", "_keeps_crc64nvme")
        return ", ".join(f"{name.strip('_')}={getattr(self, name)}" for name in names)

    # -- what every call comes past

    def _call(self, operation: str, uri: str, effect: Callable[[str], Any], own: Sequence[str] = ()) -> Any:
        changes = operation in ("put", "put_new", "create_upload", "upload_part", "complete_upload", "delete", "abort_upload", "copy_part")  # fmt: skip
        self.calls += 1
        self._stage.step(f"before {operation} {uri}")
        kind = self._lasts(changes=changes) or self._chaos.strike(
            [*BEFORE, *(FULL if changes and operation not in ("delete", "abort_upload") else ()), *(AFTER if changes else ()), *own],
            uri,
        )  # fmt: skip
        if kind in LAST and not self._lasting[1]:
            self._lasting = (kind, self._rng.randrange(1, 14))
        if error := {**BEFORE, **FULL}.get(kind):
            raise _said(error, uri, operation)
        result = effect(kind)
        if kind in AFTER:
            raise StorageUnavailableError(f"{uri}: the answer to {operation} is lost")
        self._stage.step(f"after {operation} {uri}")
        return result

    def _lasts(self, *, changes: bool) -> str:
        kind, left = self._lasting
        if not left or self._chaos.is_calm or (kind in FULL and not changes):
            return ""
        self._lasting = (kind, left - 1)
        return kind

    # -- reading

    def list_objects(self, prefix_uri: str, after: str = "", page: int = 1000):
        for uri in self.list_keys(prefix_uri):
            if uri > after:
                yield ListedObject(uri, self.heads[uri].size, self.heads[uri].etag)

    def list_keys(self, prefix_uri: str):
        self._call("list", prefix_uri, lambda _: None)
        yield from super().list_keys(prefix_uri)

    def open(self, uri: str, start: int = 0, stop: int | None = None, etag: str = "") -> Body:
        def effect(kind: str) -> Body:
            body = MemoryStore.open(self, uri, start, stop, etag)
            if kind in READ:
                body.read = _breaks_off(body.read, uri)
            return body

        return self._call("open", uri, effect, READ)

    def get(self, uri: str) -> bytes | None:
        return self._call("get", uri, lambda _: MemoryStore.get(self, uri))

    def head(self, uri: str):
        # A store that honours no condition and shows objects late as well cannot be told from an empty one.
        shows_late = LATE if "/out/" in uri and "/_l/" not in uri and self.honours_condition else ()
        return self._call("head", uri, lambda kind: None if kind in LATE else MemoryStore.head(self, uri), shows_late)

    def list_parts(self, uri: str, upload_id: str):
        def effect(kind: str):
            self._lifecycle(kind, upload_id)
            parts = MemoryStore.list_parts(self, uri, upload_id)
            return parts[:-1] if parts and kind in LISTING else parts

        return self._call("list_parts", uri, effect, [*LISTING, *LIFECYCLE])

    def list_uploads(self, uri: str) -> list[str]:
        return self._call("list_uploads", uri, lambda _: MemoryStore.list_uploads(self, uri))

    # -- changing

    def put(self, uri: str, body: bytes, *, content_type: str = "application/json") -> None:
        self._call("put", uri, lambda _: self._put(uri, body, content_type))

    def _put(self, uri: str, body: bytes, content_type: str) -> None:
        if "/_l/files/" in uri and uri in self.objects:
            before, after = json.loads(self.objects[uri]), json.loads(body)
            if before["outcome"] == "landed" != after["outcome"] and before["landed_uri"] in self.objects:
                self.unsaid.append(f"{before['landed_uri']} landed, stands, and {after['outcome']} took its place")
        MemoryStore.put(self, uri, body, content_type=content_type)

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
        if self._looks_first and not replace and self.head(uri):
            return False

        def effect(kind: str) -> bool:
            self._intrude(kind, uri)
            if uri in self.objects and not replace and self.honours_condition:
                return False
            self.altered.discard(uri)
            content = self._arrived(kind, uri, uri, body, crc64nvme, md5)
            etag = self._put_object(uri, content, metadata, content_type)
            assert etag
            return kind != PUT[0]

        # A document of the ledger is nothing that somebody sees, and nobody else writes there.
        own = [PUT[0]] if "/_l/" in uri else [*PUT, *PARTS[1:]]
        return self._call("put_new", uri, effect, own)

    def _put_object(self, uri: str, content: bytes, metadata: Mapping[str, str], content_type: str) -> str:
        MemoryStore.put_new(self, uri, content, content_type=content_type, metadata=metadata, replace=True)
        if "/_l/" not in uri:
            self._watch(uri, content, uri in self.altered)
        return self.heads[uri].etag

    def create_upload(
        self, uri: str, *, content_type: str, metadata: Mapping[str, str], crc64nvme: bool = True
    ) -> NewUpload:
        return self._call(
            "create_upload",
            uri,
            lambda _: MemoryStore.create_upload(
                self, uri, content_type=content_type, metadata=metadata, crc64nvme=crc64nvme
            ),
        )

    def upload_part(
        self, uri: str, upload_id: str, number: int, body: memoryview, *, crc64nvme: str = "", md5: bytes = b""
    ) -> str:
        def effect(kind: str) -> str:
            self._lifecycle(kind, upload_id)
            if kind == PARTS[0]:
                kept = self.uploads.get(upload_id)
                etag = MemoryStore.upload_part(self, uri, upload_id, number, body)
                assert kept
                del kept[1][number]
                return etag
            content = self._arrived(kind, uri, upload_id, bytes(body), crc64nvme, md5)
            return MemoryStore.upload_part(self, uri, upload_id, number, memoryview(content))

        return self._call("upload_part", uri, effect, [*PARTS, *LIFECYCLE])

    def copy_part(self, uri: str, upload_id: str, number: int, source_uri: str, span: range, etag: str) -> str:
        def effect(_: str) -> str:
            body = MemoryStore.open(self, source_uri, span.start, span.stop, etag).read()
            return MemoryStore.upload_part(self, uri, upload_id, number, memoryview(body))

        return self._call("copy_part", uri, effect)

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
        if self._looks_first and not replace and self.head(uri):
            return False

        def effect(kind: str) -> bool:
            if kind == COMPLETE[0]:
                raise StorageUnavailableError(f"{uri}: complete_upload answered InternalError")
            self._lifecycle(kind, upload_id)
            self._intrude(kind, uri)
            if upload_id not in self.uploads:
                raise UploadGoneError(f"{uri}: complete_upload answered NoSuchUpload: the upload was aborted")
            if uri in self.objects and not replace and self.honours_condition:
                return False
            stored = self.uploads[upload_id][1]
            if [(part.number, part.size) for part in parts] != [(n, len(b)) for n, b in sorted(stored.items())]:
                raise ChecksumMismatchError(f"{uri}: complete_upload answered InvalidPart")
            MemoryStore.complete_upload(self, uri, upload_id, parts, size=size, crc64nvme=crc64nvme, replace=True)
            self._watch(uri, self.objects[uri], upload_id in self.altered)
            if kind == COMPLETE[1]:
                raise StorageUnavailableError(f"{uri}: the answer to complete_upload is lost")
            if kind == COMPLETE[2]:
                # The second request meets what the first has made.
                if self._rng.random() < 0.5:
                    raise UploadGoneError(f"{uri}: complete_upload answered NoSuchUpload: the upload was aborted")
                return False
            return True

        return self._call("complete_upload", uri, effect, [*COMPLETE, *LIFECYCLE])

    def add_tags(self, uri: str, tags: Mapping[str, str]) -> bool:
        return self._call("add_tags", uri, lambda _: self.has_tags and MemoryStore.add_tags(self, uri, tags))

    def abort_upload(self, uri: str, upload_id: str) -> None:
        self._call("abort_upload", uri, lambda _: MemoryStore.abort_upload(self, uri, upload_id))

    def delete(self, uri: str) -> None:
        self._call("delete", uri, lambda _: MemoryStore.delete(self, uri))

    # -- how it fails

    def _arrived(self, kind: str, uri: str, whose: str, body: bytes, crc64nvme: str, md5: bytes) -> bytes:
        """Return what is stored of a body; one that was altered on the way is refused where a checksum is checked."""
        honoured = {"crc64nvme": crc64nvme if self.checks_crc64nvme else "", "md5": md5 if self.checks_md5 else b""}
        content = body
        if kind == PARTS[1] and body:
            at = self._rng.randrange(len(body))
            content = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        check = MemoryStore()
        try:
            MemoryStore.put_new(check, uri, content, content_type="", metadata={}, **honoured)
        except ChecksumMismatchError:
            raise ChecksumMismatchError(f"{uri}: answered BadDigest") from None
        if content != body:
            self.altered.add(whose)
        return content

    def _lifecycle(self, kind: str, upload_id: str) -> None:
        if kind in LIFECYCLE:
            self.uploads.pop(upload_id, None)

    def _intrude(self, kind: str, uri: str) -> None:
        # Beside its key a file lands under a name of its content, where nobody else writes.
        if (
            kind == "warehouse: another's object appears at the key (412)"
            and uri not in self.objects
            and "~" not in uri
        ):
            MemoryStore.put(self, uri, OTHERS)


def _said(error: LivekitBackupError, uri: str, operation: str) -> LivekitBackupError:
    return type(error)(f"{uri}: {operation} {error}")


def _breaks_off(read: Callable[[int], bytes], uri: str) -> Callable[[int], bytes]:
    def read_less(size: int = -1, /) -> bytes:
        if data := read(min(size, 100) if size >= 0 else 100):
            read_less.left -= 1
            if read_less.left:
                return data
        raise StorageUnavailableError(f"{uri} broke off: ConnectionResetError")

    read_less.left = 2
    return read_less
