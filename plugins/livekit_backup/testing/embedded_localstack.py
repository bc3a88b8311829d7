"""A second, stricter S3 server for the tests: the S3 service of LocalStack.

It is the one that refuses a wrong whole-object checksum and a wrong size when
an upload is completed, stores checksums and tags, and copies parts. It takes
any secret in a signed header (a presigned URL is checked), and it keeps nothing
from one start to the next; for both see ``embedded_s3``::

    with EmbeddedLocalStack(Path("strict-s3")) as s3:
        client = s3.client()

It needs a Python 3.13 on the machine, whatever version runs this. It listens on
127.0.0.1 only, calls nobody, writes only below its data directory (about 480 MB
of memory, a few seconds to start), and dies with whoever started it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

from livekit_backup.testing.embedded_s3_install import ensure_venv, find_python, locked
from livekit_backup.testing.s3_endpoint import HOST, S3Endpoint, free_port, is_healthy, tail

PYTHON = "3.13"
_PINS = Path(__file__).with_name("embedded_localstack_constraints.txt")
# Idle it takes three seconds; it loads all of botocore's S3 model, and tests share two cores with much else.
_READY_SECONDS = 120.0
_STOP_SECONDS = 10.0

_SETTINGS = {
    "SERVICES": "s3",
    "EAGER_SERVICE_LOADING": "1",
    "STRICT_SERVICE_LOADING": "1",
    "S3_SKIP_SIGNATURE_VALIDATION": "0",
    # No telemetry, no download of a certificate.
    "DISABLE_EVENTS": "1",
    "SKIP_SSL_CERT_DOWNLOAD": "1",
    # Taken for a container, root gets directories in /etc, /usr and /var, pings, and a new resolv.conf.
    "OVERRIDE_IN_DOCKER": "0",
    "DNS_ADDRESS": "0",
    # It would go through a shell that interprets the path.
    "CLEAR_TMP_FOLDER": "0",
    "AWS_EC2_METADATA_DISABLED": "true",
}

_RUN_SERVER = f"""
import os, signal, threading

def follow_owner():
    os.read(0, 1)  # returns when the owner is gone, even by kill -9
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=follow_owner, daemon=True).start()

from functools import partial
from twisted.internet import endpoints
from localstack.services.s3 import provider
from localstack.utils.aws import aws_stack

# Its server takes only the port from GATEWAY_LISTEN and would serve every address of the machine.
endpoints.TCP4ServerEndpoint = partial(endpoints.TCP4ServerEndpoint, interface="{HOST}")
# Spares a name server the question where s3.{HOST} is.
aws_stack.CACHE_S3_HOSTNAME_DNS_STATUS = False
# All LocalStacks of a machine would share one directory.
provider.DEFAULT_S3_TMP_DIR = os.path.join(os.environ["TMPDIR"], "objects")

from localstack.runtime.main import main
main()
"""


class EmbeddedLocalStack(S3Endpoint):
    """One LocalStack that serves S3; a context manager. Everything in it is gone once it stops.

    Args:
        data_dir: Holds its files while it runs, and its log. One owner at a time.
        venv_dir: Where LocalStack is installed, ``data_dir/venv`` when not given. May be shared.
        port: The S3 port. 0 takes a free one and keeps it, while it can, for later starts.

    """

    access_key = secret_key = "test"

    def __init__(self, data_dir: Path, *, venv_dir: Path | None = None, port: int = 0) -> None:
        """Remember the places; nothing is written or started yet."""
        self.data_dir = Path(data_dir).resolve()
        self.venv_dir = Path(venv_dir).absolute() if venv_dir else self.data_dir / "venv"
        self._scratch, self._log = self.data_dir / "scratch", self.data_dir / "localstack.log"
        self._wanted, self._port = port, 0
        self._child: subprocess.Popen[bytes] | None = None
        self._ownership = contextlib.ExitStack()

    @property
    def endpoint_url(self) -> str:
        """The URL of the S3 API, known from the first start on."""
        if not self._port:
            raise RuntimeError("the port is known only once the server has been started")
        return f"http://{HOST}:{self._port}"

    def is_running(self) -> bool:
        """Tell whether the server that this object started is alive."""
        return self._child is not None and self._child.poll() is None

    def install(self) -> Path:
        """Install LocalStack unless it is there as pinned, and return its environment's Python.

        Raises:
            RuntimeError: There is no Python 3.13, or it cannot be installed.

        """
        interpreter = find_python(PYTHON)
        if interpreter is None:
            raise RuntimeError(f"LocalStack needs Python {PYTHON}, and there is none on this machine")
        return ensure_venv(self.venv_dir, pins=_PINS, interpreter=interpreter)

    def start(self) -> None:
        """Install what is missing, start the server and return once it answers.

        Raises:
            RuntimeError: It cannot be installed or does not come up; the text ends with its log.

        """
        if self.is_running():
            return
        self.kill()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._ownership.enter_context(locked(self.data_dir / "owner.lock", wait=False))
        try:
            python = self.install()
            self._port = self._choose_port()
            self._clear()
            with self._log.open("ab") as log:
                self._spawn(python, log)
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the server and remove its files. It keeps nothing, so there is nothing to wait for."""
        if self._child is not None:
            self._end()
            self._clear()
        self._ownership.close()

    def kill(self) -> None:
        """Kill the server at once, as a power cut would, and leave its files where they lie."""
        self._end()
        self._ownership.close()

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        return tail(self._log)

    def _choose_port(self) -> int:
        port = free_port(self._wanted or self._port)
        if self._wanted not in {0, port}:
            raise RuntimeError(f"port {self._wanted} is taken")
        return port

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        # Until it is waited for, the number is this child's even when it has ended.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(_STOP_SECONDS)
        if child.stdin is not None:
            child.stdin.close()

    def _clear(self) -> None:
        if self._scratch.exists():
            shutil.rmtree(self._scratch)

    def _spawn(self, python: Path, log: IO[bytes]) -> None:
        home, temporary = self._scratch / "home", self._scratch / "tmp"
        for directory in (home, temporary):
            directory.mkdir(parents=True)
        address = f"{HOST}:{self._port}"
        # It reads hundreds of variables, many of general names such as DEBUG: it gets none of the caller's.
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "FILESYSTEM_ROOT": str(self._scratch / "root"),
            "GATEWAY_LISTEN": address,
            "LOCALSTACK_HOST": address,
        }
        self._child = subprocess.Popen(
            [str(python), "-I", "-B", "-c", _RUN_SERVER],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=self._scratch,
            env=environment | _SETTINGS,
            start_new_session=True,
        )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not is_healthy(self._port, "/_localstack/health", b'"s3": "running"'):
            if not self.is_running():
                raise RuntimeError(f"LocalStack ended while starting\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answer from LocalStack in time\n{self.log_tail()}")
            time.sleep(0.05)
