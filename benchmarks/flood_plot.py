"""docs/floods.svg: how the time of a run grows with its files and segments."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "docs" / "floods.svg"
SECONDS = (10, 20, 50, 100, 200, 500)
OURS, OTHER = "#1f6feb", "#8b949e"


def draw(files: Sequence[tuple[int, float, float]], segments: Sequence[tuple[int, float]], file: Path = FILE) -> None:
    """Write the plot, where matplotlib is installed.

    :param files: number, seconds of the recovery, seconds of the DAG that does nothing.
    :param segments: number and seconds.
    """
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed (pip install '.[bench]')")
        return
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text, and equal figures give equal files.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "floods", "font.family": "sans-serif"})
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", facecolor="white")
    counts = [count for count, _, _ in files]
    left.plot(counts, [ours for _, ours, _ in files], "o-", color=OURS, label="livekit_backup")
    left.plot(counts, [nothing for _, _, nothing in files], "o--", color=OTHER, label="as many tasks that do nothing")
    left.set_title("Seconds of a run, by its files of 1 MiB; over 1,024 they share tasks", fontsize=9, loc="left")
    right.plot([count for count, _ in segments], [seconds for _, seconds in segments], "o-", color=OURS)
    right.set_title("Seconds of a run over one egress, by its segments", fontsize=9, loc="left")
    for axes, points in ((left, [(count, ours) for count, ours, _ in files]), (right, segments)):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_xticks([count for count, _ in points], [f"{count:,}" for count, _ in points])
        axes.set_yticks(SECONDS, [str(seconds) for seconds in SECONDS])
        for count, seconds in points:
            axes.annotate(f"{seconds:.0f}", (count, seconds), (0, 6), textcoords="offset points", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize=8, frameon=False)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
