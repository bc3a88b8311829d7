"""Installs Swift into a virtual environment of its own, from pins, once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INSTALL_SECONDS = 480.0


def ensure_venv(venv: Path) -> Path:
    """Install Swift unless it is there as pinned, and return the environment's Python."""
    pins = Path(__file__).with_name("embedded_s3_constraints.txt")
    wanted = hashlib.sha256(pins.read_bytes() + str(sys.implementation.cache_tag).encode()).hexdigest()
    # Beside the environment, not in it: proves that a half-built one is ours to clear.
    stamp = venv.with_name(f"{venv.name}.stamp")
    python = venv / "bin" / "python"
    venv.parent.mkdir(parents=True, exist_ok=True)
    with locked(venv.with_name(f"{venv.name}.lock"), wait=True):
        if python.exists() and stamp.exists() and stamp.read_text() == wanted:
            return python
        if venv.exists() and not stamp.exists():
            raise RuntimeError(f"{venv} exists and was not made here: it is left alone")
        stamp.write_text("unfinished")
        _install(venv, python, pins)
        stamp.write_text(wanted)
    return python


def _install(venv: Path, python: Path, pins: Path) -> None:
    create = [sys.executable, "-I", "-m", "venv", "--clear", str(venv)]
    install = ["pip", "install", "--compile", "--no-deps", "--requirement", str(pins)]
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is not None:
        with contextlib.suppress(RuntimeError):  # a machine may have told only pip of its mirror
            run_command([*create, "--without-pip"])
            run_command([uv, *install, "--python", str(python)])
            return
    run_command(create)
    run_command([str(python), "-I", "-m", *install])


def clean_environment() -> dict[str, str]:
    """Return the caller's environment without what points Python and its installers elsewhere."""
    elsewhere = (
        "PYTHON __PYVENV VIRTUAL_ENV CONDA_ NOTIFY_SOCKET PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_PYTHON "
        "PIP_CONSTRAINT UV_SYSTEM UV_PROJECT UV_PYTHON UV_TARGET UV_PREFIX UV_CONSTRAINT UV_OVERRIDE"
    )
    return {name: value for name, value in os.environ.items() if not name.startswith(tuple(elsewhere.split()))}


def run_command(command: Sequence[str]) -> None:
    """Run a command to its end. :raises RuntimeError: it failed; the text ends with its output."""
    try:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(),
            timeout=INSTALL_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as error:
        output = str(getattr(error, "output", "") or "")
        raise RuntimeError(f"{Path(command[0]).name} failed: {error}\n{output[-4000:]}") from error


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a file lock. :raises RuntimeError: another process has it, and it is not to be waited for."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise RuntimeError(f"{path.parent} is in use by another live owner") from error
        yield
