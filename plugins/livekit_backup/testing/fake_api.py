"""The fake LiveKit's server API: ListEgress as Twirp JSON, or as protobuf for LiveKit's own SDKs.

It answers as livekit-server does (``pkg/service/auth.go``, ``pkg/service/egress.go``); how Cloud pages is not public.
"""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from importlib import import_module
from typing import Any

import jwt

from livekit_backup.testing.twirp_items import Json, twirp_item

LIST_EGRESS = "/twirp/livekit.Egress/ListEgress"
API_KEYS = {"APIfake": "the-secret-of-the-fake-livekit-0123456789"}
STORAGE_SECRET = "a-storage-secret-in-an-egress-request"
"""Stands in every request part that the API lists: a test can prove that it goes nowhere."""

_LEEWAY = 60
_LIVE = ("EGRESS_STARTING", "EGRESS_ACTIVE", "EGRESS_ENDING")
_DAY = timedelta(hours=24)


class ApiFault(Enum):
    """What the API can be made to answer instead."""

    TOO_MANY_REQUESTS = auto()
    """429 with ``Retry-After``."""
    SERVER_ERROR = auto()
    """500 and a Twirp error."""
    DENIED = auto()
    """401, as for a key that was revoked."""
    GARBAGE = auto()
    """200 with an HTML page, as captive portals and proxies answer."""
    HANG = auto()
    """Nothing, until the client leaves or the server stops."""
    SAME_TOKEN = auto()
    """The first page and the same token behind it, whatever page was asked for."""


@dataclass
class _Failure:
    fault: ApiFault
    times: int | None
    after: int
    retry_after: int


