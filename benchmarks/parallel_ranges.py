"""What ranges side by side bring where each connection is held to a rate, as a long path or a store holds it.

The source gives every connection 8 MiB/s; the sink keeps nothing, so that only the reading is measured.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from livekit_backup.core.checksums import Checksums, PartChecksums
from livekit_backup.core.etags import etag_rule
from livekit_backup.core.http_source import HttpSource
from livekit_backup.core.locations import Location
from livekit_backup.core.part_plan import plan_parts
from livekit_backup.core.transfer import Transfer
from livekit_backup.testing import FakeLiveKit, Fault
from our_engine import abilities_of_sink
from table import Table, spread

MIB = 1024 * 1024
SIZE = 128 * MIB
RATE = 8 * MIB
STREAMS = (1, 2, 4, 8)
ROUNDS = 3
GOAL = 3.0


def measure() -> Table:
    with FakeLiveKit() as livekit:
        recording = livekit.record_file("ranges.mp4", size=SIZE)
        stored = recording.files["ranges.mp4"]
        _ = stored.etag
        livekit.break_(recording, Fault.SLOW, bytes_per_second=RATE)
        rates: dict[int, list[float]] = {streams: [] for streams in STREAMS}
        for _ in range(ROUNDS):
            for streams in STREAMS:
                rates[streams].append(SIZE / MIB / _seconds(stored.url(), streams))
    gain = [four / one for four, one in zip(rates[4], rates[1], strict=True)]
    return Table(
        f"128 MiB from a source that gives each connection {RATE // MIB} MiB/s",
        f"4 ranges at least {GOAL:.0f} x one stream",
        min(gain) >= GOAL,
        ["parallel_ranges", "MiB/s"],
        [[str(streams), spread(rates[streams], 1)] for streams in STREAMS],
    )


class _Nowhere:
    """A sink that keeps nothing."""

    def put_part(self, _number: int, _body: memoryview, _checksums: PartChecksums) -> str:
        return ""


def _seconds(url: str, streams: int) -> float:
    source = HttpSource(Location(url), [urlsplit(url).netloc])
    began = time.perf_counter()
    body = source.open()
    plan = plan_parts(body.size, etag_rule(body.etag, body.size), abilities_of_sink())
    Transfer(source, body, plan, Checksums(plan), streams=streams).run(lambda _: _Nowhere())
    return time.perf_counter() - began
