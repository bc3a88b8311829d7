"""``make fuzz``: every target under atheris, whose mutations follow the coverage of our code. One process a target.

What a target does not stand is written to ``.fuzz/TARGET/``; its bytes belong into ``tests/fuzz/seeds`` with the
mend, so that CI keeps the attack.
"""

from __future__ import annotations

import argparse
import logging
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNS = {
    "documents": 400_000,
    "tokens": 200_000,
    "splitter": 150_000,
    "urls": 150_000,
    "names": 150_000,
    "answers": 100_000,
    "listings": 100_000,
    "events": 100_000,
    "inbox": 100_000,
    "plans": 100_000,
    "ledger": 50_000,
}
"""Inputs of a target, by how fast it takes them: some tens of minutes in all."""


def _fuzz(name: str, arguments: list[str]) -> None:
    """Run one target in this process; atheris ends it."""
    import atheris

    sys.path.insert(0, str(HERE.parent))
    with atheris.instrument_imports(include=["livekit_backup", "json"]):
        from fuzz.targets import TARGETS

    logging.getLogger("livekit_backup").setLevel(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def _campaign(names: list[str], scale: float, seed: int, seconds: int) -> int:
    failed = 0
    print(f"{'target':<10} {'inputs':>9} {'seconds':>8} {'seed':>5} {'coverage':>8}  outcome")
    for name in names:
        folder = ROOT / ".fuzz" / name
        (folder / "corpus").mkdir(parents=True, exist_ok=True)
        options = [
            f"-runs={int(RUNS[name] * scale)}",
            f"-seed={seed}",
            "-max_len=1024",
            "-timeout=20",
            "-rss_limit_mb=2048",
        ]
        options += [
            f"-max_total_time={seconds}",
            f"-artifact_prefix={folder}/",
            str(folder / "corpus"),
            str(HERE / "seeds"),
        ]
        began = time.monotonic()
        command = [sys.executable, str(Path(__file__).resolve()), "--target", name, *options]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        (folder / "log.txt").write_text(done.stdout + done.stderr)
        counts = re.findall(r"#(\d+)\s", done.stderr)
        covered = re.findall(r" cov: (\d+)", done.stderr)
        outcome = "nothing found" if done.returncode == 0 else f"FAILED, see {folder / 'log.txt'}"
        failed += done.returncode != 0
        inputs = max(map(int, counts), default=0)
        last = covered[-1] if covered else "?"
        print(f"{name:<10} {inputs:>9} {time.monotonic() - began:>8.0f} {seed:>5} {last:>8}  {outcome}", flush=True)
    return failed


def main() -> int:
    """Run one target, or all of them one after the other."""
    if sys.argv[1:2] == ["--target"]:
        _fuzz(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[*RUNS, []], default=[])
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=600, help="at most, for each target")
    asked = parser.parse_args()
    return min(1, _campaign(asked.targets or list(RUNS), asked.scale, asked.seed, asked.seconds))


if __name__ == "__main__":
    raise SystemExit(main())
