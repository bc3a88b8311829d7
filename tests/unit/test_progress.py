"""The log of a long transfer."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from livekit_backup.core import progress
from livekit_backup.core.progress import ProgressLog

LOG = logging.getLogger("test.progress")


def test_one_line_at_start_every_ten_seconds_and_at_the_end(caplog, monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with caplog.at_level(logging.INFO):
        log = ProgressLog(LOG, "'a.mp4'", 1000 * 1024, datetime.now(UTC) + timedelta(hours=5))
        for second in range(1, 26):
            now = 100.0 + second
            log(second * 40 * 1024)
        log.end("checked: length")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "downloading 'a.mp4': 1000.0 KiB, 5.0 h until its link dies"
    assert lines[1] == "'a.mp4': 40 %, 40.0 KiB/s, 15 s to go"
    assert lines[-1] == "downloaded 'a.mp4': 1000.0 KiB in 25.0 s, 40.0 KiB/s; checked: length"
    assert len(lines) == 4


def test_a_download_that_goes_on_counts_what_it_moves(caplog, monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shown = []
    with caplog.at_level(logging.INFO):
        log = ProgressLog(LOG, "'a.mp4'", 1000 * 1024, None, done=500 * 1024, show=shown.append)
        now = 110.0
        log(750 * 1024)
        log.end("checked: length")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "downloading 'a.mp4': 1000.0 KiB, going on at 50 %"
    assert lines[1] == "'a.mp4': 75 %, 25.0 KiB/s, 10 s to go"
    assert lines[2].startswith("downloaded 'a.mp4': 500.0 KiB in 10.0 s, 50.0 KiB/s")
    assert shown == ["75 %, 25.0 KiB/s"]


def test_no_time_at_all(caplog, monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 100.0)
    with caplog.at_level(logging.INFO):
        log = ProgressLog(LOG, "'a'", 0, None)
        log(0)
        log.end("checked: length")
    assert caplog.records[0].getMessage() == "downloading 'a': 0 B"
