"""The connection of type LiveKit: what it is made of, what is said where it lacks something, and what stays secret."""

from __future__ import annotations

import asyncio
import json

import pytest

from livekit_backup.core.livekit_api import LiveKitApi
from livekit_backup.errors import ConfigurationError
from livekit_backup.hooks import livekit as livekit_hook
from livekit_backup.hooks.livekit import LiveKitHook
from livekit_backup.testing.fake_api import API_KEYS

[(KEY, SECRET)] = API_KEYS.items()
OTHER = "another-secret-of-more-than-32-characters"


@pytest.fixture
def connect(monkeypatch):
    def connect(text=None, /, conn_id="livekit_default", **parts):
        whole = {"conn_type": "livekit", "login": KEY, "password": SECRET, "host": "https://acme.livekit.cloud"}
        whole = {name: value for name, value in (whole | parts).items() if value is not None}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", text or json.dumps(whole))
        return LiveKitHook(conn_id)

    return connect


@pytest.mark.parametrize(
    ("parts", "address"),
    [
        ({}, "https://acme.livekit.cloud"),
        ({"host": "acme.livekit.cloud"}, "https://acme.livekit.cloud"),
        ({"host": " wss://acme.livekit.cloud/ "}, "https://acme.livekit.cloud"),
        ({"host": "acme.livekit.cloud", "schema": "wss", "port": 443}, "https://acme.livekit.cloud:443"),
        ({"host": "livekit.internal", "schema": "http", "port": 7880}, "http://livekit.internal:7880"),
        ({"host": "livekit.internal:7880", "schema": "ws"}, "http://livekit.internal:7880"),
        ({"host": "ws://livekit.internal:7880", "port": 1}, "http://livekit.internal:7880"),
        ({"host": "https://proxy.internal/livekit/", "port": 8443}, "https://proxy.internal:8443/livekit"),
        ({"host": "http://[::1]:7880"}, "http://[::1]:7880"),
    ],
)
def test_the_address_as_a_person_fills_it_in(connect, parts, address):
    api = connect(**parts).get_conn()
    assert (api.address, api.api_key) == (address, KEY)


def test_a_connection_as_a_uri(connect):
    api = connect(f"livekit://{KEY}:{SECRET}@https%3A%2F%2Facme.livekit.cloud").get_conn()
    assert (api.address, api.api_key) == ("https://acme.livekit.cloud", KEY)
    assert connect(f"livekit://{KEY}:{SECRET}@acme.livekit.cloud/").get_conn().address == "https://acme.livekit.cloud"


def test_a_connection_that_is_not_there_is_named_with_how_to_make_it():
    hook = LiveKitHook("livekit_eu")
    for call in (hook.get_conn, hook.signing_keys, lambda: list(hook.list_egress())):
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert "no Airflow connection 'livekit_eu'" in str(caught.value)
        assert 'AIRFLOW_CONN_LIVEKIT_EU=\'{"conn_type": "livekit"' in str(caught.value)
    with pytest.raises(ConfigurationError, match="no Airflow connection 'livekit_eu'"):
        asyncio.run(anext(hook.alist_egress()))
    worked, message = hook.test_connection()
    assert not worked
    assert "no Airflow connection 'livekit_eu'" in message


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"host": None}, "has no URL (host)"),
        ({"login": None, "password": None}, "has no API key (login) and no API secret (password)"),
        ({"password": "  "}, "has no API secret (password)"),
        ({"host": "ftp://acme.livekit.cloud"}, "has none of the schemes https, wss, http and ws"),
        ({"host": "https://me:hidden@acme.livekit.cloud"}, "comes with a user, query or fragment"),
        ({"host": "https://acme.livekit.cloud/?token=hidden"}, "comes with a user, query or fragment"),
        ({"host": "https://acme..livekit.cloud"}, "is not the URL of a server"),
        ({"host": "https://acme.livekit.cloud:port"}, "malformed URL"),
        ({"host": "https://["}, "malformed URL"),
        ({"host": "my project"}, "is not the URL of a server"),
        ({"password": "-----BEGIN RSA PRIVATE KEY-----\nhidden\n-----END RSA PRIVATE KEY-----"}, "none of LiveKit's"),
    ],
)
def test_what_it_lacks_is_said_and_no_secret(connect, parts, words):
    with pytest.raises(ConfigurationError) as caught:
        connect(**parts).get_conn()
    text = str(caught.value)
    assert text.startswith("the Airflow connection 'livekit_default' ")
    assert words in text
    assert "hidden" not in text
    assert SECRET not in text


@pytest.mark.parametrize("written", [dict, json.dumps], ids=["object", "text of the form"])
def test_keys_that_sign_webhooks(connect, written):
    extra = json.dumps({"webhook_secrets": written({"APIold": f" {OTHER} "})})
    assert connect(extra=extra).signing_keys() == {KEY: SECRET, "APIold": OTHER}
    assert connect(extra=extra, login=None, password=None, host=None).signing_keys() == {"APIold": OTHER}
    assert connect().signing_keys() == {KEY: SECRET}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"login": None, "password": None}, "has no API key and secret"),
        ({"password": None}, "has an API key (login) without its secret"),
        ({"login": None}, "or a secret without its key"),
        ({"extra": 'hidden {"webhook_secrets": {"APIold": "hidden"}}'}, "has an extra that is no JSON object"),
        ({"extra": '["hidden"]'}, "has an extra that is no JSON object"),
        ({"extra": '{"webhook_secrets": "hidden"}'}, "has webhook_secrets that are no JSON object"),
        ({"extra": '{"webhook_secrets": ["hidden"]}'}, "has webhook_secrets that are no JSON object"),
        ({"extra": '{"webhook_secrets": {"APIold": ["hidden"]}}'}, "has webhook_secrets that are no JSON object"),
        ({"extra": '{"webhook_secrets": {"APIold": ""}}'}, "has webhook_secrets that are no JSON object"),
        ({"extra": '{"webhook_secrets": {"": "hidden"}}'}, "has webhook_secrets that are no JSON object"),
    ],
)
def test_keys_that_cannot_be_read(connect, parts, words):
    with pytest.raises(ConfigurationError) as caught:
        connect(**parts).signing_keys()
    assert words in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_secrets_are_masked_in_logs(connect):
    from airflow.sdk.log import redact

    connect(extra=json.dumps({"webhook_secrets": {"APIold": OTHER}})).signing_keys()
    assert SECRET not in str(redact(f"the secret is {SECRET}"))
    assert OTHER not in str(redact(f"the secret is {OTHER}"))


def test_airflows_api_masks_the_secrets_of_the_form():
    from airflow._shared.secrets_masker import redact

    shown = json.dumps(redact({livekit_hook.WEBHOOK_SECRETS: {"APIold": "hidden-away"}}))
    assert "hidden-away" not in shown


def test_no_repr_shows_a_secret(connect):
    hook = connect()
    assert SECRET not in f"{hook!r} {hook.get_conn()!r} {vars(hook)!r}"
    assert KEY in repr(hook.get_conn())


def test_the_hook_of_a_connection_is_ours(connect):
    from airflow.sdk import BaseHook

    connect(conn_id="livekit_eu")
    hook = BaseHook.get_hook("livekit_eu")
    assert type(hook) is LiveKitHook
    assert hook.livekit_conn_id == "livekit_eu"
    assert isinstance(hook.get_conn(), LiveKitApi)
