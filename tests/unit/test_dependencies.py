"""What is installed is what was looked at: every dependency is pinned, declared where it is used, and from nowhere named.

Needs no network: a list of known vulnerabilities is looked at by whoever has one, see SECURITY.md.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: [*map(Requirement, listed)] for name, listed in PROJECT["optional-dependencies"].items()}
NEEDED = [*map(Requirement, PROJECT["dependencies"])]
CONSTRAINTS = [ROOT / "constraints.txt", *sorted((ROOT / "plugins").rglob("*_constraints.txt"))]
ELSEWHERE = re.compile(r"pypi\.org|pythonhosted|extra-index|index-url|find-links|trusted-host|git\+|https?://\S+\.whl")


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def _pins(path: Path) -> dict[str, Version]:
    """The pins that count on this machine."""
    pinned = [one for one in map(Requirement, _lines(path)) if one.marker is None or one.marker.evaluate()]
    assert len({_name(one) for one in pinned}) == len(pinned), f"{path.name} pins a name twice"
    return {_name(one): Version(str(one.specifier).removeprefix("==")) for one in pinned}


PINS = _pins(CONSTRAINTS[0])


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.name)
def test_a_constraint_is_a_name_and_one_version(path):
    for requirement in map(Requirement, _lines(path)):
        [only] = requirement.specifier
        assert (only.operator, requirement.url, requirement.extras) == ("==", None, set()), str(requirement)
        assert "*" not in only.version
    assert _pins(path)


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_what_is_declared_is_pinned_to_what_it_allows(extra):
    for requirement in EXTRAS[extra] if extra else NEEDED:
        assert _name(requirement) in PINS, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(PINS[_name(requirement)]), requirement
        assert requirement.url is None, requirement


def test_what_they_need_in_turn_is_pinned_too():
    """As far as it is installed here, which is all of the package's own needs and of its tests'."""
    seen, ahead = set(), [*NEEDED, *EXTRAS["dev"]]
    while ahead:
        requirement = ahead.pop()
        if (key := (_name(requirement), frozenset(requirement.extras))) in seen:
            continue
        seen.add(key)
        assert key[0] in PINS, f"{requirement.name} is needed, and not in constraints.txt"
        try:
            needs = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            marker = need.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
                ahead.append(need)
    assert len(seen) > 100


def test_what_is_installed_is_what_is_pinned():
    installed = {canonicalize_name(one.metadata["Name"]): Version(one.version) for one in metadata.distributions()}
    other = {name: (str(installed[name]), str(pin)) for name, pin in PINS.items() if installed.get(name, pin) != pin}
    assert other == {}


def test_extras_are_apart():
    """Nobody who runs the plugin installs what only its tests, benches or fuzzing need."""
    needed = {_name(requirement) for requirement in NEEDED}
    for extra in ("bench", "dev", "fuzz"):
        assert not needed & {_name(requirement) for requirement in EXTRAS[extra]}, extra


def _outside_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names - {"livekit_backup", "__future__"}


PROVIDED = {"boto3", "botocore", "sqlalchemy", "fastapi", "airflow", "aiobotocore", "openlineage", "pydantic_core"}
"""Parts of Airflow, of its amazon and openlineage providers and of pydantic, whose versions belong together."""


def test_what_is_imported_is_declared():
    provided = metadata.packages_distributions()
    declared = {_name(requirement) for requirement in [*NEEDED, *EXTRAS["openlineage"], *EXTRAS["media"]]}
    for path in sorted((ROOT / "plugins" / "livekit_backup").rglob("*.py")):
        if "testing" in path.parts:
            continue
        for module in _outside_imports(path) - PROVIDED:
            by = {canonicalize_name(name) for name in provided.get(module, ())}
            assert by & declared, f"{path.relative_to(ROOT)} imports {module}, which no dependency declares"


def test_no_place_to_install_from_is_named():
    """Whoever installs says from where; a place in a file would be asked for names that are not there, too."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=30)
    if listed.returncode:
        pytest.skip("no git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path == Path(__file__).resolve() or not path.is_file() or path.suffix in (".svg", ".png", ".gz"):
            continue
        found = ELSEWHERE.search(path.read_text(errors="replace"))
        assert found is None, f"{name}: {found and found.group()}"
