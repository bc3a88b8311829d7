"""A real S3 server without containers and without root, for the demo and the tests.

It is OpenStack Swift behind its own ``s3api``: four small servers on loopback
that check signatures and expiry, keep what they acknowledged through
``kill -9``, and refuse what S3 refuses. Swift is installed into a virtual
environment of its own, so that its dependencies never meet Airflow's::

    with EmbeddedS3(Path("demo/s3")) as s3:
        client = boto3.client("s3", endpoint_url=s3.endpoint_url, ...)

For people: ``python -m livekit_backup.testing.embedded_s3 serve --data-dir DIR --port N``.

The credentials are fixed and public, and Swift's inner servers trust whoever
reaches them. All listen on 127.0.0.1 only: no place for real recordings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from livekit_backup.testing.embedded_s3_config import (
    BACKEND_CONF,
    BUILD_RINGS,
    MEMORY_CACHE,
    PROXY_CONF,
    PROXY_PIPELINE,
    RUN_SERVER,
    SERVER_CONF,
    SWIFT_CONF,
)
from livekit_backup.testing.embedded_s3_install import clean_environment, ensure_venv, locked, run_command
from livekit_backup.testing.s3_endpoint import HOST, S3Endpoint, free_port, is_healthy, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

_PINS = Path(__file__).with_name("embedded_s3_constraints.txt")

_BACKENDS = {"account": "account", "container": "container", "object": "obj"}
# The proxy first: once it is dead nothing more is acknowledged, whatever the others lose.
_MODULES = {"proxy": "proxy"} | _BACKENDS
_READY_SECONDS = 60.0
_STOP_SECONDS = 10.0


class EmbeddedS3(S3Endpoint):
    """One S3 server with its data under *data_dir*; a context manager.

    Args:
        data_dir: Holds objects, rings, logs and process ids. Survives restarts; one owner at a time.
        venv_dir: Where Swift is installed, ``data_dir/venv`` when not given. May be shared.
        port: The S3 port. 0 takes a free one and keeps it for later starts on the same *data_dir*.

    """

    access_key = "livekit:backup"  # tempauth's account:user
    secret_key = "embedded-secret"

    def __init__(self, data_dir: Path, *, venv_dir: Path | None = None, port: int = 0) -> None:
        """Remember the places; nothing is written or started yet."""
        self.data_dir = Path(data_dir).resolve()
        if set(str(self.data_dir)) & set("%#\n"):
            raise ValueError(f"{self.data_dir}: Swift's configuration would interpret '%', '#' and line ends")
        self.venv_dir = Path(venv_dir).absolute() if venv_dir else self.data_dir / "venv"
        self._etc, self._run, self._logs = (self.data_dir / name for name in ("etc", "run", "logs"))
        self._devices = self.data_dir / "devices"
        self._port = port
        self._ports: dict[str, int] = {}
        self._children: list[subprocess.Popen[bytes]] = []
        self._ownership = contextlib.ExitStack()

    @property
    def endpoint_url(self) -> str:
        """The URL of the S3 API, known from the first start on."""
        if not self._ports:
            raise RuntimeError("the port is known only once the server has been started")
        return f"http://{HOST}:{self._ports['proxy']}"

    def is_running(self) -> bool:
        """Tell whether all the servers that this object started are alive."""
        return bool(self._children) and all(child.poll() is None for child in self._children)

    def start(self) -> None:
        """Install what is missing, start the servers and return once they answer.

        Raises:
            RuntimeError: It cannot be installed or does not come up; the text ends with its log.

        """
        if self.is_running():
            return
        self.kill()
        for directory in (self._etc, self._run, self._logs, self._devices / "disk"):
            directory.mkdir(parents=True, exist_ok=True)
        self._ownership.enter_context(locked(self.data_dir / "owner.lock", wait=False))
        try:
            self._launch()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the servers, and kill those that do not stop in time."""
        if self._children:
            self._signal_servers(signal.SIGTERM)
        self.kill()

    def kill(self) -> None:
        """Kill all servers at once, as a power cut would; the data stays for the next start."""
        if self._children:
            self._signal_servers(signal.SIGKILL)
        for child in self._children:
            child.wait(_STOP_SECONDS)
        self._children = []
        self._ownership.close()

    def log_tail(self) -> str:
        """Return the last lines of every server's log."""
        return "\n".join(f"--- {name}\n{tail(self._logs / f'{name}.log')}" for name in _MODULES)

    def _launch(self) -> None:
        user = _check_machine(self._devices)
        python = ensure_venv(self.venv_dir, pins=_PINS, interpreter=Path(sys.executable))
        # Servers of an owner that was killed still hold the ports and the data.
        self._signal_servers(signal.SIGTERM)
        self._signal_servers(signal.SIGKILL)
        self._ports = self._choose_ports()
        self._configure(python, user)
        for name in _MODULES:
            self._spawn(python, name)
        self._await_ready()

    def _conf(self, name: str) -> Path:
        return self._etc / f"{name}-server.conf"

    def _servers(self) -> list[int]:
        """Find the live servers of this data directory, whoever started them."""
        found = []
        for name in _MODULES:
            with contextlib.suppress(OSError, ValueError):
                pid = int((self._run / f"{name}.pid").read_text())
                arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                # The number may be a stranger's by now: only our own command line proves it.
                if {_module(name), str(self._conf(name))} <= set(arguments):
                    found.append(pid)
        return found

    def _signal_servers(self, number: signal.Signals) -> None:
        servers = self._servers()
        for pid in servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        deadline = time.monotonic() + _STOP_SECONDS
        while any(_holds_ports(pid) for pid in servers) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _choose_ports(self) -> dict[str, int]:
        memory = self.data_dir / "ports.json"
        wanted: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):
            wanted = json.loads(memory.read_text())
        if self._port:
            wanted["proxy"] = self._port
        ports: dict[str, int] = {}
        for name in _MODULES:
            ports[name] = free_port(wanted.get(name, 0), ports.values())
        if self._port not in {0, ports["proxy"]}:
            raise RuntimeError(f"port {self._port} is taken")
        memory.write_text(json.dumps(ports))
        return ports

    def _configure(self, python: Path, user: str) -> None:
        (self._etc / "swift.conf").write_text(SWIFT_CONF)
        (self._etc / "memory_cache.py").write_text(MEMORY_CACHE)
        for name, port in self._ports.items():
            text = SERVER_CONF.format(port=port, etc=self._etc, devices=self._devices, user=user)
            text += BACKEND_CONF.format(name=name) if name in _BACKENDS else self._proxy_conf()
            self._conf(name).write_text(text)
        rings = json.dumps({name: self._ports[name] for name in _BACKENDS})
        run_command([str(python), "-I", "-c", BUILD_RINGS, str(self._etc), rings])

    def _proxy_conf(self) -> str:
        text = PROXY_CONF.format(pipeline=PROXY_PIPELINE, secret=self.secret_key)
        plain = [name for name in PROXY_PIPELINE.split() if f"[filter:{name}]" not in text]
        return text + "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in plain)

    def _spawn(self, python: Path, name: str) -> None:
        arguments = [str(self._etc), _module(name), str(self._conf(name))]
        with (self._logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [str(python), "-I", "-c", RUN_SERVER, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
                start_new_session=True,
            )
        self._children.append(child)
        (self._run / f"{name}.pid").write_text(str(child.pid))

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        waiting = list(_MODULES)
        while waiting:
            if not self.is_running():
                raise RuntimeError(f"an S3 server ended while starting\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answer in time from {waiting}\n{self.log_tail()}")
            time.sleep(0.05)
            waiting = [name for name in waiting if not is_healthy(self._ports[name], "/healthcheck")]


def _module(name: str) -> str:
    return f"swift.{_MODULES[name]}.server"


def _holds_ports(pid: int) -> bool:
    """Tell whether a process is still there; one that dies loses its command line first, its ports later."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def _check_machine(directory: Path) -> str:
    """Return the user's name after checking what Swift would only complain about at the first PUT."""
    if sys.platform != "linux":
        raise RuntimeError("the embedded S3 server runs on Linux only")
    try:
        # An object's name and ETag live in extended attributes.
        os.setxattr(directory, "user.livekit_backup", b"1")
        return pwd.getpwuid(os.geteuid()).pw_name
    except OSError as error:
        raise RuntimeError(f"{directory} is on a file system without user extended attributes") from error
    except KeyError as error:
        raise RuntimeError("Swift needs a user with a name, and this one is not in passwd") from error


def _serve(data_dir: Path, venv_dir: Path | None, port: int) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), EmbeddedS3(data_dir, venv_dir=venv_dir, port=port) as s3:
        sys.stdout.write(
            f"endpoint    {s3.endpoint_url}\nregion      {s3.region}  (path style)\n"
            f"access key  {s3.access_key}\nsecret key  {s3.secret_key}\n"
        )
        sys.stdout.flush()
        while s3.is_running():
            time.sleep(0.5)
        sys.stderr.write(f"an S3 server ended by itself\n{s3.log_tail()}\n")
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve in the foreground until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m livekit_backup.testing.embedded_s3")
    serve = parser.add_subparsers(required=True).add_parser("serve", help="run until SIGINT or SIGTERM")
    serve.add_argument("--data-dir", type=Path, required=True, help="where the objects live")
    serve.add_argument("--venv-dir", type=Path, help="where Swift is installed (default: in the data)")
    serve.add_argument("--port", type=int, default=0, help="0 takes a free one and keeps it")
    arguments = parser.parse_args(argv)
    return _serve(arguments.data_dir, arguments.venv_dir, arguments.port)


if __name__ == "__main__":
    sys.exit(main())
