"""Runs the simulator: ``python -m soak --seed 1 --runs 5000``, or one run again: ``python -m soak --replay 1/137``."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from soak.one_run import simulate
from soak.setting import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--replay", help="the seed of a single run, as a failure names it")
    parser.add_argument("--most", type=int, default=5, help="failures that are told in full")
    asked = parser.parse_args()
    if asked.replay:
        logging.basicConfig(level=logging.DEBUG)
        findings = simulate(asked.replay)
        print(findings.told())
        return bool(findings.wrong)
    began = time.monotonic()
    counts, outcomes, failed = Counter(), Counter(), []
    for number in range(asked.runs):
        findings = simulate(f"{asked.seed}/{number}")
        counts += findings.counts
        outcomes += findings.outcomes
        if number and not number % 1000:
            print(f"{number} runs, {len(failed)} failed, {time.monotonic() - began:.0f} s", flush=True)
        if findings.wrong:
            failed.append(findings)
            if len(failed) <= asked.most:
                print(findings.told())
                print(f"replay it: make soak REPLAY={findings.seed}\n", flush=True)
    never = [kind for kind in KINDS if not counts[kind]]
    for kind, count in sorted(counts.items()):
        print(f"{count:8} {kind}")
    for outcome, count in outcomes.most_common():
        print(f"{count:8} files end as {outcome}")
    print(f"{asked.runs} runs of seed {asked.seed} in {time.monotonic() - began:.0f} s: {len(failed)} failed")
    for findings in failed[asked.most :]:
        print(f"failed too: {findings.seed}: {findings.wrong[0][:200]}")
    for kind in never:
        print(f"never happened: {kind}")
    return bool(failed or never)


if __name__ == "__main__":
    sys.exit(main())
