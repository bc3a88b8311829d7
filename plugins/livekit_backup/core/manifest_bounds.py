"""How much a manifest may hold: its bytes say little of the memory that its values take.

64 MiB of ``{},`` are 22 million entries, which take 13 GiB as models; 64 MiB of entries as LiveKit writes them are
some 110,000. So what makes values is counted in the bytes before any is made.
"""

from __future__ import annotations

MAX_ENTRIES = 150_000
"""Files, segments and images: a day of segments of one second, and a minute's rest. The largest that fits
took 355 MiB to read, and 560 MiB with its plan."""
MAX_VALUES = 1_000_000
"""LiveKit's entries have at most five."""


def why_too_much(body: bytes) -> str:
    """Return what is too much in a manifest's bytes; empty where nothing is.

    Brackets and commas inside strings count too: signed URLs have none.
    """
    if body.count(b"{") > MAX_ENTRIES:
        return f"over {MAX_ENTRIES} entries"
    if body.count(b",") + body.count(b"[") > MAX_VALUES:
        return f"over {MAX_VALUES} values"
    return ""
