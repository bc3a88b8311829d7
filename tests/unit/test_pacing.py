"""No more bytes a second than a task may take, all its readers together."""

from __future__ import annotations

import threading

import pytest

from livekit_backup.core.checksums import Checksums
from livekit_backup.core.pacing import BURST_SECONDS, SMALLEST_PORTION, Pace
from livekit_backup.core.part_plan import PartPlan
from livekit_backup.core.transfer import Transfer
from unit.fakes import MemorySource

PART = 64 * 1024


class Clock:
    """Stands still but when somebody waits; several that wait at once all wait from the same now."""

    def __init__(self):
        self.now = 1000.0
        self.waits = []
        self._lock = threading.Lock()

    def __call__(self):
        return self.now

    def wait(self, stopping, seconds):
        assert seconds > 0
        with self._lock:
            self.waits.append(seconds)
            self.now += seconds

    def pace(self, rate):
        return Pace(rate, clock=self, wait=self.wait)


@pytest.fixture
def clock():
    return Clock()


def test_bytes_take_the_time_that_they_may(clock):
    pace = clock.pace(100)
    for _ in range(10):
        pace.took(50, threading.Event())
    assert clock.now == 1000 + 5


def test_who_is_slower_is_not_held_up(clock):
    pace = clock.pace(100)
    for _ in range(10):
        clock.now += 0.6
        pace.took(50, threading.Event())
    assert clock.waits == []


def test_a_pause_is_made_up_for_only_a_little(clock):
    pace = clock.pace(100)
    clock.now += 3600
    began = clock.now
    for _ in range(10):
        pace.took(100, threading.Event())
    assert clock.now - began == 10 - BURST_SECONDS


def test_a_transfer_that_is_given_up_waits_for_nothing():
    stopping = threading.Event()
    stopping.set()
    Pace(1).took(10**9, stopping)


def test_all_readers_of_a_task_share_one_limit(clock):
    pace = clock.pace(1000)
    threads = [
        threading.Thread(target=lambda: [pace.took(100, threading.Event()) for _ in range(20)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now - 1000 >= 4 * 20 * 100 / 1000 - BURST_SECONDS


@pytest.mark.parametrize("streams", [1, 3])
def test_a_transfer_keeps_to_it_and_reads_in_small_portions(clock, streams):
    data = b"x" * PART * 10
    source = MemorySource(data)
    asked = []

    def noting(body):
        readinto = body.readinto
        body.readinto = lambda view: asked.append(len(view)) or readinto(view)
        return body

    source_open = source.open
    source.open = lambda *args: noting(source_open(*args))
    plan = PartPlan(len(data), PART, md5_part_sizes=(PART, 0))
    body = source.open(0)

    class Sink:
        def put_part(self, number, body, checksums):
            return "etag"

    transfer = Transfer(source, body, plan, Checksums(plan), streams=streams, pace=clock.pace(len(data) // 20))
    transfer.run(lambda _: Sink())
    assert clock.now - 1000 >= 20 - BURST_SECONDS
    assert max(asked) == SMALLEST_PORTION


def test_a_portion_is_a_quarter_of_a_second():
    assert Pace(8 * 1024 * 1024).portion == 2 * 1024 * 1024
    assert Pace(1024).portion == SMALLEST_PORTION
