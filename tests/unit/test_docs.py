"""The docs name every operator, parameter, configuration key, outcome and error, and only what there is."""

from __future__ import annotations

import inspect
import re

import pytest
from airflow.sdk import BaseOperator

from livekit_backup import errors
from livekit_backup.commands.definition import COMMANDS
from livekit_backup.hooks.configuration import DAG_KEYS, KEYS, RECEIVER_KEYS
from livekit_backup.models.landing_template import LANDING_FIELDS
from livekit_backup.models.ledger_entry import LedgerEntry
from livekit_backup.models.outcome import Outcome
from livekit_backup.models.reconciliation import BackupState
from livekit_backup.operators.ingest_events import IngestEventsOperator
from livekit_backup.operators.raise_alarms import RaiseAlarmsOperator
from livekit_backup.operators.reconcile import (
    ReconcileOperator,
    ReconciliationReportOperator,
    RecoverMissedOperator,
)
from livekit_backup.operators.recover_files import DownloadFilesOperator, VerifyAndLandOperator
from livekit_backup.operators.recovery_operator import RecoveryOperator
from livekit_backup.operators.report import AllSafeOperator, ReportOperator
from livekit_backup.operators.resolve_manifests import ResolveManifestsOperator
from livekit_backup.sensors.backup_event import BackupEventSensor
from livekit_backup.testing import Fault
from livekit_backup.triggers.inbox_window import InboxWindowTrigger

from ..conftest import ROOT

OPERATORS = [
    AllSafeOperator,
    BackupEventSensor,
    DownloadFilesOperator,
    IngestEventsOperator,
    RaiseAlarmsOperator,
    ReconcileOperator,
    ReconciliationReportOperator,
    RecoverMissedOperator,
    ReportOperator,
    ResolveManifestsOperator,
    VerifyAndLandOperator,
]
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| \**`(\w+)`", re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_every_operator_and_its_own_arguments(operator: type) -> None:
    sections = dict(SECTION.findall(page("operators.md")))
    assert operator.__module__ in sections[operator.__name__]
    own = {
        name
        for base in operator.__mro__
        if base.__module__.startswith("livekit_backup.") and base is not RecoveryOperator
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    } - set(KEYS)
    assert set(ROW.findall(sections[operator.__name__])) == {
        name for name in own if name in inspect.getsource(inspect.getmodule(operator))
    }


def test_all_operators_are_here() -> None:
    def subclasses(kind: type) -> set[type]:
        return {kind, *(deeper for sub in kind.__subclasses__() for deeper in subclasses(sub))}

    ours = {
        kind
        for kind in subclasses(BaseOperator)
        if kind.__module__.startswith("livekit_backup.") and "Base of the" not in (kind.__doc__ or "")
    }
    assert ours - {RecoveryOperator} == set(OPERATORS)


def test_the_trigger_and_its_arguments() -> None:
    text = page("operators.md")
    assert InboxWindowTrigger.__module__ in text
    for name in list(inspect.signature(InboxWindowTrigger.__init__).parameters)[1:]:
        assert f"`{name}`" in text


def test_every_configuration_key() -> None:
    table = page("configuration.md").partition("## The inbox")[0]
    assert tuple(ROW.findall(table)) == (*KEYS, *DAG_KEYS, *RECEIVER_KEYS)
    first = page("operators.md").partition("##")[0]
    assert all(f"`{key}`" in first for key in KEYS)
    fields = page("configuration.md").partition("## landing_key")[2].partition("## ")[0]
    assert all(f"`{field}`" in fields or f"`{{{field}}}`" in fields for field in LANDING_FIELDS)


def test_every_error_with_its_outcome() -> None:
    rows = dict(re.findall(r"^\| \**`(\w+)`\** \|.*\| (?:`(\w+)`)? ?\|$", page("errors.md"), re.MULTILINE))
    classes = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.LivekitBackupError)
    }
    assert rows.keys() == classes.keys() - {"LivekitBackupError"}
    for name, outcome in rows.items():
        assert outcome in ("", classes[name].outcome.value), name


def test_every_outcome() -> None:
    assert ROW.findall(page("outcomes.md")) == [outcome.value for outcome in Outcome]


def test_every_field_of_the_ledger() -> None:
    table = page("ledger.md").partition("## A run's documents")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))))
    assert named == set(LedgerEntry.model_fields)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_and_its_options(command) -> None:
    section = page("commands.md").partition(f"\n## {command.name}\n")[2].partition("\n## ")[0]
    options = {arg.flags[-1] for arg in command.args if arg.flags[0].startswith("-")}
    assert options <= set(re.findall(r"^\| `(--[a-z-]+)`", section, re.MULTILINE))


def test_every_state_of_a_backup() -> None:
    section = page("commands.md").partition("## status")[2].partition("## recover")[0]
    assert ROW.findall(section) == [state.value for state in BackupState]


def test_every_fault_of_the_fake() -> None:
    assert ROW.findall(page("testing.md")) == [fault.name for fault in Fault]


@pytest.mark.parametrize(
    ("dag", "heading"), [("recovery", "## The DAG's params"), ("reconcile", "## The reconcile DAG's params")]
)
def test_every_param_of_the_dags(dag: str, heading: str) -> None:
    source = (ROOT / "dags" / f"livekit_backup_{dag}.py").read_text()
    params = re.findall(r'^        "(\w+)": Param\(', source, re.MULTILINE)
    table = page("operators.md").partition(heading)[2].partition("## ")[0]
    assert ROW.findall(table) == params


def test_links_lead_somewhere() -> None:
    for file in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", file.read_text()):
            path, _, anchor = target.partition("#")
            linked = (file.parent / path) if path else file
            assert linked.exists(), (file.name, target)
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if anchor else []
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, (file.name, target)


def test_the_readmes_commands_are_those_of_the_makefile_and_ci() -> None:
    commands = re.findall(r"^\$ make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{command}:", makefile, re.MULTILINE) for command in commands)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_readmes_dag_is_a_dag() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(source, "README.md", "exec"), names)
    dag = names["report"].dag
    assert {"wait_for_events", "ingest_events", "recover_files.download", "all_safe"} <= set(dag.task_ids)
    assert {task.retries for task in dag.tasks} == {4}, "what may succeed later is retried"
