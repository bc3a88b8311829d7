"""Where files land, and what names are refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.landing_keys import MAX_KEY_BYTES, clean_filename, landing_uri
from livekit_backup.core.wording import quoted
from livekit_backup.errors import RefusedError
from livekit_backup.models.references import FileKind

DEFAULT = "dt={started:%Y-%m-%d}/{egress_id}/{filename}"


def _land(filename="a.mp4", template="{filename}", **changes):
    values = {
        "warehouse": "s3://b/out",
        "ledger": "s3://b/out/_livekit_backup",
        "kind": FileKind.FILE,
        "egress_id": "EG_1",
        "run": 1732135319356232371,
        "started": datetime(2024, 11, 20, 20, 41, 59, tzinfo=UTC),
        "room_name": "A room",
        "room_id": "RM_1",
        **changes,
    }
    return landing_uri(values.pop("warehouse"), values.pop("ledger"), template, filename=filename, **values)


@pytest.mark.parametrize(
    ("filename", "clean"),
    [
        ("a.mp4", "a.mp4"),
        ("dir/a.mp4", "dir/a.mp4"),
        ("/dir/a.mp4", "dir/a.mp4"),
        ("//dir///a.mp4", "dir/a.mp4"),
        ("ünï/会議 日本.mp4", "ünï/会議 日本.mp4"),
        ("with space/a+b%20c.mp4", "with space/a+b%20c.mp4"),
        ("...", "..."),
        ("..a/b..", "..a/b.."),
        (".hidden", ".hidden"),
        ("a{b}.mp4", "a{b}.mp4"),
        ("{egress_id}", "{egress_id}"),
        ("a?b#c.mp4", "a?b#c.mp4"),
        ("C:\\rec\\a.mp4", "C:\\rec\\a.mp4"),
    ],
)
def test_clean_names(filename, clean):
    assert clean_filename(filename) == clean


@pytest.mark.parametrize(
    "filename",
    [
        "", "/", "//", "dir/", "..", ".", "../a", "a/../b", "a/..", "./a", "a/./b", "/../a", "..\\a", "a\\..\\b", "a/..\\b",
        "a\nb", "a\rb", "a\x00b", "a\x1b[31mb", "a\x7fb", "a\u202eb", "a\u2066b", "a\u2028b", "a\u2029b", "a\ud800b",
        "a\u200bb", "\ufeffa", "a\x85b",
    ],
)  # fmt: skip
def test_refused_names(filename):
    with pytest.raises(RefusedError) as caught:
        clean_filename(filename)
    assert str(caught.value).isprintable()


@given(st.text(max_size=40))
def test_a_clean_name_stays_below_its_prefix(filename):
    try:
        clean = clean_filename(filename)
    except RefusedError:
        return
    assert clean_filename(clean) == clean
    assert not clean.startswith("/")
    assert not {"", ".", ".."} & set(clean.split("/"))
    assert "\n" not in clean


@given(st.text(max_size=300), st.integers(0, 50))
def test_printable_is(text, limit):
    shown = quoted(text, limit)
    assert shown.isprintable()
    assert shown[0] == shown[-1] == "'"
    assert len(shown) <= 3 + 7 * limit


def test_the_default_template():
    assert _land("dir/a.mp4", DEFAULT) == "s3://b/out/dt=2024-11-20/EG_1/dir/a.mp4"


def test_every_field():
    template = "{kind}/{room_name}/{room_id}/{started_at}/{started:%H}/{egress_id}/{filename}"
    assert _land("a.mp4", template) == "s3://b/out/file/A room/RM_1/1732135319356232371/20/EG_1/a.mp4"


def test_the_filename_alone_restores_what_was_asked_for():
    assert _land("recordings/2024/a.mp4", warehouse="s3://b") == "s3://b/recordings/2024/a.mp4"


def test_names_are_no_templates():
    assert _land("{ledger}{0.__class__}.mp4") == "s3://b/out/{ledger}{0.__class__}.mp4"
    assert _land(room_name="{ledger}", template="{room_name}/{filename}") == "s3://b/out/_ledger_/a.mp4"


@pytest.mark.parametrize(
    ("room", "segment"),
    [
        ("Stand-up 9.30", "Stand-up 9.30"),
        ("a/b", "a_b"),
        ("../..", ".._.."),
        ("..", "_"),
        (".", "_"),
        (" . ", "_"),
        ("", "_"),
        ("  ", "_"),
        ("a\nb\x00", "a_b_"),
        ("a\u202eb", "a_b"),
        ("会議", "会議"),
        ("a\\b", "a_b"),
        ("?#%", "___"),
    ],
)
def test_rooms_are_one_segment(room, segment):
    for field in ("room_name", "room_id"):
        assert _land(template=f"{{{field}}}/{{filename}}", **{field: room}) == f"s3://b/out/{segment}/a.mp4"


@given(st.text(max_size=30))
def test_any_room_is_one_harmless_segment(room):
    # A room called as the ledger's folder is refused, which is another test's.
    key = _land(room_name=room, template="{room_name}/{filename}", ledger="s3://b/ledger").removeprefix("s3://b/out/")
    first, _, rest = key.partition("/")
    assert rest == "a.mp4"
    assert first not in ("", ".", "..")
    assert first.isprintable()


def test_a_key_has_a_limit_in_bytes():
    fits = "é" * ((MAX_KEY_BYTES - len("out/")) // 2)
    assert _land(fits).endswith(fits)
    with pytest.raises(RefusedError, match="over 1024 bytes"):
        _land(f"{fits}é")


@pytest.mark.parametrize(
    "filename",
    ["_livekit_backup/files/x.json", "/_livekit_backup/x", "_livekit_backup", "//_livekit_backup//runs/x"],
)
def test_the_ledger_is_not_a_place_to_land(filename):
    with pytest.raises(RefusedError, match="in the ledger"):
        _land(filename)


def test_what_only_looks_like_the_ledger_lands():
    assert _land("_livekit_backup2/x") == "s3://b/out/_livekit_backup2/x"
    assert _land("x/_livekit_backup/y") == "s3://b/out/x/_livekit_backup/y"
