"""Who may import whom, what an import costs, and how modules may be called."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import livekit_backup

PACKAGE = Path(livekit_backup.__file__).resolve().parent
ROOT = PACKAGE.parent.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
PRODUCT = [*sorted((ROOT / "plugins").rglob("*.py")), *sorted((ROOT / "dags").rglob("*.py"))]
ROOMS = {
    "models": 0,
    "core": 1,
    "hooks": 2,
    "triggers": 3,
    "operators": 3,
    "sensors": 3,
    "receiver": 3,
    "notifications": 3,
    "commands": 4,
}
OUTSIDE = {"plugin": 4, "provider_info": 4}
HEAVY = {
    "airflow",
    "boto3",
    "botocore",
    "aiobotocore",
    "httpx",
    "pydantic",
    "urllib3",
    "zstandard",
    "tenacity",
}


def _name(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


def _imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Every module that a file imports, wherever in it, with the imported name at the end."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from ((*(node.module or "").split("."), alias.name) for alias in node.names)


def _level(parts: tuple[str, ...]) -> int | None:
    """The floor of a module of the package; None for errors, which every floor uses."""
    if parts[0] in ROOMS:
        return ROOMS[parts[0]]
    return OUTSIDE.get(parts[0])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(_name(path)))
def test_imports_run_one_way(path):
    own = _name(path)
    for imported in _imports(path):
        if imported[0] != "livekit_backup" or len(imported) < 2 or own[0] == "testing":
            continue
        inner = imported[1:]
        assert inner[0] != "testing", "nobody but itself and tests imports testing"
        if own == ("errors",):
            assert inner[:2] == ("models", "outcome")
        elif inner[0] == "errors":
            assert own[0] != "models", "models raise no errors of the domain"
        elif (target := _level(inner)) is not None:
            mine = _level(own)
            assert mine is not None
            assert target <= mine, f"{'.'.join(own)} imports {'.'.join(inner)}"


@pytest.mark.parametrize("room", ["models", "core"])
def test_the_domain_knows_neither_airflow_nor_boto(room):
    banned = {"airflow", "boto3", "botocore", "aiobotocore"}
    for path in sorted((PACKAGE / room).rglob("*.py")):
        assert not banned & {imported[0] for imported in _imports(path)}, path.name


def test_every_folder_has_its_place():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {"testing"} <= set(ROOMS)


def test_stems_are_unique_and_shadow_nothing():
    stems = Counter(path.stem for path in (ROOT / "plugins").rglob("*.py") if path.stem != "__init__")
    assert [stem for stem, count in stems.items() if count > 1] == []
    assert sorted(set(stems) & set(sys.stdlib_module_names)) == []


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: path.name)
def test_no_file_is_long(path):
    assert len(path.read_text().splitlines()) <= 400


def _python(code: str, **env: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "plugins"), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_package_loads_nothing():
    loaded = _python("import json, sys, livekit_backup; print(json.dumps(sorted(sys.modules)))")
    assert not HEAVY & {name.partition(".")[0] for name in loaded}
    assert [name for name in loaded if name.startswith("livekit_backup.")] == []


def test_parsing_the_dag_loads_no_client_library(tmp_path):
    code = """
import json, sys
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
before = set(sys.modules)
bag = DagBag("dags")
assert not bag.import_errors, bag.import_errors
assert sorted(bag.dags) == ["livekit_backup_" + name for name in ("alarms", "landed_example", "reconcile", "recovery")], bag.dags
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    loaded = {name.partition(".")[0] for name in _python(code, AIRFLOW_HOME=str(tmp_path))}
    clients = {"boto3", "botocore", "aiobotocore", "httpx", "urllib3", "zstandard", "tenacity"}
    assert "livekit_backup" in loaded
    assert not clients & loaded


def test_airflow_reads_one_file_of_the_plugins_folder():
    ignored = (ROOT / "plugins" / ".airflowignore").read_text().split()
    assert "livekit_backup/" in ignored
    assert [path.name for path in (ROOT / "plugins").glob("*.py")] == ["livekit_backup_loader.py"]
