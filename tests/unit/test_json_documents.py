"""Splitting stored objects into documents."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from livekit_backup.core import decompression, json_documents
from livekit_backup.core.event_selection import DocumentSelection
from unit.fakes import Body

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)
EXAMPLE = [{}, {"ü": [{}, {"a": '}{\\"'}]}, {"b": None}]


def _lines(end):
    return lambda documents, ascii_only: b"".join(
        json.dumps(document, ensure_ascii=ascii_only).encode() + end for document in documents
    )


def _joined(separator, indent=None):
    return lambda documents, ascii_only: separator.join(
        json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode() for document in documents
    )


def _array(indent=None, **options):
    return lambda documents, ascii_only: json.dumps(
        documents, ensure_ascii=ascii_only, indent=indent, **options
    ).encode()


FORMS = {
    "lines": _lines(b"\n"),
    "lines crlf": _lines(b"\r\n"),
    "lines, blank between": _lines(b"\n\n"),
    "lines, none at the end": _joined(b"\n"),
    "lines with commas": _joined(b",\n"),
    "nothing between": _joined(b""),
    "pretty": _joined(b"\n", 2),
    "pretty, nothing between": _joined(b"", 2),
    "pretty with tabs": _joined(b"\r\n", "\t"),
    "array": _array(),
    "array, compact": _array(separators=(",", ":")),
    "array, pretty": _array(2),
    "array, no indentation": _array(0),
}


def _in_two(data: bytes, compress) -> bytes:
    return compress(data[: len(data) // 2]) + compress(data[len(data) // 2 :])


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKED = {
    "plain": lambda data: data,
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "gzip": gzip.compress,
    "gzip of two members": lambda data: _in_two(data, gzip.compress),
    "zstd": _zstd,
    "zstd of two frames": lambda data: _in_two(data, _zstd),
}


def _read(data: bytes, chunks=()):
    return list(DocumentSelection(Body(data, chunks), selects=False))


def _values(data: bytes, chunks=()):
    documents = _read(data, chunks)
    assert [document.error for document in documents] == [""] * len(documents)
    assert [document.position for document in documents] == list(range(len(documents)))
    return [document.value for document in documents]


@settings(max_examples=150)
@given(
    form=st.sampled_from(sorted(FORMS)),
    packed=st.sampled_from(sorted(PACKED)),
    documents=st.lists(OBJECTS, max_size=6),
    ascii_only=st.booleans(),
    chunks=st.lists(st.integers(4, 90), max_size=4),
)
def test_comes_back_equal_and_in_order(form, packed, documents, ascii_only, chunks):
    data = PACKED[packed](FORMS[form](documents, ascii_only))
    assert _values(data, chunks) == documents


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_every_packing(form, packed):
    assert _values(PACKED[packed](FORMS[form](EXAMPLE, False)), [7, 4]) == EXAMPLE


@given(documents=st.lists(OBJECTS, max_size=4), chunks=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_plain_bytes_may_come_one_by_one(documents, chunks):
    assert _values(FORMS["lines"](documents, False), chunks) == documents


@pytest.mark.parametrize("packed", ["gzip", "zstd"])
def test_compressed_bytes_may_come_one_by_one(packed):
    assert _values(PACKED[packed](b'{"a": 1}\n'), [1]) == [{"a": 1}]


@given(
    documents=st.lists(st.builds(lambda number: {"id": number}, st.integers()), min_size=1, max_size=6),
    broken=st.lists(
        st.tuples(st.integers(0, 6), st.binary(max_size=30).filter(lambda line: not {10, 13} & set(line))),
        max_size=5,
    ),
)
def test_a_broken_line_costs_itself_alone(documents, broken):
    lines = [json.dumps(document).encode() for document in documents]
    for place, line in broken:
        lines.insert(1 + place, line)
    values = [document.value for document in _read(b"".join(line + b"\n" for line in lines))]
    assert [value for value in values if isinstance(value, dict) and "id" in value] == documents


@given(
    documents=st.lists(st.builds(lambda text: {"id": 1, "text": text}, TEXT), min_size=2, max_size=5),
    data=st.data(),
)
def test_a_truncated_line_costs_itself_alone(documents, data):
    lines = [json.dumps(document).encode() for document in documents]
    which = data.draw(st.integers(0, len(lines) - 1))
    cut = data.draw(st.integers(1, len(lines[which]) - 1))
    lines[which] = lines[which][:cut]
    read = _read(b"\n".join(lines) + b"\n")
    assert [document.value for document in read if not document.error] == documents[:which] + documents[which + 1 :]
    assert [document.error.partition(":")[0] for document in read if document.error] == ["not JSON"]


def test_a_broken_pretty_document_costs_itself_alone():
    good = json.dumps({"id": 2}, indent=1).encode()
    read = _read(b'{\n "id": 1,\n' + good + b"\n" + good + b"\n")
    assert [document.value for document in read if not document.error] == [{"id": 2}, {"id": 2}]


def test_valid_json_may_break_lines_anywhere():
    assert _values(b'{"event": "egress_ended", "egressInfo":\n{"egressId": "EG_1"}\n}\n') == [
        {"event": "egress_ended", "egressInfo": {"egressId": "EG_1"}}
    ]


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 50, 200, 2000])
def test_a_truncated_gzip_says_so_after_what_it_gave(cut):
    lines = FORMS["lines"]([{"id": number, "noise": number * 7919 % 65537} for number in range(3000)], True)
    packed = gzip.compress(lines)
    read = _read(packed[:-cut])
    assert "damaged" in read[-1].error
    assert read[-1].raw == b"", "nothing is known of the rest, so it may be a backup"
    whole = [document.value["id"] for document in read if not document.error]
    assert whole == list(range(len(whole)))
    assert len(whole) > 1000


def test_a_damaged_gzip_says_so():
    packed = bytearray(gzip.compress(b'{"a": 1}\n'))
    packed[-8] ^= 0xFF
    assert "damaged" in _read(bytes(packed))[-1].error
    assert "damaged" in _read(gzip.compress(b'{"a": 1}\n') + b"trailing")[-1].error


def test_a_damaged_zstd_says_so():
    packed = bytearray(_zstd(b'{"a": "%s"}\n' % (b"ab" * 500)))
    packed[10] ^= 0xFF
    assert "damaged" in _read(bytes(packed))[-1].error


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_truncated_zstd_says_so(cut):
    packed = _zstd(FORMS["lines"]([{"id": number} for number in range(50)], True))
    assert "damaged" in _read(packed[:-cut])[-1].error


def test_names_decide_nothing_and_emptiness_is_no_error():
    for nothing in (
        b"",
        b"\n",
        b"\r\n \t\n",
        b"[]",
        b"[ ]\n",
        b"\xef\xbb\xbf",
        gzip.compress(b""),
        _zstd(b""),
    ):
        assert _read(nothing) == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"a": "\xff\xfe"}\n', "not UTF-8"),
        (b"{" * 5 + b'"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}" * 5, "not JSON"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "nested too deeply"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": %s}' % (b"9" * 5000), "not JSON"),
        (b"<html>oops</html>", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b'"', "not JSON"),
    ],
)
def test_what_is_no_document(data, error):
    documents = _read(data)
    assert documents
    assert all(document.value is None for document in documents)
    assert error in documents[0].error


def test_scalars_are_documents_for_their_reader_to_refuse():
    assert [document.value for document in _read(b'"text"\n')] == ["text"]
    assert [document.value for document in _read(b"5")] == [5]


def test_too_long_a_document_is_given_up_and_the_next_is_read(monkeypatch):
    monkeypatch.setattr(json_documents, "MAX_DOCUMENT_BYTES", 1000)
    long = b'{"a": "%s"}' % (b"x" * 5000)
    for data in (
        long + b'\n{"b": 2}\n',
        b"x" * 5000 + b'\n{"b": 2}\n',
        b'{\n"a":' + b"[1,\n" * 500 + b'\n{"b": 2}\n',
    ):
        documents = _read(data)
        assert "over 1000 bytes" in documents[0].error
        assert len(documents[0].raw) <= 200
        assert documents[-1].value == {"b": 2}


def test_an_object_ends_somewhere(monkeypatch):
    monkeypatch.setattr(decompression, "MAX_OBJECT_BYTES", 10_000)
    documents = _read(gzip.compress(b'{"a": 1}\n' * 10_000))
    assert "longer than 10000 bytes" in documents[-1].error
    assert len(documents) < 1200


def test_a_line_of_garbage_is_not_held(monkeypatch):
    monkeypatch.setattr(json_documents, "MAX_DOCUMENT_BYTES", 64 * 1024)
    packed = gzip.compress(b"x" * (8 * 1024 * 1024) + b'\n{"b": 2}\n', 1)
    tracemalloc.start()
    try:
        last = _read(packed)[-1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert last.value == {"b": 2}
    assert peak < 4 * 1024 * 1024


def test_a_long_string_takes_memory_in_proportion():
    data = b' {"a": "%s"}\n' % (b"x" * 500_000)
    tracemalloc.start()
    try:
        assert len(_read(data)) == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(data)


def test_an_open_quote_costs_linear_time():
    lines = b"x" * 31 + b"\n"
    began = time.process_time()
    _read(b'it is "open\n' + lines * 900)
    assert time.process_time() - began < 0.07


def test_a_line_cut_behind_a_backslash_ends_there():
    read = _read(b'{"a": "x\\\n{"b": "y\\"}"}\n')
    assert [document.value for document in read if not document.error] == [{"b": 'y"}'}]
