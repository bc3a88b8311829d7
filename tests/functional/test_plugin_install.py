"""The two ways to install: as a distribution, and as a mounted plugins folder; and both at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from ..conftest import ROOT

PLUGINS = ROOT / "plugins"
PROBE = """
import json, sys, warnings
from airflow import plugins_manager
from airflow.sdk import plugins_manager as task_plugins
from importlib.metadata import distributions
import http
plugins, errors = plugins_manager._get_plugins()
task = task_plugins._get_plugins()
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
names = [plugin.name for plugin in plugins]
print("RESULT" + json.dumps({
    "ours": [str(plugin.source) for plugin in plugins if plugin.name == "livekit_backup"],
    "task_side": [plugin.name for plugin in task[0]].count("livekit_backup"),
    "names": names,
    "task_names": [plugin.name for plugin in task[0]],
    "errors": {**errors, **task[1]},
    "http_is_standard": http.__file__.startswith(sys.base_prefix),
    "top_level": sorted(name for name in sys.modules if name in %r),
    "dag_errors": {str(key): str(value) for key, value in bag.import_errors.items()},
    "dags": sorted(bag.dags),
}))
""" % sorted(
    path.stem for path in (PLUGINS / "livekit_backup").rglob("*.py") if path.stem not in ("__init__", "__main__")
)


def probe(tmp_path: Path, python: list[str], **environment: str) -> dict:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}
    done = subprocess.run(
        [*python, "-c", PROBE, str(ROOT / "dags")],
        env={
            **inherited,
            "AIRFLOW_HOME": str(tmp_path / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rror" not in done.stderr, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return json.loads(line.removeprefix("RESULT"))


def assert_whole(found: dict, source: str) -> None:
    assert len(found["ours"]) == 1 and source in found["ours"][0], found
    assert found["task_side"] == 1
    assert found["names"] and set(found["names"]) == set(found["task_names"]), "no other plugin was dropped"
    assert found["errors"] == {} == found["dag_errors"]
    assert found["http_is_standard"] and found["top_level"] == []
    assert found["dags"] == [f"livekit_backup_{name}" for name in ("alarms", "landed_example", "reconcile", "recovery")]


@pytest.fixture(scope="module")
def without_distribution(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A Python that has everything installed but this distribution."""
    folder = tmp_path_factory.mktemp("site")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "livekit_backup" not in entry.name and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    return ["env", f"PYTHONPATH={folder}", str(base), "-S"]


def test_the_installed_distribution_is_loaded_once(tmp_path: Path) -> None:
    found = probe(tmp_path, [sys.executable], AIRFLOW__CORE__PLUGINS_FOLDER=str(tmp_path / "none"))
    assert_whole(found, "EntryPoint")


def test_a_mounted_folder_beside_the_distribution_yields_to_it(tmp_path: Path) -> None:
    found = probe(tmp_path, [sys.executable], AIRFLOW__CORE__PLUGINS_FOLDER=str(PLUGINS))
    assert_whole(found, "EntryPoint")


def test_a_mounted_folder_alone_is_loaded(tmp_path: Path, without_distribution: list[str]) -> None:
    found = probe(tmp_path, without_distribution, AIRFLOW__CORE__PLUGINS_FOLDER=str(PLUGINS))
    assert_whole(found, "livekit_backup_loader.py")


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "livekit_backup",
        "airflow_provider_livekit_backup",
    }
    assert {"livekit_backup/py.typed", "livekit_backup/testing/embedded_s3_constraints.txt"} <= names
