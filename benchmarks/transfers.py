"""Ours against Airflow's own operator, the obvious script, rclone and the floor: rate and CPU, TLS on both sides.

All engines take turns in every round, each in a process of its own and each beginning every so often, so that
a machine that is slow for a while is slow for all. What is compared is the ratio within a round.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from engines import installed_engines
from synthetic_recordings import recording_name
from table import Table, spread
from transfer_bed import Taken, TransferBed, run_script, transfer_bed
from transfer_plot import draw

MIB = 1024 * 1024
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
OURS, AIRFLOW, ONE_CLIENT, RCLONE = (
    "livekit_backup",
    "HttpToS3Operator",
    "HttpToS3Operator, one client",
    "rclone copyurl",
)


@dataclass(frozen=True)
class Workload:
    """Recordings that are moved in one run."""

    size: int
    count: int
    without: frozenset[str] = frozenset()
    """Engines that say nothing here."""
    rounds: int = ROUNDS

    @property
    def title(self) -> str:
        return f"{self.size // MIB} MiB x {self.count}" if self.size < 1024 * MIB else f"1 GiB x {self.count}"

    @property
    def names(self) -> list[str]:
        return [recording_name(self.size, number) for number in range(self.count)]

    @property
    def at_a_time(self) -> int:
        """For every engine the same; Airflow would give each file a process."""
        return min(4, self.count)

    @property
    def engines(self) -> list[str]:
        return [engine for engine in installed_engines() if engine not in self.without]


@dataclass
class Measured:
    """All rounds of one workload."""

    workload: Workload
    source: str
    rounds: list[dict[str, Taken]] = field(default_factory=list)

    def rates(self, engine: str) -> list[float]:
        """MiB/s, a value a round."""
        return [self.workload.size * self.workload.count / MIB / taken[engine].seconds for taken in self.rounds]

    def cpu(self, engine: str) -> list[float]:
        """CPU seconds a GiB, a value a round."""
        gib = self.workload.size * self.workload.count / 1024**3
        return [taken[engine].cpu_seconds / gib for taken in self.rounds]


WORKLOADS = (
    Workload(1024 * MIB, 1, frozenset({ONE_CLIENT})),
    Workload(64 * MIB, 16, frozenset({ONE_CLIENT})),
    # HttpToS3Operator takes over a minute for these.
    Workload(MIB, 200, rounds=max(1, ROUNDS // 3)),
)


@dataclass(frozen=True)
class Goal:
    """A ratio within a round, and where it has to be."""

    what: str
    workload: int
    figures: Callable[[Measured, str], list[float]]
    peer: str
    bound: float
    is_least: bool = True

    def judge(self, measured: Measured) -> tuple[bool, list[str]]:
        """Whether the median reaches it, and the row that says so."""
        wanted = f"{'at least' if self.is_least else 'at most'} {self.bound} x"
        if self.peer not in measured.workload.engines:
            return False, [self.what, self.peer, wanted, "not installed", "**no**"]
        pairs = zip(self.figures(measured, OURS), self.figures(measured, self.peer), strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        median = statistics.median(ratios)
        reached = median >= self.bound if self.is_least else median <= self.bound
        return reached, [self.what, self.peer, wanted, f"{spread(ratios, 2)} x", "yes" if reached else "**no**"]


GOALS = (
    Goal("rate of 1 GiB", 0, Measured.rates, AIRFLOW, 2.6),
    Goal("rate of 1 GiB", 0, Measured.rates, RCLONE, 0.9),
    Goal("CPU a GiB of 1 GiB", 0, Measured.cpu, AIRFLOW, 0.45, is_least=False),
    Goal("rate of 200 x 1 MiB", 2, Measured.rates, AIRFLOW, 1.8),
)


def measure() -> list[Table]:
    _prove()
    all_measured = [_measure(workload) for workload in WORKLOADS]
    draw(all_measured)
    judged = [goal.judge(all_measured[goal.workload]) for goal in GOALS]
    goals = Table(
        "Goals, each the median (least to greatest) of the ratios within a round",
        "all rows",
        all(reached for reached, _ in judged),
        ["ours", "over", "wanted", "measured", "reached"],
        [row for _, row in judged],
    )
    return [goals, *map(_table, all_measured)]


def _prove() -> None:
    """Every engine moves true bytes: once against a sink that hashes them and refuses others."""
    names = [recording_name(20 * MIB + 1), recording_name(MIB)]
    with transfer_bed(names, verify=True) as bed:
        found = run_script(bed.environment, "our_engine.py")
        absent = [name for name, honoured in found.items() if honoured is False and name != "in_doubt"]
        assert not absent, f"the sink does not honour {absent}"
        for engine in installed_engines():
            bed.run(engine, names, 2)


def _measure(workload: Workload) -> Measured:
    with transfer_bed(workload.names) as bed:
        measured = Measured(workload, bed.source)
        if workload.rounds > 1:
            # It fills caches: the source's files, the sink's digests, everyone's bytecode.
            _round(bed, workload, 0)
        measured.rounds += [_round(bed, workload, turn) for turn in range(workload.rounds)]
        hashed = bed.sink_stats()["hashed"]
        assert not hashed, f"the sink had to hash {hashed} parts itself, which slowed every engine"
    return measured


def _round(bed: TransferBed, workload: Workload, turn: int) -> dict[str, Taken]:
    first = turn % len(workload.engines)
    order = workload.engines[first:] + workload.engines[:first]
    taken = {}
    for engine in order:
        taken[engine] = bed.run(engine, workload.names, workload.at_a_time)
        # Twenty minutes of silence would look like a hang.
        print(f"{workload.title}: {engine} {taken[engine].seconds:.1f} s", file=sys.stderr, flush=True)
    return taken


def _table(measured: Measured) -> Table:
    rows = []
    for engine in measured.workload.engines:
        rates, theirs = measured.rates(engine), measured.rates(AIRFLOW)
        ratio = statistics.median(own / other for own, other in zip(rates, theirs, strict=True))
        peak = statistics.median(taken[engine].peak_mib for taken in measured.rounds)
        rows.append([engine, spread(rates), f"{ratio:.2f}", spread(measured.cpu(engine), 2), f"{peak:.0f}"])
    together = f", {measured.workload.at_a_time} at a time" if measured.workload.count > 1 else ""
    rounds = f", {len(measured.rounds)} rounds"
    return Table(
        f"{measured.workload.title}{together}, from {measured.source}{rounds}",
        "",
        reached=True,
        header=["engine", "MiB/s", f"x {AIRFLOW}", "CPU s/GiB", "peak MiB"],
        rows=rows,
    )
