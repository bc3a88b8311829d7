"""One simulated run, from a seed to findings."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from .between_tries import DAYS_PASS
from .chaos import Process
from .oracle import Oracle
from .recordings import TOKEN
from .setting import Setting, installed
from .simulated_airflow import DagRun


@dataclass
class Findings:
    """What a run was, and what is wrong."""

    seed: str
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)

    def told(self) -> str:
        """Everything, for a person."""
        return "\n".join([f"seed {self.seed}", *self.trace, *(f"WRONG: {wrong}" for wrong in self.wrong)])


class _LeakWatch(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if TOKEN in record.getMessage():
            self.leaks.append(f"a signed URL in a line of {record.name}")


def simulate(seed: str) -> Findings:
    """Run it, and judge.

    :param seed: of a campaign and a number within it, such as ``1/137``; each number has a fault that must happen.
    """
    setting = Setting(seed, int(seed.rpartition("/")[2]))
    findings = Findings(seed)
    watch = _LeakWatch()
    loggers = [logging.getLogger(name) for name in ("livekit_backup", "httpx", "urllib3")]
    for logger in loggers:
        logger.addHandler(watch)
    try:
        with installed(setting):
            findings.wrong += _play(setting, findings)
    except Exception as error:
        findings.wrong.append(f"the simulation itself: {type(error).__name__}: {error}")
        logging.getLogger(__name__).exception("seed %s", seed)
    finally:
        for logger in loggers:
            logger.removeHandler(watch)
    findings.wrong += watch.leaks
    findings.counts = setting.chaos.counts
    if setting.turns.passed:
        findings.counts["task: another run goes on in between"] = setting.turns.passed
    findings.trace = [setting.store.describe(), str(setting.settings.on_conflict), *setting.chaos.trace]
    return findings


def _play(setting: Setting, findings: Findings) -> Iterator[str]:
    rng, oracle = setting.rng, Oracle(setting)
    runs = [DagRun(setting, "r1", retries=rng.choice((0, 1, 3)))]
    if rng.random() < 0.35:
        runs.append(DagRun(setting, "r2", retries=rng.choice((0, 1, 3))))
    has_rival = len(runs) > 1
    setting.turns.run([run.run for run in runs])
    yield from _judge(oracle, runs, findings, has_rival=has_rival)
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        run = rng.choice(runs)
        findings.counts[_clear(setting, run)] += 1
        yield from _judge(oracle, [run], findings, has_rival=has_rival)
    setting.chaos.is_calm = True
    for run in runs:
        run.report()
        yield from _judge(oracle, [run], findings, has_rival=has_rival)
    if Random(f"{findings.seed} later").random() < 0.1:
        # What has landed stays landed, and is told so, though nobody could fetch it any more.
        setting.clock.sleep(timedelta(days=5).total_seconds())
        setting.chaos.note(DAYS_PASS, "the last run")
    last = DagRun(setting, "r9")
    last.run()
    for run in runs:
        run.report()
    setting.stage.enter(Process("after all"))
    yield from _judge(oracle, [*runs, last], findings, has_rival=has_rival)
    if last.statement is None:
        yield "no statement in the calm"
    else:
        yield from oracle.of_end(last.statement)
        findings.outcomes.update(line.outcome.value for line in last.statement.lines)
    yield from oracle.of_what_showed()


def _clear(setting: Setting, run: DagRun) -> str:
    """Clear something, as a person would; what follows it runs too."""
    what = setting.rng.choice(("all", "resolve", "download", "land", "report"))
    setting.chaos.trace.append(f"{run.run_id}: cleared {what}")
    if what == "all":
        run.run()
        return "task: all cleared"
    if what == "resolve":
        run.resolve()
        run.recover()
    elif what == "download" and run.bundles:
        run.recover_bundle(setting.rng.choice(run.bundles))
    elif what == "land" and (downloaded := [one for one in run.bundles if run.states.get(f"download {one}")]):
        run.recover_bundle(setting.rng.choice(downloaded), land_alone=True)
    run.report()
    return f"task: {what} cleared"


def _judge(oracle: Oracle, runs: list[DagRun], findings: Findings, *, has_rival: bool) -> Iterator[str]:
    for run in runs:
        yield from run.unexpected
        run.unexpected.clear()
        if run.statement and run.states["report"]:
            for wrong in oracle.of_statement(run.statement, has_rival=has_rival):
                yield f"{run.run_id}: {wrong}"
    yield from oracle.of_links()