@dataclass(frozen=True)
class ApiAnswer:
    """What goes back; ``hangs`` when nothing does."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False


class _TwirpError(Exception):
    def __init__(self, status: int, code: str, msg: str) -> None:
        super().__init__(msg)
        self.answer = ApiAnswer(status, json.dumps({"code": code, "msg": msg}).encode())


class _UnauthorizedError(Exception):
    """Refused before Twirp: livekit-server answers plain text, and repeats the token."""


class FakeApi:
    """The API of one project.

    Args:
        keys: the secret of each API key.
        clock: what counts as now, for tokens and for how long egresses are kept.
        cloud: honours ``page_token``; otherwise it is an open-source server, which ignores it, keeps what has
            ended for 24 hours, and answers 404 for an unknown egress id.
        page_size: egresses on a page of the Cloud's.
    """

    def __init__(self, keys: Mapping[str, str], *, clock: Callable[[], datetime], cloud: bool, page_size: int) -> None:
        self.keys = dict(keys)
        self._clock = clock
        self._cloud = cloud
        self._page_size = page_size
        self._items: dict[tuple[str, str], Json] = {}
        self._failures: deque[_Failure] = deque()

    def add(self, info: Json) -> None:
        """List an egress, given as an ``EgressInfo`` in JSON; one with its id and start is replaced."""
        item = twirp_item(info, STORAGE_SECRET)
        self._items[item["egress_id"], item["started_at"]] = item

    def fail(self, fault: ApiFault, *, times: int | None, after: int, retry_after: int) -> None:
        """Make the next answers wrong; failures queue up."""
        self._failures.append(_Failure(fault, times, after, retry_after))

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> ApiAnswer:
        """Answer one POST.

        Args:
            headers: by their lower-case names.
        """
        fault = self._next_failure()
        if fault and (spoilt := _spoilt(fault)):
            return spoilt
        try:
            self._authorize(headers.get("authorization"))
            return self._call(path, headers.get("content-type", "").partition(";")[0].strip(), body, ends=not fault)
        except _TwirpError as error:
            return error.answer
        except _UnauthorizedError as error:
            return ApiAnswer(401, str(error).encode(), "text/plain; charset=utf-8")

    def _call(self, path: str, kind: str, body: bytes, *, ends: bool) -> ApiAnswer:
        if path != LIST_EGRESS or kind not in ("application/json", "application/protobuf"):
            raise _TwirpError(404, "bad_route", f"no handler for path {path!r} and Content-Type {kind!r}")
        if kind == "application/protobuf":
            return self._call_by_protobuf(body, ends=ends)
        try:
            asked = json.loads(body)
        except ValueError:
            raise _TwirpError(400, "malformed", "the json request could not be decoded") from None
        return ApiAnswer(200, json.dumps(self._list(asked, ends=ends), ensure_ascii=False).encode())

    def _next_failure(self) -> _Failure | None:
        if not self._failures:
            return None
        first = self._failures[0]
        if first.after:
            first.after -= 1
            return None
        if first.times is not None:
            first.times -= 1
            if not first.times:
                self._failures.popleft()
        return first

    def _authorize(self, header: str | None) -> None:
        denied = _TwirpError(401, "unauthenticated", "permissions denied")
        if not header:
            raise denied
        if not header.startswith("Bearer "):
            raise _UnauthorizedError("invalid authorization header. Must start with Bearer ")
        token = header.removeprefix("Bearer ")
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.InvalidTokenError:
            raise _UnauthorizedError("invalid authorization token") from None
        if issuer not in self.keys:
            raise _UnauthorizedError(f"invalid API key: {issuer}")
        try:
            # Times are those of the fake's own clock.
            unchecked: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp"]}
            claims = jwt.decode(token, self.keys[issuer], algorithms=["HS256"], options=unchecked)
        except jwt.InvalidTokenError as error:
            raise _UnauthorizedError(f"invalid token: {token}, error: {error}") from None
        now = self._clock().timestamp()
        if now > claims["exp"] + _LEEWAY:
            raise _UnauthorizedError(f"invalid token: {token}, error: validation failed, token is expired (exp)")
        if now < claims.get("nbf", 0) - _LEEWAY:
            raise _UnauthorizedError(f"invalid token: {token}, error: validation failed, token not valid yet (nbf)")
        if not claims.get("video", {}).get("roomRecord"):
            raise denied

    def _list(self, asked: Json, *, ends: bool) -> Json:
        egress_id = asked.get("egress_id") or asked.get("egressId") or ""
        room_name = asked.get("room_name") or asked.get("roomName") or ""
        items = [
            item
            for item in self._items.values()
            if egress_id in ("", item["egress_id"])
            and room_name in ("", item["room_name"])
            and (not asked.get("active") or item["status"] in _LIVE)
            and (self._cloud or not self._forgotten(item))
        ]
        if not self._cloud:
            if egress_id and not items:
                raise _TwirpError(404, "not_found", "egress does not exist")
            return {"items": copy.deepcopy(items), "next_page_token": None if ends else {"token": "again"}}
        token = (asked.get("page_token") or asked.get("pageToken") or {}).get("token", "")
        first = int(token.removeprefix("from-") or 0) if ends and token else 0
        following = first + self._page_size
        more = {"token": f"from-{following}"} if following < len(items) else None
        return {
            "items": copy.deepcopy(items[first:following]),
            "next_page_token": more if ends else {"token": "again"},
        }

    def _forgotten(self, item: Json) -> bool:
        ended = int(item["ended_at"])
        return bool(ended) and self._clock().timestamp() - ended / 1e9 > _DAY.total_seconds()

    def _call_by_protobuf(self, body: bytes, *, ends: bool) -> ApiAnswer:
        # LiveKit's own package, which only those have who test with its SDK.
        messages: Any = import_module("livekit.protocol.egress")
        json_format: Any = import_module("google.protobuf.json_format")
        asked = json_format.MessageToDict(messages.ListEgressRequest.FromString(body))
        listed = json_format.ParseDict(self._list(asked, ends=ends), messages.ListEgressResponse())
        return ApiAnswer(200, listed.SerializeToString(), "application/protobuf")


def _spoilt(failure: _Failure) -> ApiAnswer | None:
    match failure.fault:
        case ApiFault.TOO_MANY_REQUESTS:
            body = json.dumps({"code": "resource_exhausted", "msg": "too many requests"}).encode()
            return ApiAnswer(429, body, headers={"Retry-After": str(failure.retry_after)})
        case ApiFault.SERVER_ERROR:
            return _TwirpError(500, "internal", "egress not connected (redis required)").answer
        case ApiFault.DENIED:
            return ApiAnswer(401, b"invalid API key: APIrevoked", "text/plain; charset=utf-8")
        case ApiFault.GARBAGE:
            return ApiAnswer(200, b"<html><body>Please sign in to continue</body></html>", "text/html")
        case ApiFault.HANG:
            return ApiAnswer(0, b"", hangs=True)
    return None
