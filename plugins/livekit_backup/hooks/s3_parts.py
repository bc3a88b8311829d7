"""Parts on their way to S3: boto makes and signs the request, and its HTTP session sends the bytes in views.

Once an upload, boto itself is asked for the request that it would send. For every part its number, length and sums
are put in, boto's signer signs it by header (no URL is a secret then, and assumed roles renew their keys), and boto's
session sends it: endpoint, addressing, region, proxies, certificates, time-outs and pool remain the connection's.

1 GiB from memory over TLS to a sink that discards it, two shared and busy cores, medians of 9 alternating rounds after
one to warm up, CPU s (user and system) and s of the clock; the sink takes CPU beside it:

- 5 MiB, 1 thread: boto alone 0.97 and 1.77, this 0.79 and 1.51 (CPU -19 %)
- 5 MiB, 8 threads: boto alone 1.07 and 1.60, this 0.88 and 1.35 (-18 %)
- 16 MiB, 8 threads: boto alone 0.76 and 1.19, this 0.67 and 1.06 (-12 %)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from botocore.awsrequest import AWSResponse, create_request_object
from botocore.hooks import first_non_none_response
from botocore.utils import percent_encode_sequence
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from livekit_backup.errors import StorageUnavailableError
from livekit_backup.hooks.s3_bodies import PartBody
from livekit_backup.hooks.s3_errors import error_code, error_in, error_status, store_errors

ATTEMPTS = 5
"""At most, of one part; fewer where the connection's ``retries`` say so."""
MAX_WAIT_SECONDS = 20.0
_MAX_KNOWN = 64
_BLOCK = 256 * 1024
_OPERATION = "UploadPart"
# The codes of which boto itself finds out the bucket's region (botocore.utils.S3RegionRedirectorv2).
_ELSEWHERE = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed"})
_HEADERS = {
    "ChecksumAlgorithm": "x-amz-sdk-checksum-algorithm",
    "ChecksumCRC64NVME": "x-amz-checksum-crc64nvme",
    "ContentMD5": "Content-MD5",
}
log = logging.getLogger(__name__)


class PartSender:
    """Sends parts through a boto client. Safe to share between threads.

    :param client: an S3 client.
    :param first_wait_seconds: at most, before the second attempt; it doubles from there up to ``MAX_WAIT_SECONDS``.
    """

    def __init__(self, client: Any, *, first_wait_seconds: float = 1.0) -> None:
        self._client = client
        # boto names it nowhere in public; one of our own would lose the connection's proxies and certificates.
        self._session = client._endpoint.http_session  # noqa: SLF001
        # The least specific event, and there the last: what else handlers change is in the request by then.
        client.meta.events.register_last("before-call", _keep_request, unique_id="livekit-backup-part")
        self._attempts = min(ATTEMPTS, (client.meta.config.retries or {}).get("total_max_attempts", ATTEMPTS))
        self._backoff = wait_random_exponential(multiplier=first_wait_seconds, max=MAX_WAIT_SECONDS)
        self._known: dict[tuple[Any, ...], _Request] = {}

    def send(self, uri: str, number: int, body: memoryview, at: Mapping[str, str], checks: Mapping[str, str]) -> str:
        """Store a part and return its ETag without quotes.

        :param number: from 1.
        :param at: boto's arguments of every part of the upload: bucket, key, upload and the like.
        :param checks: boto's arguments of this part: its checksums, base64.
        :raises ChecksumMismatchError: the store received other bytes than were sent.
        :raises UploadGoneError: the upload was aborted or completed.
        :raises StorageUnavailableError: no answer after all attempts, or one without an ETag.
        """
        arguments = {**at, **checks, "PartNumber": number, "ContentLength": len(body)}
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=self._backoff,
            retry=retry_if_exception_type(StorageUnavailableError),
            before_sleep=lambda state: log.warning("part %d is sent again: %s", number, _error_of(state)),
            reraise=True,
        )
        with store_errors(uri):
            request = self._request_for(at, checks)
            if request.is_botos:
                return _etag(uri, self._client.upload_part(**arguments, Body=PartBody(body)))
        for attempt in retrying:
            with attempt, store_errors(uri):
                expects = attempt.retry_state.attempt_number > 1
                answer = self._answer_to(request.sign(number, body, checks, expects=expects), body)
                if answer.status_code < 300:
                    return _etag(uri, answer.headers)
                error = error_in(answer, _OPERATION)
                if error_status(error) >= 400 and error_code(error) not in _ELSEWHERE:
                    raise error
                # boto finds out where the bucket is, and remembers it for the next request that it makes for us.
                self._known.clear()
                return _etag(uri, self._client.upload_part(**arguments, Body=PartBody(body)))
        raise AssertionError("the last attempt returns or raises")

    def _answer_to(self, prepared: Any, body: memoryview) -> Any:
        answer = first_non_none_response(self._client.meta.events.emit("before-send.s3.UploadPart", request=prepared))
        if answer is None:
            # Time-outs hold for a whole sendall: of a whole part, a slow line would never send one.
            prepared.body = [body[start : start + _BLOCK] for start in range(0, len(body), _BLOCK)]
            # It reads the whole answer, which frees the connection.
            answer = self._session.send(prepared)
        return answer

    def _request_for(self, at: Mapping[str, str], checks: Mapping[str, str]) -> _Request:
        key = (*sorted(at.items()), *sorted(checks))
        if request := self._known.get(key):
            return request
        probe = _Probe(memoryview(b""))
        self._client.upload_part(**at, **checks, PartNumber=1, Body=probe, ContentLength=0)
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[key] = request = _Request(probe)
        return request


