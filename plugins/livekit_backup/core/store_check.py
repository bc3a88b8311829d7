"""Finds out what an object store honours, by trying: servers that call themselves S3 differ exactly here.

Seen: Swift ignores the CRC64NVME of a whole and has no tags; Ceph answers 200 to a wrong one; rclone ignores
``If-None-Match``. Only what was seen to be refused counts as a check.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from awscrt import checksums

from livekit_backup.core.etags import multipart_etag
from livekit_backup.core.storage import ConditionalStore, ObjectHead, ObjectStore, join_uri
from livekit_backup.errors import (
    ChecksumMismatchError,
    LivekitBackupError,
    RetryableError,
    StorageUnavailableError,
    UploadGoneError,
)
from livekit_backup.models.store_abilities import StoreAbilities

CONTENT_TYPE = "application/octet-stream"

log = logging.getLogger(__name__)

_BODY = b"livekit_backup: a probe of this object store; it may be deleted"
_OTHER_BODY = b"livekit_backup: another probe of this object store; it may be deleted"
_TAGS = {"livekit-backup": "probe"}
_RIGHT_CRC64NVME, _WRONG_CRC64NVME = (
    base64.b64encode(checksums.crc64nvme(body).to_bytes(8, "big")).decode() for body in (_BODY, _OTHER_BODY)
)


def check_store(
    store: ObjectStore, probe_uri: str, now: datetime, announce: Callable[[Sequence[str]], None] = lambda _: None
) -> StoreAbilities:
    """Find out what the store honours, with a few tiny objects of new names below ``probe_uri``.

    About forty small requests, none of them repeated here. The objects are removed afterwards; where
    the right to is missing, they stay, and the log says so.

    :param probe_uri: ``s3://bucket/prefix`` where recordings land or beside them.
    :param now: what to note as the time of the check.
    :param announce: is told the URIs of those objects before there is anything, for who is to clear up should this be
        killed.
    :raises AccessDeniedError, ConfigurationError, StorageUnavailableError: a plain upload fails, as a landing would.
    """
    probe = _Probe(store, join_uri(probe_uri, uuid.uuid4().hex))
    announce(probe.uris)
    try:
        found = {
            **probe.check_plain_upload(),
            **probe.check_crc64nvme(),
            **probe.check_wrong_whole(),
            "never_replaces": probe.never_replaces(),
            "tags": probe.has_tags(),
        }
        found["gives_crc64nvme"] &= not found.pop("may_echo")
        abilities = StoreAbilities(checked_at=now, store=store.place_name(), in_doubt=probe.in_doubt, **found)
    finally:
        probe.clean_up()
    log.info("%s", abilities.describe())
    return abilities


class _Probe:
    """The objects and uploads of one check."""

    def __init__(self, store: ObjectStore, base_uri: str) -> None:
        self._store = store
        self._plain = f"{base_uri}-plain"
        self._crc = f"{base_uri}-crc64nvme"
        self._whole = f"{base_uri}-whole"
        self.uris = (self._plain, self._crc, self._whole)
        self._opened: list[tuple[str, str]] = []
        self.in_doubt = False
        """Whether something failed that another check may find to work."""

    def check_plain_upload(self) -> dict[str, bool]:
        """Upload as every store must be able to; wrong parts are sent on the way."""
        upload_id, may_be_md5 = self._create(self._plain, crc64nvme=False)
        refuses = self._refuses(lambda: self._put(self._plain, upload_id, md5=bytes(16)))
        md5 = hashlib.md5(_BODY, usedforsecurity=False).digest()
        self._put(self._plain, upload_id, md5=md5)
        self._complete(self._store, self._plain, upload_id)
        head = self._store.head(self._plain)
        return {
            "refuses_wrong_md5": refuses,
            "etags_are_md5": may_be_md5 and head is not None and head.etag == multipart_etag([md5]),
        }

    def check_crc64nvme(self) -> dict[str, bool]:
        """Upload with CRC64NVMEs, a wrong one first."""
        found = {"accepts_crc64nvme": False, "refuses_wrong_crc64nvme": False, "gives_crc64nvme": False}
        with self._untestable("CRC64NVME"):
            upload_id, _ = self._create(self._crc, crc64nvme=True)
            refuses = self._refuses(lambda: self._put(self._crc, upload_id, crc64nvme=_WRONG_CRC64NVME))
            self._put(self._crc, upload_id, crc64nvme=_RIGHT_CRC64NVME)
            self._complete(self._store, self._crc, upload_id, crc64nvme=_RIGHT_CRC64NVME)
            head = self._store.head(self._crc)
            found["accepts_crc64nvme"] = _is_body(head)
            found["refuses_wrong_crc64nvme"] = refuses
            found["gives_crc64nvme"] = head is not None and head.crc64nvme == _RIGHT_CRC64NVME
        return found

    def check_wrong_whole(self) -> dict[str, bool]:
        """Complete with a wrong CRC64NVME of the whole. What was refused must not be there either.

        Where it is there, HEAD may show what was sent: then it says nothing of the bytes.
        """
        found = {"refuses_wrong_whole": False, "may_echo": True}
        with self._untestable("a wrong CRC64NVME of the whole"):
            upload_id, _ = self._create(self._whole, crc64nvme=True)
            self._put(self._whole, upload_id, crc64nvme=_RIGHT_CRC64NVME)
            refuses = self._refuses(
                lambda: self._complete(self._store, self._whole, upload_id, crc64nvme=_WRONG_CRC64NVME)
            )
            head = self._store.head(self._whole)
            found["refuses_wrong_whole"] = refuses and head is None
            found["may_echo"] = head is not None and head.crc64nvme == _WRONG_CRC64NVME
        return found

    def never_replaces(self) -> bool:
        """Complete a second upload where the first one's object is, and put another there, on the condition alone."""
        if not isinstance(self._store, ConditionalStore):
            return False
        with self._untestable("If-None-Match"):
            before = self._store.head(self._plain)
            upload_id, _ = self._create(self._plain, crc64nvme=False)
            self._put(self._plain, upload_id, body=_OTHER_BODY)
            blind = self._store.without_looking()
            made = self._complete(blind, self._plain, upload_id, size=len(_OTHER_BODY))
            made = made or blind.put_new(self._plain, _OTHER_BODY, content_type=CONTENT_TYPE, metadata={})
            return not made and _is_body(before) and self._store.head(self._plain) == before
        return False

    def has_tags(self) -> bool:
        """Tag the object of the plain upload."""
        with self._untestable("tags"):
            return self._store.add_tags(self._plain, _TAGS)
        return False

    def clean_up(self) -> None:
        """Drop all uploads and remove all objects."""
        for uri, upload_id in self._opened:
            with self._untestable(f"dropping the probe {uri}"):
                self._store.abort_upload(uri, upload_id)
        for uri in dict.fromkeys(uri for uri, _ in self._opened):
            with self._untestable(f"removing the probe {uri}"):
                self._store.delete(uri)

    def _create(self, uri: str, *, crc64nvme: bool) -> tuple[str, bool]:
        new = self._store.create_upload(uri, content_type=CONTENT_TYPE, metadata={}, crc64nvme=crc64nvme)
        self._opened.append((uri, new.upload_id))
        return new.upload_id, new.etags_are_md5

    def _put(self, uri: str, upload_id: str, *, body: bytes = _BODY, crc64nvme: str = "", md5: bytes = b"") -> None:
        self._store.upload_part(uri, upload_id, 1, memoryview(body), crc64nvme=crc64nvme, md5=md5)

    def _complete(
        self, store: ObjectStore, uri: str, upload_id: str, *, size: int = len(_BODY), crc64nvme: str = ""
    ) -> bool:
        parts = store.list_parts(uri, upload_id)
        if parts is None:
            raise UploadGoneError(f"{uri}: the upload was aborted")
        if not parts:
            # Its refusal to make nothing an object would look like that of a wrong checksum.
            raise StorageUnavailableError(
                f"{uri}: the warehouse holds 0 bytes in 0 parts of {size} bytes in 1 sent to it"
            )
        return store.complete_upload(uri, upload_id, parts, size=size, crc64nvme=crc64nvme)

    def _refuses(self, call: Callable[[], object]) -> bool:
        """Whether a call fails since its checksum is wrong; another error decides nothing."""
        try:
            call()
        except ChecksumMismatchError:
            return True
        except LivekitBackupError as error:
            self.in_doubt |= isinstance(error, RetryableError)
            log.info("a wrong checksum was answered otherwise: %s", error)
        return False

    @contextlib.contextmanager
    def _untestable(self, what: str) -> Iterator[None]:
        """Let an ability whose test fails count as absent, for some time at least."""
        try:
            yield
        except (LivekitBackupError, FileNotFoundError) as error:
            self.in_doubt |= isinstance(error, RetryableError)
            log.info("the store's way with %s could not be tested: %s", what, error)


def _is_body(head: ObjectHead | None) -> bool:
    return head is not None and head.size == len(_BODY)
