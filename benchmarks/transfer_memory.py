"""Peak memory of one transfer over the same process before it, by the recording's size.

The source invents the bytes and the sink drops them, so 20 GiB need no disk.
"""

from __future__ import annotations

from synthetic_recordings import recording_name
from table import Table
from transfer_bed import transfer_bed

GOAL_MIB = 128
GIB = 1024**3
SIZES = (GIB, 20 * GIB)


def measure() -> Table:
    rows, reached = [], True
    names = [recording_name(size) for size in SIZES]
    with transfer_bed(names, invent=True) as bed:
        for size, name in zip(SIZES, names, strict=True):
            taken = bed.run("livekit_backup", [name], 1)
            reached = reached and taken.over_idle_mib <= GOAL_MIB
            rows.append(
                [
                    f"{size // GIB} GiB",
                    f"{size / 1024**2 / taken.seconds:.0f}",
                    f"{taken.idle_mib:.0f}",
                    f"{taken.peak_mib:.0f}",
                    f"{taken.over_idle_mib:.0f}",
                    f"{taken.cpu_seconds / (size / GIB):.2f}",
                ]
            )
    return Table(
        "Peak memory of a transfer",
        f"at most {GOAL_MIB} MiB over the idle process at every size",
        reached,
        ["file", "MiB/s", "idle MiB", "peak MiB", "over idle", "CPU s/GiB"],
        rows,
    )