class _Probe(PartBody):
    """A body of a request that is not sent but kept."""

    request: Mapping[str, Any]
    """As boto would sign and send it."""
    signer: Any


def _keep_request(
    params: Mapping[str, Any], request_signer: Any, **_: Any
) -> tuple[AWSResponse, dict[str, Any]] | None:
    """Answer boto's ``before-call`` of a :class:`_Probe`, which keeps boto from sending it."""
    body = params.get("body")
    if not isinstance(body, _Probe):
        return None
    body.request, body.signer = params, request_signer
    return AWSResponse(params["url"], 200, {}, None), {}


class _Request:
    """boto's request for the parts of one upload."""

    def __init__(self, probe: _Probe) -> None:
        self._request = probe.request
        self._signer = probe.signer
        self.is_botos = bool(probe.request["context"].get("checksum", {}).get("request_algorithm"))
        """Whether boto adds a checksum of its own, which a connection can ask for: then it has to send the part."""

    def sign(self, number: int, body: memoryview, checks: Mapping[str, str], *, expects: bool) -> Any:
        """Return the request of one part, signed as of now.

        :param expects: wait for the store's leave before the bytes go out. That takes a round trip, but shows a
            refusal to which the store closes the connection while we send.
        """
        path = str(self._request["url"]).partition("?")[0]
        query = percent_encode_sequence({**self._request["query_string"], "partNumber": number})
        own = {_HEADERS[name]: value for name, value in checks.items()}
        headers = {**self._request["headers"], **own, "Content-Length": str(len(body))}
        reservation = headers.pop("Expect", None)
        context = self._request["context"]
        made = {
            "url": f"{path}?{query}",
            "headers": headers,
            # A connection can have it signed, so boto's signer has to be able to read it.
            "body": PartBody(body),
            "context": {**context, "signing": dict(context.get("signing", {}))},
        }
        request = create_request_object({**self._request, **made})
        self._signer.sign(_OPERATION, request)
        prepared = request.prepare()
        if expects and reservation:
            # botocore's connection waits only where the value is bytes.
            prepared.headers["Expect"] = reservation.encode()
        return prepared


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _etag(uri: str, answer: Mapping[str, Any]) -> str:
    if etag := str(answer.get("ETag", "")).strip('"'):
        return etag
    raise StorageUnavailableError(f"{uri}: {_OPERATION} answered without an ETag")
