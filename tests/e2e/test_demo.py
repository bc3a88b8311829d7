"""The README's first command, as a user types it; its own exit code is the verdict."""

from __future__ import annotations

import subprocess
import sys

from ..conftest import ROOT


def test_the_demo_recovers_what_can_be_recovered_and_names_the_rest() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "demo" / "play.py")], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "All as it should be" in done.stdout
    assert "X-Amz-" not in done.stdout + done.stderr
