"""What all tests share: Airflow's home is set before anything imports Airflow."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from livekit_backup.testing.embedded_localstack import EmbeddedLocalStack
    from livekit_backup.testing.embedded_s3 import EmbeddedS3

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="livekit-backup-airflow-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ.setdefault("AIRFLOW__CORE__UNIT_TEST_MODE", "False")
# Tests talk to servers on loopback; a proxy of the machine has no part in it.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a source that refused, unless that asks for it."""
    monkeypatch.setattr("livekit_backup.core.resuming_reader.FIRST_WAIT_SECONDS", 0.0)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """The embedded S3 server, with the checkout's shared installation of it."""
    from livekit_backup.testing.embedded_s3 import EmbeddedS3

    with EmbeddedS3(tmp_path_factory.mktemp("s3"), venv_dir=ROOT / ".embedded-s3" / "venv") as server:
        yield server


@pytest.fixture(scope="session")
def s3_client(s3_server: EmbeddedS3) -> Any:
    """A plain boto3 client: the tests' own eyes, beside the product's."""
    return s3_server.client()


@pytest.fixture(scope="session")
def strict_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedLocalStack]:
    """The strict S3 server, with the checkout's shared installation of it; it needs a Python 3.13."""
    from livekit_backup.testing.embedded_localstack import PYTHON, EmbeddedLocalStack
    from livekit_backup.testing.embedded_s3_install import find_python

    if find_python(PYTHON) is None:
        pytest.skip(f"LocalStack needs Python {PYTHON}, and there is none on this machine")
    directory = tmp_path_factory.mktemp("strict-s3")
    server = EmbeddedLocalStack(directory, venv_dir=ROOT / ".embedded-s3" / "localstack-venv")
    try:
        server.install()
    except RuntimeError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"LocalStack cannot be installed: {str(error).strip().splitlines()[-1]}")
    with server:
        yield server
