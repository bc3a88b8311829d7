"""Which tokens LiveKit signed: its own sender's, read again years later, and everything that only looks like one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core.webhook_tokens import LEEWAY, MAX_HEADER, Refusal, read_token, verify, verify_stored
from livekit_backup.errors import PermanentError, WebhookRefusedError
from livekit_backup.models.stored_webhook import EventSource, StoredWebhook
from livekit_backup.testing.webhook_sender import sign_webhook

NOW = datetime(2026, 11, 23, 13, 59, 30, tzinfo=UTC)
SECRET = "a-secret-of-more-than-thirty-two-bytes"
KEYS = {"APIone": SECRET, "APItwo": "another-secret-of-more-than-32-bytes"}
BODY = b'{"event":"egress_ended","egressInfo":{"egressId":"EG_1"}}'


def signed(body: bytes = BODY, key: str = "APIone", secret: str = SECRET, at: datetime = NOW, **claims: object) -> str:
    return sign_webhook(body, key, secret, at=at, **claims)


def part(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**other: object) -> dict:
    made = int(NOW.timestamp())
    digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    return {"iss": "APIone", "nbf": made, "iat": made, "exp": made + 300, "sha256": digest, **other}


def made_by_hand(header: object, payload: object, secret: str = SECRET) -> str:
    """A token as somebody who knows the secret could make it, whatever its parts are."""
    unsigned = f"{part(header)}.{part(payload)}"
    return f"{unsigned}.{part(hmac.new(secret.encode(), unsigned.encode(), hashlib.sha256).digest())}"


def refusal(authorization: str, body: bytes = BODY, at: datetime = NOW, keys: dict | None = None) -> str:
    with pytest.raises(WebhookRefusedError) as caught:
        verify(authorization, body, KEYS if keys is None else keys, at)
    assert isinstance(caught.value, PermanentError)
    assert SECRET not in str(caught.value)
    assert not authorization.strip() or authorization not in str(caught.value)
    return caught.value.reason


def test_livekits_token_is_accepted_with_and_without_bearer():
    assert verify(signed(), BODY, KEYS, NOW) == "APIone"
    assert verify(f"Bearer {signed()}", BODY, KEYS, NOW) == "APIone"
    assert verify(f"bearer  {signed()} ", BODY, KEYS, NOW) == "APIone"


def test_each_key_has_its_own_secret():
    assert verify(signed(key="APItwo", secret=KEYS["APItwo"]), BODY, KEYS, NOW) == "APItwo"
    assert refusal(signed(key="APItwo", secret=SECRET)) == Refusal.SIGNATURE


def test_a_short_secret_is_livekits_business_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        token = signed(key="devkey", secret="secret")
    assert verify(token, BODY, {"devkey": "secret"}, NOW) == "devkey"


def test_a_secret_that_looks_like_another_kind_of_key_is_still_a_secret():
    for secret in ('{"kty": "RSA"}', "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----"):
        assert verify(made_by_hand({"alg": "HS256"}, claims(), secret), BODY, {"APIone": secret}, NOW) == "APIone"


def test_times_are_judged_at_the_given_moment_with_a_minute_of_leeway():
    token = signed()
    edge = timedelta(seconds=1)
    assert verify(token, BODY, KEYS, NOW - LEEWAY)
    assert refusal(token, at=NOW - LEEWAY - edge) == Refusal.EARLY
    assert verify(token, BODY, KEYS, NOW + timedelta(minutes=5) + LEEWAY - edge)
    assert refusal(token, at=NOW + timedelta(minutes=5) + LEEWAY) == Refusal.EXPIRED


def test_no_nbf_is_no_fault():
    assert verify(signed(nbf=None, iat=None), BODY, KEYS, NOW) == "APIone"


WRONG = {
    "empty": ("", Refusal.MISSING),
    "blank": ("  ", Refusal.MISSING),
    "bearer_alone": ("Bearer", Refusal.MALFORMED),
    "not_a_token": ("letmein", Refusal.MALFORMED),
    "two_parts": ("a.b", Refusal.MALFORMED),
    "no_base64": ("!.!.!", Refusal.MALFORMED),
    "basic": ("Basic QVBJb25lOnNlY3JldA==", Refusal.MALFORMED),
    "not_ascii": (signed() + "é", Refusal.MALFORMED),
    "too_long": ("a" * (MAX_HEADER + 1), Refusal.MALFORMED),
    "signed_and_too_long": (signed(name="x" * MAX_HEADER), Refusal.MALFORMED),
    "none": (f"{part({'alg': 'none'})}.{part(claims())}.", Refusal.ALGORITHM),
    "none_signed": (made_by_hand({"alg": "none"}, claims()), Refusal.ALGORITHM),
    "other_case": (made_by_hand({"alg": "hs256"}, claims()), Refusal.ALGORITHM),
    "rs256": (made_by_hand({"alg": "RS256"}, claims()), Refusal.ALGORITHM),
    "hs512": (made_by_hand({"alg": "HS512"}, claims()), Refusal.ALGORITHM),
    "no_algorithm": (made_by_hand({"typ": "JWT"}, claims()), Refusal.ALGORITHM),
    "algorithm_is_a_list": (made_by_hand({"alg": ["HS256"]}, claims()), Refusal.ALGORITHM),
    "crit": (made_by_hand({"alg": "HS256", "crit": ["exp"], "exp": 1}, claims()), Refusal.MALFORMED),
    "crit_b64": (made_by_hand({"alg": "HS256", "crit": ["b64"], "b64": True}, claims()), Refusal.MALFORMED),
    "detached": (made_by_hand({"alg": "HS256", "crit": ["b64"], "b64": False}, b""), Refusal.MALFORMED),
    "header_is_a_list": (made_by_hand([], claims()), Refusal.MALFORMED),
    "claims_are_a_list": (made_by_hand({"alg": "HS256"}, []), Refusal.MALFORMED),
    "claims_are_no_json": (made_by_hand({"alg": "HS256"}, b"\xff"), Refusal.MALFORMED),
    "claims_nest_deeply": (made_by_hand({"alg": "HS256"}, b"[" * 4000), Refusal.MALFORMED),
    "claims_hold_a_huge_number": (made_by_hand({"alg": "HS256"}, b'{"exp": ' + b"9" * 5000 + b"}"), Refusal.MALFORMED),
    "no_issuer": (signed(iss=None), Refusal.UNKNOWN_KEY),
    "issuer_is_a_number": (made_by_hand({"alg": "HS256"}, claims(iss=7)), Refusal.UNKNOWN_KEY),
    "issuer_is_a_list": (made_by_hand({"alg": "HS256"}, claims(iss=["APIone"])), Refusal.UNKNOWN_KEY),
    "unknown_issuer": (signed(key="APIother"), Refusal.UNKNOWN_KEY),
    "wrong_secret": (signed(secret="some-other-secret-of-more-than-32-bytes"), Refusal.SIGNATURE),
    "signature_cut": (signed()[:-3], Refusal.SIGNATURE),
    "no_signature": (signed().rpartition(".")[0] + ".", Refusal.SIGNATURE),
    "expired": (signed(at=NOW - timedelta(hours=1)), Refusal.EXPIRED),
    "of_tomorrow": (signed(at=NOW + timedelta(days=1)), Refusal.EARLY),
    "nbf_is_text": (signed(nbf="now"), Refusal.EARLY),
    "no_expiry": (signed(exp=None), Refusal.NO_EXPIRY),
    "expiry_is_text": (signed(exp="4102444800"), Refusal.NO_EXPIRY),
    "expiry_is_true": (signed(exp=True), Refusal.NO_EXPIRY),
    "expiry_is_infinite": (
        made_by_hand({"alg": "HS256"}, b'{"iss":"APIone","sha256":"x","exp":Infinity}'),
        Refusal.NO_EXPIRY,
    ),
    "expiry_is_nan": (made_by_hand({"alg": "HS256"}, b'{"iss":"APIone","sha256":"x","exp":NaN}'), Refusal.NO_EXPIRY),
    "expiry_does_not_fit": (made_by_hand({"alg": "HS256"}, claims(exp=10**400)), Refusal.NO_EXPIRY),
    "no_digest": (signed(sha256=None), Refusal.BODY),
    "digest_is_a_list": (made_by_hand({"alg": "HS256"}, claims(sha256=[])), Refusal.BODY),
    "digest_is_not_ascii": (signed(sha256="é" * 44), Refusal.BODY),
    "digest_is_hexadecimal": (signed(sha256=hashlib.sha256(BODY).hexdigest()), Refusal.BODY),
    "digest_of_another_body": (signed(b"{}"), Refusal.BODY),
}


@pytest.mark.parametrize("name", WRONG)
def test_refused(name):
    authorization, reason = WRONG[name]
    assert refusal(authorization) == reason


def test_altered_claims_do_not_hold():
    header, payload, signature = signed().split(".")
    altered = part({**json.loads(base64.urlsafe_b64decode(payload + "==")), "exp": 4102444800})
    assert refusal(f"{header}.{altered}.{signature}") == Refusal.SIGNATURE


@pytest.mark.parametrize("body", [b"", BODY + b" ", BODY.replace(b"EG_1", b"EG_2"), b"\xff\xfe"])
def test_other_bytes_than_were_signed(body):
    assert refusal(signed(), body) == Refusal.BODY


def test_an_empty_secret_signs_nothing():
    assert refusal(made_by_hand({"alg": "HS256"}, claims(), ""), keys={"APIone": ""}) == Refusal.UNKNOWN_KEY


def test_when_it_was_made():
    assert set(read_token(signed(), KEYS, NOW).made_at) == {NOW}
    assert read_token(signed(iat=None, nbf=None), KEYS, NOW).made_at == (NOW,)
    far = made_by_hand({"alg": "HS256"}, claims(iat=10**18, nbf=0))
    assert read_token(far, KEYS, NOW).made_at == (datetime(1970, 1, 1, tzinfo=UTC), NOW)


def stored(**other: object) -> StoredWebhook:
    year_ago = NOW - timedelta(days=365)
    own = {
        "source": EventSource.WEBHOOK,
        "received_at": year_ago + timedelta(seconds=20),
        "signed_with": "APIone",
        "authorization": signed(at=year_ago),
        "body": BODY.decode(),
    }
    return StoredWebhook(**{**own, **other})


def test_what_was_received_a_year_ago_verifies_again():
    again = StoredWebhook.model_validate_json(stored().model_dump_json())
    assert verify_stored(again, KEYS) == "APIone"


@pytest.mark.parametrize(
    ("altered", "reason"),
    [
        ({"body": BODY.decode().replace("EG_1", "EG_2")}, Refusal.BODY),
        ({"body": BODY.decode() + " "}, Refusal.BODY),
        ({"received_at": NOW}, Refusal.EXPIRED),
        ({"received_at": NOW - timedelta(days=400)}, Refusal.EARLY),
        ({"signed_with": "APItwo"}, Refusal.UNKNOWN_KEY),
        ({"authorization": ""}, Refusal.MISSING),
        ({"authorization": signed(key="APItwo", at=NOW - timedelta(days=365))}, Refusal.SIGNATURE),
    ],
    ids=["body", "space", "later", "earlier", "key", "no_token", "other_token"],
)
def test_altered_evidence_does_not_verify(altered, reason):
    with pytest.raises(WebhookRefusedError) as caught:
        verify_stored(stored(**altered), KEYS)
    assert caught.value.reason == reason
