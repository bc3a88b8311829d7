"""Verifies LiveKit's webhook tokens, today's and those of evidence that was stored years ago.

A token is a JWT in the Authorization header, HS256 by the secret of the API key that ``iss`` names, with
``nbf``, ``exp`` and the SHA-256 of the very body. Source: livekit/protocol, ``auth`` and ``webhook``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from jwt.algorithms import HMACAlgorithm
from jwt.api_jws import PyJWS
from jwt.exceptions import InvalidTokenError

from livekit_backup.errors import WebhookRefusedError
from livekit_backup.models.stored_webhook import StoredWebhook

LEEWAY = timedelta(seconds=60)
"""By which clocks may differ."""
LIFETIME = timedelta(minutes=5)
"""Of LiveKit's tokens."""
MAX_HEADER = 8192
"""LiveKit's have about 300 characters; a longer one would only cost time."""
_ALGORITHM = "HS256"


class Refusal(StrEnum):
    """Why a webhook is refused; for metrics and logs, never for whoever sent it."""

    MISSING = "missing_token"
    MALFORMED = "malformed_token"
    ALGORITHM = "other_algorithm"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "wrong_signature"
    EXPIRED = "expired"
    EARLY = "not_yet_valid"
    NO_EXPIRY = "no_expiry"
    BODY = "other_body"


@dataclass(frozen=True)
class WebhookToken:
    """A token whose signature and times hold; whether it is of the body is another question."""

    api_key: str
    body_digest: str
    """SHA-256 of the body it was made for, standard base64."""
    made_at: tuple[datetime, ...]
    """When it was made, by ``iat``, ``nbf`` and ``exp``, as far as they say so."""

    def check_body(self, body: bytes) -> None:
        """Compare the digest. :raises WebhookRefusedError: these are other bytes than were signed."""
        digest = base64.b64encode(hashlib.sha256(body).digest())
        if not hmac.compare_digest(digest, self.body_digest.encode(errors="replace")):
            raise _refused(Refusal.BODY, "the token was made for another body")


def verify(authorization: str, body: bytes, keys: Mapping[str, str], at: datetime) -> str:
    """Return the API key that signed a webhook.

    :param authorization: the header, with or without "Bearer ".
    :param keys: the secret of each API key.
    :param at: the moment at which the token's times are judged.
    :raises WebhookRefusedError: LiveKit did not sign this, not then, or not these bytes.
    """
    token = read_token(authorization, keys, at)
    token.check_body(body)
    return token.api_key


def verify_stored(stored: StoredWebhook, keys: Mapping[str, str]) -> str:
    """Verify a stored event again, its times judged when it was received, and return the API key that signed it.

    :raises WebhookRefusedError: it is not what was received then.
    """
    body = stored.body.encode(errors="surrogatepass")
    api_key = verify(stored.authorization, body, keys, stored.received_at)
    if api_key != stored.signed_with:
        raise _refused(Refusal.UNKNOWN_KEY, "another API key signed it than is recorded")
    return api_key


def read_token(authorization: str, keys: Mapping[str, str], at: datetime) -> WebhookToken:
    """Verify all of a token but the body it was made for, so that a body need not be read in vain.

    :raises WebhookRefusedError: LiveKit did not sign it, or not for this moment.
    """
    token = _bare(authorization)
    try:
        # Taken apart once: which secret it is signed with stands in what it signs.
        parts = _JWS.decode_complete(token, options={"verify_signature": False})
        claims = json.loads(parts["payload"])
    except (InvalidTokenError, ValueError, RecursionError):
        raise _refused(Refusal.MALFORMED, "the header holds no JWT") from None
    if not isinstance(claims, dict) or "crit" in parts["header"]:
        raise _refused(Refusal.MALFORMED, "the token has no claims, or asks for extensions of JWT")
    if parts["header"].get("alg") != _ALGORITHM:
        raise _refused(Refusal.ALGORITHM, f"the token is not signed by {_ALGORITHM}")
    issuer = claims.get("iss")
    secret = keys.get(issuer) if isinstance(issuer, str) else None
    # An empty secret would let anybody sign.
    if not isinstance(issuer, str) or not secret:
        raise _refused(Refusal.UNKNOWN_KEY, "the token names no API key that is known here")
    if not _HS256.verify(token.rpartition(".")[0].encode(), secret.encode(), parts["signature"]):
        raise _refused(Refusal.SIGNATURE, "the token's signature does not hold")
    digest = claims.get("sha256")
    if not isinstance(digest, str) or not digest:
        raise _refused(Refusal.BODY, "the token was made for no body")
    _check_times(claims, at.timestamp())
    return WebhookToken(issuer, digest, tuple(_times_of_making(claims)))


def _bare(authorization: str) -> str:
    """Return the header's token, if it can be one."""
    if not authorization.strip():
        raise _refused(Refusal.MISSING, "there is no Authorization header")
    if len(authorization) > MAX_HEADER or not authorization.isascii():
        raise _refused(Refusal.MALFORMED, "the header is too long, or not ASCII")
    scheme, _, rest = authorization.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else authorization.strip()


def _check_times(claims: Mapping[str, Any], at: float) -> None:
    leeway = LEEWAY.total_seconds()
    expiry = _seconds(claims.get("exp"))
    if expiry is None:
        raise _refused(Refusal.NO_EXPIRY, "the token does not say when it expires")
    if at >= expiry + leeway:
        raise _refused(Refusal.EXPIRED, "the token's time is over")
    if "nbf" in claims:
        start = _seconds(claims["nbf"])
        if start is None or at < start - leeway:
            raise _refused(Refusal.EARLY, "the token's time has not begun")


def _times_of_making(claims: Mapping[str, Any]) -> list[datetime]:
    lifetime = LIFETIME.total_seconds()
    told = (_seconds(claims.get("iat")), _seconds(claims.get("nbf")), _seconds(claims.get("exp")))
    times = [told[0], told[1], None if told[2] is None else told[2] - lifetime]
    found = []
    for seconds in times:
        try:
            if seconds is not None:
                found.append(datetime.fromtimestamp(seconds, UTC))
        except (OverflowError, ValueError, OSError):
            continue
    return found


def _seconds(value: object) -> float | None:
    """Read a JWT's time, which is a number and nothing else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _refused(reason: Refusal, message: str) -> WebhookRefusedError:
    return WebhookRefusedError(message, reason)


_JWS = PyJWS(algorithms=[_ALGORITHM])
_HS256 = HMACAlgorithm(HMACAlgorithm.SHA256)
"""Asked directly: ``PyJWS`` warns of secrets under 32 bytes, and refuses those that look like asymmetric keys, which no
secret of LiveKit's is. No other algorithm is accepted here, so none can be mistaken for another."""
