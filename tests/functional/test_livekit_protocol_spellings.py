"""Every spelling that LiveKit's own reader takes for a message, ours takes for the same: field by field, in every shape.

The oracle beside this (``test_livekit_protocol_oracle``) reads what their writer prints. Here each field is written in
any form that the JSON mapping of protobuf lets a sender choose, each by itself.
"""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import Phase, given, settings
from livekit.protocol import egress as messages
from livekit.protocol import webhook as webhook_messages

from livekit_backup.core.event_selection import DocumentSelection
from livekit_backup.core.event_shapes import StoredEvent, interpret
from livekit_backup.models.egress import EGRESS_STATUSES, EgressInfo, FileResult, ImageResult, SegmentResult

from .test_livekit_protocol_oracle import _same, infos, often

unshrunk = settings(often, phases=[Phase.generate], max_examples=100)
"""A failing message of theirs takes minutes to shrink, and can be read as it is."""

EXACT_FLOATS = 2**53


def _int64(draw, value: int):
    spellings = [value, str(value)]
    if abs(value) <= EXACT_FLOATS:
        # Their reader takes these for floats, and rounds what is larger.
        spellings += [float(value), f"{value}.0", f"{value}e0", f"{value}0e-1"]
    return draw(st.sampled_from(spellings))


def _scalar(draw, field, value):
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_INT32):
        return _int64(draw, value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return draw(st.sampled_from([value, field.enum_type.values_by_number[value].name, str(value)]))
    return value


def _spelled(draw, message):
    """A message as JSON in which each field chooses its name and its form; absent ones may be null or their default."""
    made = {}
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof and field.containing_oneof.name == "request":
            continue
        name = draw(st.sampled_from([field.name, field.json_name]))
        value = getattr(message, field.name)
        if field.message_type:
            if field.is_repeated:
                items = [_spelled(draw, item) for item in value]
                if items or draw(st.booleans()):
                    made[name] = items or draw(st.sampled_from([[], None]))
            elif message.HasField(field.name):
                made[name] = _spelled(draw, value)
            elif not field.containing_oneof and draw(st.booleans()):
                made[name] = None
        elif value != field.default_value:
            made[name] = _scalar(draw, field, value)
        elif draw(st.booleans()):
            made[name] = draw(st.sampled_from([None, _scalar(draw, field, value)]))
    unknown = draw(
        st.dictionaries(st.sampled_from(["newField", "new_field", "x"]), st.sampled_from([1, "a", {}, [{}]]))
    )
    order = draw(st.permutations(list({**unknown, **made}.items())))
    return dict(order)


@st.composite
def spelled(draw):
    theirs = draw(infos())
    theirs.ClearField("room_composite")
    document = _spelled(draw, theirs)
    # Both have to be known to mean the same before ours is asked.
    read = json_format.ParseDict(document, messages.EgressInfo(), ignore_unknown_fields=True)
    assert read == theirs
    return theirs, document


printed = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 1, 4]), "sort_keys": st.booleans()}
)


@unshrunk
@given(given=spelled(), form=printed)
def test_any_spelling_is_read_as_they_read_it(given, form):
    theirs, document = given
    _same(EgressInfo.model_validate_json(json.dumps(document, **form)), theirs)
    _same(EgressInfo.model_validate(document), theirs)


class _Stored:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1, /) -> bytes:
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def close(self) -> None:
        pass


@settings(unshrunk, max_examples=40)
@given(
    given=st.lists(spelled(), min_size=1, max_size=3),
    shapes=st.lists(st.sampled_from(["raw", "wrapper", "bare in wrapper", "bare"]), min_size=3, max_size=3),
    names=st.lists(st.sampled_from(["egressInfo", "egress_info"]), min_size=3, max_size=3),
    between=st.sampled_from(["\n", "\r\n", "", ",\n"]),
    ascii_only=st.booleans(),
)
def test_any_spelling_in_any_shape_of_a_stored_event(given, shapes, names, between, ascii_only):
    documents = []
    for (_, document), shape, name in zip(given, shapes, names, strict=False):
        event = {"event": "egress_ended", "id": "EV_1", "createdAt": "5", name: document}
        documents.append(
            {
                "raw": event,
                "wrapper": {"timestamp": "x", "payload": event},
                "bare in wrapper": {"payload": document},
                "bare": document,
            }[shape]
        )
    stored = between.join(json.dumps(document, ensure_ascii=ascii_only) for document in documents).encode()
    for selects in (True, False):
        read = [interpret("s3://b/in/1", document) for document in DocumentSelection(_Stored(stored), selects=selects)]
        events = [item.event for item in read if isinstance(item, StoredEvent)]
        flagged = [theirs for theirs, _ in given if theirs.backup_storage_used]
        found = [event.egress_info for event in events if event.egress_info.backup_storage_used]
        # A bare info of an egress that still runs is no end of one, and its flag counts all the same here.
        assert len(found) == len(flagged)
        for ours, theirs in zip(found, flagged, strict=True):
            _same(ours, theirs)
        if not selects:
            assert len(read) == len(events) == len(documents)


@unshrunk
@given(theirs=infos(), status=st.integers(7, 2**31 - 1))
def test_a_status_of_a_newer_livekit_is_kept_as_it_is_written(theirs, status):
    document = json_format.MessageToDict(theirs, use_integers_for_enums=True) | {"status": status}
    ours = EgressInfo.model_validate(document)
    assert ours.status == str(status)
    assert ours.is_final


READ = {
    messages.FileInfo: (FileResult, {"started_at", "ended_at", "duration"}),
    messages.SegmentsInfo: (SegmentResult, {"started_at", "ended_at", "duration"}),
    messages.ImagesInfo: (ImageResult, {"started_at", "ended_at"}),
    messages.EgressInfo: (
        EgressInfo,
        {
            "source_type", "details", "retry_count", "stream", "file", "segments", "stream_results", "replay", "web",
            "egress", "room_composite", "participant", "track_composite", "track",
        },
    ),
}  # fmt: skip
"""What of theirs is not read, by message: requests, streams, times and words."""


@pytest.mark.parametrize("theirs", READ, ids=lambda message: message.DESCRIPTOR.name)
def test_a_field_that_livekit_adds_is_noticed(theirs):
    """It may say where a recording is: whoever raises the pin decides, and writes it down here."""
    ours, not_read = READ[theirs]
    names = set(theirs.DESCRIPTOR.fields_by_name)
    assert names == set(ours.model_fields) | (not_read & names)
    assert set(ours.model_fields) <= names


def test_of_an_event_the_name_the_id_the_time_and_the_egress_are_read():
    assert {"event", "id", "created_at", "egress_info"} <= set(webhook_messages.WebhookEvent.DESCRIPTOR.fields_by_name)


def test_their_statuses_are_these():
    assert [messages.EgressStatus.Name(number) for number in range(len(EGRESS_STATUSES))] == list(EGRESS_STATUSES)
