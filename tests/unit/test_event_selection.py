"""Selecting before parsing finds what parsing everything finds."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
from unittest import mock

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from livekit_backup.core import decompression, event_selection, json_documents
from livekit_backup.core.event_selection import DocumentSelection
from livekit_backup.core.event_shapes import StoredEvent, interpret
from livekit_backup.models.egress import FAILED_STATUSES
from unit.fakes import Body, egress_ended

URI = "s3://b/in/1"
OTHER = {"event": "participant_joined", "room": {"name": "a", "codecs": [{"mime": "x"}, {}]}, "id": "EV_1"}
FLAG = re.compile(rb"backupStorageUsed|backup_storage_used")


def _read(data: bytes, *, selects=True, chunks=()):
    selection = DocumentSelection(Body(data, chunks), selects=selects)
    return list(selection), selection.count


def _line(value, **options) -> bytes:
    return json.dumps(value, **options).encode()


def _lines(*values) -> bytes:
    return b"".join((value if isinstance(value, bytes) else _line(value)) + b"\n" for value in values)


def _flagged(egress_id="EG_1", **info):
    return egress_ended(egress_id, backupStorageUsed=True, **info)


# What is in an inbox, whole or broken, in any order and form.

TEXT = st.text(st.sampled_from('ab{}[]"\\,: é😀\n0') | st.characters(codec="utf-8"), max_size=12)
IDS = st.sampled_from(["EG_1", "EG_2", "EG_3"])
PLAIN = st.builds(lambda name, text: {"event": "room_started", name: text, "room": {"name": text}}, TEXT, TEXT)
STATUS = st.sampled_from(["EGRESS_COMPLETE", "EGRESS_FAILED", "EGRESS_ABORTED", 3, 4, "5"])
ENDED = st.builds(
    lambda egress_id, used, status, room: egress_ended(
        egress_id, **({"backupStorageUsed": True} if used else {}), status=status, roomName=room
    ),
    IDS, st.booleans(), STATUS, TEXT,
)  # fmt: skip
BARE = st.builds(lambda info: {"egress_id": info["egressInfo"]["egressId"], "backup_storage_used": True}, ENDED)
WRAPPED = st.builds(lambda event: {"timestamp": 5, "payload": event}, ENDED)
EVIDENCE = st.builds(
    lambda event: {
        "livekit_backup_event": 1, "source": "webhook", "received_at": "2026-11-20T13:00:00Z", "body": json.dumps(event),
    },
    ENDED | PLAIN,
)  # fmt: skip
VALUES = PLAIN | ENDED | BARE | WRAPPED | EVIDENCE | st.just({}) | st.just({"backupStorageUsed": True})


@st.composite
def _documents(draw):
    raw = _line(
        draw(VALUES),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, None, None, 1])),
        separators=draw(st.sampled_from([None, (",", ":")])),
    )
    if draw(st.integers(0, 5)):
        return raw
    at = draw(st.integers(0, len(raw)))
    return draw(
        st.sampled_from(
            [
                raw[:at],
                raw[at:],
                raw[:at] + raw[at + 1 :],
                raw[:at] + b"\xff" + raw[at:],
                raw[:at] + b"}" + raw[at:],
                raw[:at] + b'"' + raw[at:],
                raw.replace(b"{", b'{"a": NaN,', 1),
                raw.replace(b"{", b'{"roomName": 1, "roomName": 2,'),
                raw.replace(b"{", b'{"deep": ' + b"[" * 40 + b"]" * 40 + b","),
                raw.replace(b"backup", rb"\u0062ackup"),
                b"garbage",
                raw + b" " + raw,
            ]
        )
    )


def _looks_whole(lines: bytes) -> bool:
    """Whether lines that do not mention the flag may pass for documents: what the manual says."""
    brackets = re.sub(rb"[^][{}]", b"", lines)
    while brackets != (brackets := brackets.replace(b"{}", b"").replace(b"[]", b"")):
        pass
    return lines.startswith(b"{") and not brackets and not re.search(rb"NaN|Infinity|\xff", lines)


def _lines_around(document, data: bytes) -> bytes:
    """The lines that a document stands in: the careful reader may take a broken one for several."""
    end = data.find(b"\n", document.offset + len(document.raw))
    return data[data.rfind(b"\n", 0, document.offset) + 1 : end if end >= 0 else len(data)]


def _is_missed(document, found, data) -> bool:
    item = interpret(URI, document)
    if isinstance(item, StoredEvent):
        egress = item.event.egress
        return egress is not None and (egress.backup_storage_used or egress.status in FAILED_STATUSES)
    flags = [document.offset + flag.start() for flag in FLAG.finditer(document.raw)]
    if flags:
        # The careful reader may have taken several documents for one.
        return not all(any(one.offset <= flag < one.offset + len(one.raw) for one in found) for flag in flags)
    return item.may_be_backup and not _looks_whole(_lines_around(document, data))


@settings(max_examples=600, deadline=None)
@given(
    documents=st.lists(st.tuples(_documents(), st.sampled_from([b"\n"] * 6 + [b"\r\n", b"", b",\n", b"\n\n", b" "]))),
    packed=st.sampled_from([bytes, bytes, gzip.compress]),
    one_separator=st.none() | st.sampled_from([b"\n", b"\r\n", b""]),
    in_array=st.sampled_from([False] * 5 + [True]),
    block=st.sampled_from([50, 300, 1_000_000]),
)
def test_finds_all_that_reading_everything_finds(documents, packed, one_separator, in_array, block):
    data = b"".join(raw + (between if one_separator is None else one_separator) for raw, between in documents)
    data = b"[" + data + b"]" if in_array else data
    stored = packed(data)
    with (
        mock.patch.object(decompression, "BLOCK_BYTES", block),
        mock.patch.object(event_selection, "_LINE_BYTES", 2 * block),
    ):
        selected, _ = _read(stored)
        everything, _ = _read(stored, selects=False)
    keys = {(document.offset, document.raw, document.error) for document in selected}
    others = [document for document in everything if (document.offset, document.raw, document.error) not in keys]
    assert [document for document in others if _is_missed(document, selected, data)] == []


@given(values=st.lists(VALUES, min_size=2, max_size=8), between=st.sampled_from([b"\n", b"\r\n", b"", b",\n", b"\n\n"]))
def test_whole_documents_are_counted_and_placed(values, between):
    data = b"".join(_line(value) + between for value in values)
    documents, count = _read(data)
    assert count == len(values)
    for document in documents:
        assert values[document.position] == document.value
        assert json.loads(data[document.offset :][: len(document.raw)]) == document.value


def test_what_does_not_matter_is_not_parsed():
    documents, count = _read(_lines(*[OTHER] * 50, _flagged(), *[OTHER] * 50))
    assert [document.position for document in documents] == [50]
    assert count == 101


def test_documents_with_nothing_between_are_searched_too():
    documents, count = _read(b"".join([_line(OTHER)] * 30 + [_line(_flagged())] + [_line(OTHER)] * 30))
    assert 30 in [document.position for document in documents]
    assert len(documents) < 5
    assert count == 61


def test_a_name_that_looks_like_the_end_of_a_document_parts_nothing():
    odd = {"event": "room_started", "room": {"name": "x}{"}}
    data = b"".join(map(_line, [OTHER, odd, _flagged(roomName="}{"), odd, OTHER]))
    documents, count = _read(data)
    assert count == 5
    assert [d.position for d in documents if isinstance(interpret(URI, d), StoredEvent) and FLAG.search(d.raw)] == [2]


@pytest.mark.parametrize(
    "spelling",
    [
        b'"backup_storage_used": true',
        rb'"\u0062ackupStorageUsed": true',
        rb'"backup\u0053torageUsed": true',
        rb'"\u0062\u0061\u0063\u006b\u0075\u0070\u005f\u0073\u0074\u006f\u0072\u0061\u0067\u0065\u005F\u0075\u0073\u0065\u0064": true',
    ],
)
def test_the_flag_is_found_in_every_spelling(spelling):
    hidden = b'{"event": "egress_ended", "egressInfo": {"egressId": "EG_1", %s}}' % spelling
    documents, _ = _read(_lines(OTHER, hidden, OTHER))
    [document] = documents
    assert interpret(URI, document).event.backup


@pytest.mark.parametrize("status", ['"EGRESS_FAILED"', '"EGRESS_ABORTED"', "4", "5", '"4"', "  5"])
def test_failures_are_found_in_every_spelling(status):
    failed = b'{"event": "egress_ended", "egressInfo": {"egressId": "EG_1", "status":%s}}' % status.encode()
    evidence = {
        "livekit_backup_event": 1, "source": "webhook", "received_at": "2026-11-20T13:00:00Z", "body": failed.decode(),
    }  # fmt: skip
    documents, _ = _read(_lines(OTHER, failed, OTHER, evidence))
    assert [interpret(URI, document).event.egress.status in FAILED_STATUSES for document in documents] == [True, True]


@pytest.mark.parametrize(
    "broken",
    [
        _line(OTHER)[:-1],
        _line(OTHER)[:40],
        _line(OTHER)[30:],
        b"INFO " + _line(OTHER),
        b"garbage",
        b"",
        b"[]",
        b"5",
        _line(OTHER).replace(b"a", b"\xff", 1),
        _line(OTHER).replace(b"1", b"1NaN1", 1).replace(b'"EV_1NaN1"', b"NaN"),
        _line({"a": [[[]]]}).replace(b"[[[]]]", b"[" * 40 + b"]" * 40),
        _line({"a": [[]]}).replace(b"[[]]", b"[{]}"),
    ],
    ids=[
        "unclosed",
        "cut",
        "headless",
        "prefixed",
        "garbage",
        "blank",
        "array",
        "number",
        "bytes",
        "NaN",
        "deep",
        "crossed",
    ],
)
def test_a_broken_line_is_reported_as_if_everything_was_read(broken):
    data = _lines(OTHER, broken, OTHER, _flagged(), OTHER)
    errors = {(document.raw, document.error) for document in _read(data, selects=False)[0] if document.error}
    assert {(document.raw, document.error) for document in _read(data)[0] if document.error} == errors
    assert bool(errors) == (broken not in (b"", b"[]", b"5"))


def test_an_event_inside_a_broken_line_is_found():
    documents, _ = _read(_lines(OTHER, b'{"log" ' + _line(_flagged()) + b"}", OTHER))
    assert [d.value for d in documents if not d.error and FLAG.search(d.raw)] == [_flagged()]
    assert [d.raw for d in documents if d.error] == [b'{"log"', b"}"]


def test_memory_does_not_grow_with_the_events():
    block = _lines(*[OTHER] * 500)

    class Long:
        left = 500

        def read(self, size=-1, /):
            self.left -= 1
            return block if self.left >= 0 else b""

    tracemalloc.start()
    try:
        selection = DocumentSelection(Long())
        assert list(selection) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert selection.count == 250_000
    assert peak < 2 * 1024 * 1024


# Hostile objects: bounded, named with a reason, and what follows is read.


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (b'{"event": "egress_ended", "a": %s}' % (b"[" * 100 + b"]" * 100), "nested too deeply"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested too deeply"),
        (b'{"a": ' + b"[" * 1_000_000, "nested too deeply"),
        (b'{"backupStorageUsed": NaN}', "not JSON: NaN"),
        (b'{"backupStorageUsed": -Infinity}', "not JSON: -Infinity"),
        (b'{"backupStorageUsed": 1e999}', "a number that no float can hold"),
        (b'{"backupStorageUsed": %s}' % (b"9" * 5000), "a number of thousands of digits"),
        (b'{"backupStorageUsed": true, "backupStorageUsed": false}', "the key 'backupStorageUsed' stands twice"),
        (b'{"egressInfo": {"backupStorageUsed": true, "a": 1, "a": 1}}', "the key 'a' stands twice"),
        (b'{"backupStorageUsed": "\xff\xfe"}', "not UTF-8"),
        (b'{"backupStorageUsed": "\xed\xa0\x80"}', "not UTF-8"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_hostile_document_is_named_with_its_reason(hostile, reason, alone):
    data = hostile if alone else _lines(OTHER, hostile, _flagged())
    documents, _ = _read(data)
    assert [document.position for document in documents if reason in document.error] == [0 if alone else 1]
    assert alone or interpret(URI, documents[-1]).event.backup


def test_brackets_in_strings_nest_nothing():
    deep = "[" * 200
    [document] = _read(_line(_flagged(roomName=deep)))[0]
    assert interpret(URI, document).event.backup.room_name == deep


def test_a_long_line_is_given_up_in_little_memory(monkeypatch):
    monkeypatch.setattr(json_documents, "MAX_DOCUMENT_BYTES", 1024 * 1024)

    class Endless:
        left = 64 * 1024 * 1024

        def read(self, size=-1, /):
            if self.left <= 0:
                data, self.tail = self.tail[:size], self.tail[size:]
                return data
            self.left -= size
            return b"x" * size

        tail = b"\n" + _lines(OTHER, _flagged())

    tracemalloc.start()
    try:
        documents = list(DocumentSelection(Endless()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert documents[0].error == "a document of over 1048576 bytes"
    assert interpret(URI, documents[-1]).event.backup
    assert peak < 16 * 1024 * 1024


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gzip", "zstd"])
@pytest.mark.parametrize("filling", [b"x", b"\n", b'{"a": 1}\n', b"[", b'"'], ids=["x", "blank", "lines", "[", '"'])
def test_a_bomb_ends(pack, filling, monkeypatch):
    monkeypatch.setattr(decompression, "MAX_OBJECT_BYTES", 4 * 1024 * 1024)
    monkeypatch.setattr(json_documents, "MAX_DOCUMENT_BYTES", 1024 * 1024)
    bomb = pack(filling * (16 * 1024 * 1024 // len(filling)))
    documents, _ = _read(bomb)
    assert documents[-1].error == "longer than 4194304 bytes once decompressed"
    assert len(documents) <= 3


@pytest.mark.parametrize(
    ("flood", "limit"), [(b"x\n", "MAX_UNREADABLE"), (b"1\n", "MAX_CAREFUL"), (b"{}", "MAX_CAREFUL")]
)
def test_a_flood_of_crumbs_ends(flood, limit, monkeypatch):
    monkeypatch.setattr(event_selection, limit, 100)
    documents, count = _read(flood * 100_000)
    assert count == len(documents) == 101
    assert documents[-1].error.startswith("100 ")
    assert documents[-1].error.endswith(": the rest is not read")
    assert interpret(URI, documents[-1]).may_be_backup
