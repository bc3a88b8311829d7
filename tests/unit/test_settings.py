"""Validated settings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core.landing_keys import landing_uri
from livekit_backup.models.landing_template import LANDING_FIELDS
from livekit_backup.models.references import FileKind
from livekit_backup.models.settings import Settings
from livekit_backup.models.upload_options import UploadOptions


def _settings(**changes):
    return Settings(**{"inbox": "s3://b/in", "warehouse": "s3://b/out", "ledger": "s3://b/ledger", **changes})


def test_a_slash_at_the_end_is_dropped():
    assert _settings(inbox="s3://b/in//").inbox == "s3://b/in"
    assert _settings(warehouse="s3://b/").warehouse == "s3://b"


@pytest.mark.parametrize("key", ["inbox", "warehouse", "ledger"])
@pytest.mark.parametrize(
    "uri", ["", "b/in", "s3://", "s3:///in", "s3a://b", "https://b/in", "file:///in", "s3:// b", "s3://b/in?x", "s3://b#x"]
)  # fmt: skip
def test_what_is_no_bucket(key, uri):
    with pytest.raises(ValueError, match="must be s3://bucket"):
        _settings(**{key: uri})


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{egress_id}", "must contain {filename}"),
        ("", "must contain {filename}"),
        ("{filename}/{color}", "color"),
        ("{filename.suffix}", "filename.suffix"),
        ("{filename[0]}", "filename"),
        ("{filename}{}", "unknown"),
        ("{filename}{0}", "unknown"),
        ("{filename", "format string"),
        ("filename}", "format string"),
    ],
)
def test_templates_that_cannot_be_used(template, problem):
    with pytest.raises(ValueError, match="landing_key") as caught:
        _settings(landing_key=template)
    assert problem in str(caught.value)


def test_every_field_may_stand_in_a_template():
    template = "/".join(f"{{{field}}}" for field in sorted(LANDING_FIELDS))
    assert _settings(landing_key=template).landing_key == template


@pytest.mark.parametrize(
    "template", ["{filename:d}", "{started_at:%Y}/{filename}", "{filename!x}", "{filename}{started:{color}}"]
)
def test_a_template_is_refused_or_can_be_used(template):
    try:
        settings = _settings(landing_key=template)
    except ValueError:
        return
    try:
        uri = landing_uri(
            settings.warehouse,
            settings.ledger,
            settings.landing_key,
            filename="a.mp4",
            kind=FileKind.FILE,
            egress_id="EG_1",
            run=1,
            started=datetime(2026, 1, 1, tzinfo=UTC),
            room_name="r",
            room_id="i",
        )
    except (KeyError, ValueError) as error:
        pytest.fail(f"accepted, then {error!r}")
    assert uri


def test_hosts_are_trimmed_and_lowered():
    assert _settings(allowed_hosts=(" *.AmazonAWS.com ", "", "Minio:9000")).allowed_hosts == (
        "*.amazonaws.com",
        "minio:9000",
    )


@pytest.mark.parametrize("hosts", [(), ("",), (" ",), ("*",), ("a.example", "*")])
def test_hosts_that_protect_nothing(hosts):
    with pytest.raises(ValueError, match="allowed_hosts"):
        _settings(allowed_hosts=hosts)


@pytest.mark.parametrize("host", ["**", "*:443", "?*", "*.*"])
def test_patterns_that_match_every_host(host):
    with pytest.raises(ValueError, match="allowed_hosts"):
        _settings(allowed_hosts=(host,))


def test_grace():
    assert _settings(grace=timedelta(0)).grace == timedelta(0)
    with pytest.raises(ValueError, match="0 or more"):
        _settings(grace=timedelta(seconds=-1))


def test_nothing_is_copied_or_asked_for_by_default():
    assert _settings().primary_conn_id is None
    assert _settings().upload_options == UploadOptions()


def test_upload_options():
    assert _settings(upload_options={"StorageClass": "STANDARD_IA"}).upload_options.StorageClass == "STANDARD_IA"
    with pytest.raises(ValueError, match="lifecycle rule"):
        _settings(upload_options={"StorageClass": "GLACIER"})
    with pytest.raises(ValueError, match="unknown key 'Body'"):
        _settings(upload_options={"Body": "x"})
