"""The manifest of an egress."""

from __future__ import annotations

import pytest

from livekit_backup.models.manifest import Manifest, ManifestFile, ManifestPlaylist


@pytest.mark.parametrize("model", [ManifestFile, ManifestPlaylist])
def test_the_signed_link_wins(model):
    both = model.model_validate({"location": "https://x/a", "presigned_url": "https://x/a?sig=1"})
    assert both.link.get_secret_value() == "https://x/a?sig=1"
    one = model.model_validate({"location": "https://x/a", "presignedUrl": None})
    assert one.link.get_secret_value() == "https://x/a"
    assert model().link.get_secret_value() == ""


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"room_id": "RM"},
        {"files": []},
        {"egress_id": ""},
        [],
        "text",
        5,
        None,
        {"files": {}},
        {"files": [5]},
    ],
)
def test_what_is_no_manifest(value):
    with pytest.raises(ValueError, match=r"Manifest"):
        Manifest.model_validate(value)


def test_timestamps_in_any_form():
    for form in (1732203049646670800, "1732203049646670800", 1.7322030496466708e18, "1.7322030496466708e+18"):
        assert Manifest.model_validate({"egress_id": "EG_1", "started_at": form}).started_at == 1732203049646670800


def test_segments_keep_the_order_of_their_upload():
    manifest = Manifest.model_validate(
        {"playlists": [{"location": "p", "segments": [{"filename": "2"}, {"filename": "1"}]}]}
    )
    assert [segment.filename for segment in manifest.playlists[0].segments] == ["2", "1"]


def test_links_are_never_shown():
    manifest = Manifest.model_validate({"files": [{"filename": "a", "location": "https://x/a?sig=secret"}]})
    assert "secret" not in f"{manifest!r}{manifest.model_dump_json()}"
