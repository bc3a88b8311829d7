"""Whole objects on their way from S3: boto makes and signs the request, and its HTTP session sends it.

An inbox may hold hundreds of thousands of small objects, and most of what boto does for each is the same for all of a
bucket. So boto is asked once for the request that it would send; for every object the key is put in, boto's signer
signs it and boto's session sends it. Whatever is not simply answered with the object, or with the word that there is
none (an error, a redirect, a time-out), is asked of boto itself from the start, with its retries and its own words.

8,000 objects of 900 bytes from a server on the same two shared and busy cores, 16 threads, with all that reads the
events: boto alone 680 objects a second and 1.00 ms of this process' CPU each, this 1,650 and 0.59 ms.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from botocore.awsrequest import AWSResponse, create_request_object
from botocore.exceptions import HTTPClientError
from botocore.hooks import first_non_none_response
from botocore.response import StreamingBody
from botocore.utils import percent_encode

from livekit_backup.hooks.s3_errors import ABSENT, error_code, error_in

_OPERATION = "GetObject"
_EVENT = "before-call.s3.GetObject"
_KEY = "livekit-backup-key"
_SAFE_IN_KEYS = "/~"
"""As boto writes keys (``botocore.serialize``)."""
_CHECKSUM_MODE = "x-amz-checksum-mode"

_Request = Mapping[str, Any]


class ObjectReader:
    """Reads whole objects through a boto client. Safe to share between threads.

    :param client: an S3 client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        # boto names it nowhere in public; one of our own would lose the connection's proxies and certificates.
        self._session = client._endpoint.http_session  # noqa: SLF001
        self._asking = threading.local()
        # The last: what else handlers change is in the request by then.
        client.meta.events.register_last(_EVENT, self._keep_request, unique_id=f"livekit-backup-read-{id(self)}")
        self._known: dict[tuple[tuple[str, str], ...], tuple[_Request, Any]] = {}

    def open(self, at: Mapping[str, str]) -> Any:
        """Return a stream of an object's bytes.

        :param at: boto's arguments of the call: bucket, key and the like.
        :raises ClientError, BotoCoreError: as boto's own ``get_object`` does.
        """
        return self._send(at) or self._client.get_object(**at)["Body"]

    def _send(self, at: Mapping[str, str]) -> StreamingBody | None:
        known = self._request_for({name: value for name, value in at.items() if name != "Key"})
        if known is None:
            return None
        request, signer = known
        if _CHECKSUM_MODE in request["headers"] or not request["url"].endswith(_KEY):
            # A connection can ask boto to check every body.
            return None
        prepared = _signed(request, signer, percent_encode(at["Key"], safe=_SAFE_IN_KEYS))
        answer = first_non_none_response(self._client.meta.events.emit("before-send.s3.GetObject", request=prepared))
        if answer is None:
            try:
                answer = self._session.send(prepared)
            except HTTPClientError:
                return None
        if answer.status_code != 200:
            if answer.status_code == 404 and error_code(error := error_in(answer, _OPERATION)) in ABSENT:
                raise error
            answer.raw.drain_conn()
            # boto may learn from its own try where the bucket is.
            self._known.clear()
            return None
        return StreamingBody(answer.raw, answer.headers.get("content-length"))

    def _request_for(self, bucket: dict[str, str]) -> tuple[_Request, Any] | None:
        key = tuple(sorted(bucket.items()))
        known = self._known.get(key)
        if known is None:
            self._asking.kept = None
            try:
                self._client.get_object(**bucket, Key=_KEY)
                known = self._asking.kept
            finally:
                del self._asking.kept
            if known is not None:
                self._known[key] = known
        return known

    def _keep_request(
        self, params: _Request, request_signer: Any, **_: Any
    ) -> tuple[AWSResponse, dict[str, Any]] | None:
        """Answer boto's ``before-call`` where only the request is wanted, which keeps boto from sending it."""
        if not hasattr(self._asking, "kept"):
            return None
        self._asking.kept = params, request_signer
        return AWSResponse(params["url"], 200, {}, None), {}


def _signed(request: _Request, signer: Any, key: str) -> Any:
    context = request["context"]
    made = {
        "url": request["url"].removesuffix(_KEY) + key,
        "headers": dict(request["headers"]),
        "context": {**context, "signing": dict(context.get("signing", {}))},
    }
    if path := request.get("auth_path"):
        made["auth_path"] = path.removesuffix(_KEY) + key
    unsigned = create_request_object({**request, **made})
    unsigned.stream_output = True
    signer.sign(_OPERATION, unsigned)
    return unsigned.prepare()
