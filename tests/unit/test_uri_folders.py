"""The folder that objects have in common."""

from __future__ import annotations

import pytest

from livekit_backup.core.uri_folders import common_folder


@pytest.mark.parametrize(
    ("keys", "folder"),
    [
        (["a/b/1.ts"], "a/b/"),
        (["a/b/1.ts", "a/b/2.ts"], "a/b/"),
        (["a/b/1.ts", "a/bc/2.ts"], "a/"),
        (["a/b/1.ts", "a/b.ts"], "a/"),
        (["a/b/c/1", "a/b/2"], "a/b/"),
        (["x/1", "y/1", "x/2"], ""),
        (["1", "2"], ""),
    ],
)
def test_it_ends_at_a_slash_that_all_share(keys, folder):
    assert common_folder(f"s3://bucket/{key}" for key in keys) == ("bucket", folder)
