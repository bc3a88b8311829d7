"""docs/transfers.svg: the rate of every engine and the CPU it takes, with least and greatest of all rounds."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from transfers import Measured

FILE = Path(__file__).resolve().parent.parent / "docs" / "transfers.svg"
COLOURS = {"livekit_backup": "#1f6feb", "read and discard": "#c9d1d9", "read and SHA-256": "#c9d1d9"}
OTHER = "#8b949e"


def draw(all_measured: Sequence[Measured], file: Path = FILE) -> None:
    """Write the plot, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed (pip install '.[bench]')")
        return
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text, and equal figures give equal files.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "transfers", "font.family": "sans-serif"})
    import matplotlib.pyplot as plt

    heights = [len(measured.workload.engines) + 1.2 for measured in all_measured]
    figure, rows = plt.subplots(
        len(all_measured),
        2,
        figsize=(10, 0.3 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
        facecolor="white",
    )
    for (rate, cpu), measured in zip(rows, all_measured, strict=True):
        title, engines = measured.workload.title, measured.workload.engines
        _bars(rate, f"{title}: MiB/s (more is better)", engines, [measured.rates(engine) for engine in engines])
        _bars(cpu, f"{title}: CPU s/GiB (less is better)", engines, [measured.cpu(engine) for engine in engines])
        cpu.set_yticklabels([])
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _bars(axes: Axes, title: str, engines: Sequence[str], figures: Sequence[Sequence[float]]) -> None:
    medians = [statistics.median(values) for values in figures]
    below = [median - min(values) for median, values in zip(medians, figures, strict=True)]
    above = [max(values) - median for median, values in zip(medians, figures, strict=True)]
    colours = [COLOURS.get(engine, OTHER) for engine in engines]
    axes.barh(engines, medians, xerr=(below, above), color=colours, ecolor="#24292f", capsize=2, error_kw={"lw": 0.8})
    widest = max(max(values) for values in figures)
    for row, (median, values) in enumerate(zip(medians, figures, strict=True)):
        text = f"{median:.0f}" if median >= 20 else f"{median:.1f}"
        axes.text(max(values) + widest * 0.02, row, text, va="center", fontsize=8)
    axes.set_xlim(0, widest * 1.12)
    axes.set_title(title, fontsize=9, loc="left")
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
