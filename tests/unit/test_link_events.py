"""A link that a person has becomes an event that leads to the same recording."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from livekit_backup.core.inbox import parse_event
from livekit_backup.core.link_events import event_of_link
from livekit_backup.errors import LinkExpiredError, RefusedError, SourceUnavailableError
from livekit_backup.models.manifest import Manifest
from livekit_backup.models.stored_webhook import EventSource
from unit.fakes import BACKUP, OWN, SIGNED, signed

NOW = datetime.now(UTC).replace(microsecond=0)
FRESH = f"{NOW:%Y%m%dT%H%M%SZ}"
MANIFEST = Manifest.model_validate(
    {
        "egress_id": "EG_abc",
        "room_id": "RM_1",
        "room_name": "Stand-up",
        "started_at": 5 * 10**18,
        "ended_at": 6 * 10**18,
    }
)


def no_fetch(location):
    raise AssertionError(f"{location} was fetched")


def read(body):
    return parse_event(json.loads(body)).backup


def test_a_manifests_link_says_itself_whose_it_is():
    link = signed("egress/EG_other.json", FRESH)
    ref, body = event_of_link(f"  {link}\n", lambda _: MANIFEST, egress_id="EG_given", run=3)
    assert (ref.egress_id, ref.run, ref.room_name, ref.ended_at) == ("EG_abc", 5 * 10**18, "Stand-up", 6 * 10**18)
    assert ref.brought_by is EventSource.LINK
    egress = read(body)
    assert egress.manifest_location.get_secret_value() == link
    assert (egress.egress_id, egress.started_at, egress.ended_at) == ("EG_abc", 5 * 10**18, 6 * 10**18)
    assert "Signature" not in ref.model_dump_json()


def test_a_manifest_whose_times_are_floats_is_of_the_run_that_livekit_names():
    manifest = Manifest.model_validate({"egress_id": "EG_1", "started_at": 1.7322030496466708e18})
    ref, _ = event_of_link(signed("EG_1.json", FRESH), lambda _: manifest, egress_id="EG_1", run=1732203049646670851)
    assert ref.run == 1732203049646670851


def test_a_manifest_of_no_egress_gives_the_inbox_no_key():
    manifest = Manifest.model_validate({"egress_id": "../../2020/EG_1"})
    with pytest.raises(RefusedError, match="no egress id"):
        event_of_link(signed("EG_1.json", FRESH), lambda _: manifest)


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [("egress/EG_fromPath.json", "", "EG_fromPath"), ("egress/EG_fromPath.json", "EG_given", "EG_given")],
)
def test_a_manifest_without_an_id_takes_the_given_one_or_its_keys(path, given, expected):
    manifest = Manifest.model_validate({"files": [{"filename": "a.mp4"}]})
    ref, _ = event_of_link(signed(path, FRESH), lambda _: manifest, egress_id=given)
    assert ref.egress_id == expected


def test_a_files_link_is_not_fetched():
    link = signed("egress/My%20room.mp4", FRESH)
    ref, body = event_of_link(link, no_fetch, egress_id="EG_1", run=7)
    egress = read(body)
    assert (ref.egress_id, ref.run) == (egress.egress_id, egress.started_at) == ("EG_1", 7)
    [file] = egress.file_results
    assert (file.filename, file.location.get_secret_value()) == ("egress/My room.mp4", link)


def test_the_same_path_is_the_same_recording_whatever_its_signature():
    link = signed("egress/a.mp4", FRESH)
    ref, _ = event_of_link(link, no_fetch)
    again, _ = event_of_link(link.replace("00ff", "11ee"), no_fetch)
    other, _ = event_of_link(signed("egress/b.mp4", FRESH), no_fetch)
    assert (ref.egress_id, ref.run) == (again.egress_id, again.run)
    assert ref.egress_id != other.egress_id
    assert ref.egress_id.startswith("LINK_")
    assert ref.run == int(NOW.timestamp()) * 10**9


def test_a_given_filename_makes_a_json_link_a_file():
    _, body = event_of_link(signed("egress/data.json", FRESH), no_fetch, filename="chat.json")
    assert [file.filename for file in read(body).file_results] == ["chat.json"]


def test_an_unsigned_link_is_refused_by_name():
    with pytest.raises(RefusedError, match=r"acme\.s3\.amazonaws\.com/a\.mp4 is not a signed URL"):
        event_of_link(OWN + "a.mp4", no_fetch)


def test_a_dead_link_is_refused_without_its_signature():
    old = f"{NOW - timedelta(days=8):%Y%m%dT%H%M%SZ}"
    with pytest.raises(LinkExpiredError) as caught:
        event_of_link(BACKUP + "a.mp4" + SIGNED.replace("20261120T204342Z", old), no_fetch)
    assert "00ff" not in str(caught.value)


def test_a_manifest_that_does_not_answer_is_no_event():
    def fetch(location):
        raise SourceUnavailableError(f"{location.name} did not answer")

    with pytest.raises(SourceUnavailableError):
        event_of_link(signed("EG_1.json", FRESH), fetch)
