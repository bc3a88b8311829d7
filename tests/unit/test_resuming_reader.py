"""How long a source that broke off or refused is left alone, inside one try."""

from __future__ import annotations

import random
import threading

import pytest

from livekit_backup.core import resuming_reader
from livekit_backup.core.resuming_reader import FRUITLESS_RESUMES, LONGEST_WAIT_SECONDS, ResumingReader
from livekit_backup.errors import SourceUnavailableError, TransferInterruptedError
from unit.fakes import MemorySource


class Stopping(threading.Event):
    """Notes what is waited for; may be set meanwhile."""

    def __init__(self, *, at_wait=0):
        super().__init__()
        self.waits = []
        self._at_wait = at_wait

    def wait(self, timeout=None):
        self.waits.append(timeout)
        if len(self.waits) == self._at_wait:
            self.set()
        return self.is_set()


@pytest.fixture(autouse=True)
def longest(monkeypatch):
    """The waits of the product, and no luck."""
    monkeypatch.setattr(resuming_reader, "FIRST_WAIT_SECONDS", 1.0)
    monkeypatch.setattr(random, "random", lambda: 1.0)


def _fill(source, stopping=None):
    stopping = stopping or Stopping()
    data = bytearray(len(source.data))
    reader = ResumingReader(source, len(data), "date:then")
    try:
        reader.fill(memoryview(data), stopping)
    except (TransferInterruptedError, SourceUnavailableError) as error:
        return stopping.waits, error
    assert bytes(data) == source.data
    return stopping.waits, None


def _refusing(*errors):
    source = MemorySource(b"x" * 100, faults=[50])
    source_open = source.open
    left = list(errors)

    def open_(start=0, stop=None, etag=""):
        if start and left:
            source.opened.append((start, etag))
            raise left.pop(0)
        return source_open(start, stop, etag)

    source.open = open_
    return source


def test_a_connection_that_broke_once_is_made_again_at_once():
    assert _fill(MemorySource(b"x" * 100, faults=[50])) == ([], None)


def test_one_that_goes_on_breaking_is_waited_for_longer_each_time():
    waits, error = _fill(MemorySource(b"x" * 100, faults=[50] * 99))
    assert waits == [1, 2, 4]
    assert str(error) == "broke off"


def test_a_source_that_refuses_is_never_asked_at_once():
    waits, error = _fill(_refusing(*[SourceUnavailableError("503")] * 3))
    assert (waits, error) == ([2, 4, 8], None)


def test_the_tasks_of_a_flood_are_spread(monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 0.0)
    assert _fill(_refusing(SourceUnavailableError("503")))[0] == [1]


def test_retry_after_is_waited_for_and_then_some():
    waits, error = _fill(_refusing(SourceUnavailableError("429", 7.0)))
    assert (waits, error) == ([7 + 2], None)


def test_who_asks_for_long_gets_it_between_two_tries():
    refusal = SourceUnavailableError("429", LONGEST_WAIT_SECONDS + 1)
    source = _refusing(refusal)
    waits, error = _fill(source)
    assert (waits, error) == ([], refusal)
    assert len(source.opened) == 2
    assert all(body.closed for body in source.bodies), "no connection is held meanwhile"


def test_as_many_refusals_as_faults_end_it():
    source = _refusing(*[SourceUnavailableError("503")] * 99)
    _, error = _fill(source)
    assert str(error) == "503"
    assert len(source.opened) == 1 + FRUITLESS_RESUMES


def test_a_transfer_that_is_given_up_meanwhile_asks_no_more():
    source = _refusing(*[SourceUnavailableError("503")] * 99)
    waits, error = _fill(source, Stopping(at_wait=1))
    assert "given up" in str(error)
    assert len(waits) == 1
    assert len(source.opened) == 2


def test_progress_ends_the_waiting(monkeypatch):
    monkeypatch.setattr(resuming_reader, "FRUITFUL_BYTES", 10)
    assert _fill(MemorySource(b"x" * 100, faults=range(10, 100, 10)))[0] == []
