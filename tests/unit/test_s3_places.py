"""Keys that a location must not name, and the names of endpoints."""

from __future__ import annotations

import pytest

from livekit_backup.core.locations import Location
from livekit_backup.hooks.s3_places import S3Place

AWS = S3Place("https://s3.eu-west-1.amazonaws.com")
MINIO = S3Place("http://minio.acme.internal:9000")


@pytest.mark.parametrize(
    "path",
    [
        "../other/secret",
        "a/../b",
        "a/..",
        "./a",
        "a/./b",
        "..",
        "%2e%2e/other/secret",
        "%2E%2e%2Fother%2Fsecret",
        ".%2e/other",
        "a%2f..%2fb",
        "a/%2e",
    ],
)
def test_a_key_that_climbs_is_none(path):
    assert AWS.uri_of(Location(f"https://acme.s3.amazonaws.com/{path}")) is None
    assert AWS.uri_of(Location(f"https://s3.amazonaws.com/acme/{path}")) is None
    assert MINIO.uri_of(Location(f"http://minio.acme.internal:9000/acme/{path}")) is None


@pytest.mark.parametrize("path", ["..a/b", "a../.b", "a...b", ".../b", "a/.b/c.", "%252e%252e/b"])
def test_dots_within_a_name_are_dots(path):
    assert AWS.uri_of(Location(f"https://acme.s3.amazonaws.com/{path}")) == f"s3://acme/{path.replace('%25', '%')}"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com:443"),
        ("https://S3.acme/", "https://s3.acme:443"),
        ("http://key:hush@minio.acme:9000/s3/?token=hush", "http://minio.acme:9000/s3"),
        ("http://[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_the_name_of_a_place_has_no_secret(url, name):
    assert S3Place(url).name == name
