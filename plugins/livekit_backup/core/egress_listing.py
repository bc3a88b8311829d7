"""ListEgress page by page: what to ask next, what an answer holds, and when to stop. Sends nothing itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from livekit_backup.core.wording import describe_validation, quoted
from livekit_backup.errors import SourceUnavailableError
from livekit_backup.models.egress import EgressInfo

MAX_PAGES = 10_000
"""Cloud's pages hold some tens to hundreds of egresses, and it keeps days of them: this is a source gone wrong."""
MAX_REMEMBERED = 200_000
"""Egresses of one listing that are known again: some 30 MB. Beyond that one can be listed twice."""

_RESULT_FIELDS = (
    "egress_id",
    "room_id",
    "room_name",
    "source_type",
    "status",
    "started_at",
    "ended_at",
    "updated_at",
    "error",
    "error_code",
    "details",
    "manifest_location",
    "backup_storage_used",
    "retry_count",
    "file",
    "segments",
    "file_results",
    "segment_results",
    "image_results",
)
_BESIDE_ITEMS = frozenset({"items", "next_page_token", "nextPageToken"})
_KEPT = frozenset({*_RESULT_FIELDS, *map(to_camel, _RESULT_FIELDS)})


@dataclass(frozen=True)
class ListedEgress:
    """One egress as the API lists it."""

    document: dict[str, Any] = field(repr=False)
    """What the API says of the egress and its results; without its request and streams, which can hold keys."""
    info: EgressInfo | None
    """None when it cannot be read."""
    error: str = ""
    """Why there is no info; without the values, which can be signed URLs."""


@dataclass(frozen=True)
class Page:
    """One answer of the API."""

    items: list[Any] = field(repr=False)
    token: str
    """Asks for the next one; empty when there is none."""


class EgressListing:
    """One listing, of which each egress is given once, or again when its state has changed meanwhile.

    Open-source servers ignore ``page_token`` and answer the same again, so a token that was there before ends it, and
    so does a page of nothing but what was there before.

    :param source: what errors call the server.
    """

    def __init__(self, source: str, *, egress_id: str = "", room_name: str = "") -> None:
        self._source = source
        asked = {"egress_id": egress_id, "room_name": room_name}
        self._asked = {name: value for name, value in asked.items() if value}
        self._token = ""
        self._tokens: set[int] = set()
        self._seen: dict[int, int] = {}
        self._pages = 0
        self._over = False

    @property
    def request(self) -> dict[str, Any] | None:
        """The body of the next request; None when the listing is over.

        :raises SourceUnavailableError: the server goes on without end.
        """
        if self._over:
            return None
        if self._pages >= MAX_PAGES:
            raise SourceUnavailableError(f"{self._source} goes on listing egresses behind {MAX_PAGES} pages")
        return {**self._asked, "page_token": {"token": self._token}} if self._token else dict(self._asked)

    def take(self, page: Page) -> Iterator[ListedEgress]:
        """Give what the answer to the request lists. It has to be iterated to its end before the next request."""
        self._pages += 1
        brings_new = False
        for item in page.items:
            listed = listed_egress(item)
            identity, state = _identity(listed), _state(listed)
            known = self._seen.get(identity)
            brings_new |= known is None
            if known != state:
                if known is not None or len(self._seen) < MAX_REMEMBERED:
                    self._seen[identity] = state
                yield listed
        token = hash(page.token)
        # An empty page says nothing of those behind it: a server may filter after it has cut its pages.
        self._over = not page.token or token in self._tokens or (bool(page.items) and not brings_new)
        self._tokens.add(token)
        self._token = page.token


def read_page(source: str, body: bytes) -> Page:
    """Read an answer.

    :raises SourceUnavailableError: it is no list of egresses.
    """
    try:
        answer = json.loads(body)
    except RecursionError:
        raise SourceUnavailableError(f"{source} answered JSON that is nested too deeply") from None
    except ValueError:
        raise SourceUnavailableError(f"{source} answered what is no JSON, and no list of egresses") from None
    items = answer.get("items") if isinstance(answer, dict) else None
    # Where defaults are left out an empty list is, too; any other object is another service's.
    if items is None and isinstance(answer, dict) and not answer.keys() - _BESIDE_ITEMS:
        items = []
    if not isinstance(items, list):
        raise SourceUnavailableError(f"{source} answered JSON that is no list of egresses")
    following = answer.get("next_page_token") or answer.get("nextPageToken")
    token = following.get("token") if isinstance(following, dict) else ""
    return Page(items, token if isinstance(token, str) else "")


def listed_egress(item: Any) -> ListedEgress:
    """Read one item of a listing."""
    if not isinstance(item, dict):
        return ListedEgress({}, None, "not a JSON object")
    document = {name: value for name, value in item.items() if name in _KEPT}
    try:
        return ListedEgress(document, EgressInfo.model_validate(document))
    except ValidationError as error:
        name = document.get("egress_id", document.get("egressId"))
        whose = f"egress {quoted(name, 128)}: " if isinstance(name, str) else ""
        return ListedEgress(document, None, whose + describe_validation(error))


def _identity(listed: ListedEgress) -> int:
    info = listed.info
    return hash((info.egress_id, info.started_at)) if info else hash(json.dumps(listed.document, sort_keys=True))


def _state(listed: ListedEgress) -> int:
    info = listed.info
    return hash((info.status, info.ended_at, info.updated_at, info.backup_storage_used)) if info else 0
