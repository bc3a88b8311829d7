"""Installs an embedded S3 server into a virtual environment of its own, from pins, once."""

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


def ensure_venv(venv: Path, *, pins: Path, interpreter: Path) -> Path:
    """Install *pins* for *interpreter* unless they are there as pinned, and return the environment's Python."""
    tag = _ask(interpreter, "sys.implementation.cache_tag")
    wanted = hashlib.sha256(pins.read_bytes() + tag.encode()).hexdigest()
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
        _install(venv, interpreter, pins)
        stamp.write_text(wanted)
    return python


def _install(venv: Path, interpreter: Path, pins: Path) -> None:
    python = venv / "bin" / "python"
    create = [str(interpreter), "-I", "-m", "venv", "--clear", str(venv)]
    install = ["pip", "install", "--compile", "--no-deps", "--requirement", str(pins)]
    uv = _find_uv()
    if uv is not None:
        with contextlib.suppress(RuntimeError):  # a machine may have told only pip of its mirror
            run_command([*create, "--without-pip"])
            run_command([uv, *install, "--python", str(python)])
            return
    run_command(create)
    run_command([str(python), "-I", "-m", *install])


def find_python(version: str) -> Path | None:
    """Find an interpreter of a version such as ``3.13`` that really runs, or None."""
    for candidate in _interpreters(version):
        with contextlib.suppress(RuntimeError):
            # A shim of pyenv refuses to run a version that is installed but not chosen.
            found = _ask(candidate, "'%d.%d' % sys.version_info[:2], sys.executable", PYENV_VERSION=version)
            if found.startswith(f"{version} "):
                return Path(found.removeprefix(f"{version} "))
    return None


def _interpreters(version: str) -> Iterator[Path]:
    yield Path(sys.executable)
    for folder in os.get_exec_path():
        if found := shutil.which(f"python{version}", path=folder):
            yield Path(found)
    uv = _find_uv()
    if uv is not None:
        with contextlib.suppress(RuntimeError):
            yield Path(run_command([uv, "python", "find", "--managed-python", version]).strip())


def _find_uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _ask(interpreter: Path, expression: str, **environment: str) -> str:
    return run_command([str(interpreter), "-I", "-c", f"import sys; print({expression})"], **environment).strip()


def clean_environment() -> dict[str, str]:
    """Return the caller's environment without what points Python and its installers elsewhere."""
    elsewhere = (
        "PYTHON __PYVENV VIRTUAL_ENV CONDA_ NOTIFY_SOCKET PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_PYTHON "
        "PIP_CONSTRAINT UV_SYSTEM UV_PROJECT UV_PYTHON UV_TARGET UV_PREFIX UV_CONSTRAINT UV_OVERRIDE"
    )
    return {name: value for name, value in os.environ.items() if not name.startswith(tuple(elsewhere.split()))}


def run_command(command: Sequence[str], **environment: str) -> str:
    """Run a command and return its output. :raises RuntimeError: it failed; the text ends with its output."""
    try:
        return subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment() | environment,
            timeout=INSTALL_SECONDS,
        ).stdout
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
