"""URIs of objects."""

from __future__ import annotations

import pytest

from livekit_backup.core.storage import ObjectStore, join_uri, split_uri
from unit.fakes import MemoryStore


@pytest.mark.parametrize(
    ("parts", "uri"),
    [
        (("s3://b", "k"), "s3://b/k"),
        (("s3://b/", "/k/"), "s3://b/k"),
        (("s3://b/p", "a/b", "c"), "s3://b/p/a/b/c"),
        (("s3://b",), "s3://b"),
    ],
)
def test_join(parts, uri):
    assert join_uri(*parts) == uri


@pytest.mark.parametrize(
    ("uri", "parts"),
    [("s3://b/a/k", ("b", "a/k")), ("s3://b", ("b", "")), ("s3://b/", ("b", "")), ("s3://b//k", ("b", "/k"))],
)
def test_split(uri, parts):
    assert split_uri(uri) == parts


def test_the_fake_is_a_store():
    assert isinstance(MemoryStore(), ObjectStore)
