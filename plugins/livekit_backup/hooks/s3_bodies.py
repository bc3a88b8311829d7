"""The bytes of S3 requests and answers as files: a part to send without a copy, an object to read."""

from __future__ import annotations

import io
from typing import Any

from livekit_backup.errors import StorageUnavailableError
from livekit_backup.hooks.s3_errors import store_errors


class PartBody:
    """A read-only file over a part, whose reads are views: a ``BytesIO`` would copy the whole part first.

    boto measures it, signs it where the connection asks for that, and rewinds it before it sends a request again;
    most parts are sent without it, by :mod:`livekit_backup.hooks.s3_parts`, which takes less CPU.
    """

    def __init__(self, part: memoryview) -> None:
        self._part = part
        self._at = 0

    def __len__(self) -> int:
        return len(self._part)

    def read(self, size: int | None = -1, /) -> memoryview:
        """Return the next bytes, at most ``size`` of them."""
        end = len(self._part) if size is None or size < 0 else self._at + size
        view = self._part[self._at : end]
        self._at += len(view)
        return view

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to an offset from the start, the present place or the end."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._part)}[whence])
        return self._at

    def tell(self) -> int:
        """Return the present place."""
        return self._at


class ObjectBody:
    """An object's bytes, whose errors are ours."""

    def __init__(self, uri: str, body: Any) -> None:
        self._uri = uri
        self._body = body

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, ``b""`` at the end. :raises StorageUnavailableError: it broke off."""
        with store_errors(self._uri):
            try:
                return bytes(self._body.read(None if size < 0 else size))
            except OSError as error:
                raise StorageUnavailableError(f"{self._uri} broke off: {type(error).__name__}") from None

    def close(self) -> None:
        """Give the connection back."""
        self._body.close()
