"""``doctor`` on Airflow: the DAGs are there and run, and what runs them is alive."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from airflow.api.common.airflow_health import get_airflow_health
from airflow.models.dag import DagModel
from airflow.models.errors import ParseImportError
from airflow.models.pool import Pool
from airflow.sdk import conf
from airflow.utils.session import create_session
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from livekit_backup.commands.examined_setup import ExaminedSetup
from livekit_backup.hooks.configuration import configured_pool
from livekit_backup.models.finding import Finding, broken, note, ok, warning

RECOVERY_DAG = "livekit_backup_recovery"
RECONCILE_DAG = "livekit_backup_reconcile"
DEFAULT_MAX_MAP_LENGTH = 1024
"""Airflow's own."""
POOL_SLOTS = 8
"""Downloads at a time, where nobody has said how many: they cover each other's pauses and fit into one network."""
POOL_DESCRIPTION = "LiveKit downloads"
UNLIMITED = -1
"""Slots of a pool that bounds nothing."""

_FILE_MARK = "livekit_backup"
_LOST = {
    RECOVERY_DAG: "nothing is recovered",
    RECONCILE_DAG: "backups that no webhook brought are not found",
}


def dag_check(dag_id: str) -> Callable[[ExaminedSetup], Iterator[Finding]]:
    """Return the check of one DAG."""
    return lambda _: _check_dag(dag_id)


def _check_dag(dag_id: str) -> Iterator[Finding]:

    with create_session() as session:
        dag = session.get(DagModel, dag_id)
        state = None if dag is None or dag.is_stale else (bool(dag.is_paused), bool(dag.has_import_errors))
    folder = conf.get("core", "dags_folder")
    so_what = f"so {_LOST[dag_id]}" if dag_id in _LOST else "so it does nothing"
    if state is None:
        yield broken(
            f"Airflow knows no DAG {dag_id}, {so_what}",
            f"copy dags/{dag_id}.py into {folder} and run: airflow dags reserialize; a DAG of your own is looked at "
            "instead by --dag-id",
        )
        return
    is_paused, has_import_errors = state
    if has_import_errors:
        yield broken(f"the file of {dag_id} cannot be imported", "see why: airflow dags list-import-errors")
    if is_paused:
        yield broken(f"the DAG {dag_id} is paused, {so_what}", f"airflow dags unpause {dag_id}")
    if not is_paused and not has_import_errors:
        yield ok(f"{dag_id} is there and not paused")


def check_dag_files(setup: ExaminedSetup) -> Iterator[Finding]:
    """Look for DAG files of this package that could not be imported. What their errors say stays in Airflow."""
    del setup

    mark = f"%{_FILE_MARK}%"
    which = or_(ParseImportError.filename.like(mark), ParseImportError.stacktrace.like(mark))
    with create_session() as session:
        files = sorted({str(name) for name in session.scalars(select(ParseImportError.filename).where(which))})
    for file in files:
        yield broken(f"the DAG file {file} cannot be imported", "see why: airflow dags list-import-errors")
    if not files:
        yield ok("no DAG file of livekit_backup fails to import")


def check_database(setup: ExaminedSetup) -> Iterator[Finding]:
    """Ask Airflow's database something."""
    del setup

    try:
        with create_session() as session:
            count = session.scalar(select(func.count()).select_from(DagModel))
    except SQLAlchemyError as error:
        # Its text can repeat the database's URL.
        yield broken(
            f"Airflow's database does not answer as it should: {type(error).__name__}",
            "airflow db check; where it is new: airflow db migrate",
        )
        return
    yield ok(f"it answers, and knows {count} DAGs")


def check_components(setup: ExaminedSetup) -> Iterator[Finding]:
    """Look at the heartbeats in Airflow's database."""
    del setup

    health = get_airflow_health()
    for name, so_what in (
        ("scheduler", "no DAG runs"),
        ("triggerer", "runs wait for ever, since the sensor waits in it"),
        ("dag_processor", "no DAG file is read"),
    ):
        if health[name]["status"] == "healthy":
            yield ok(f"the {name} is alive")
            continue
        seen = _last_seen(health[name][f"latest_{name}_heartbeat"])
        yield broken(f"the {name} {seen}: {so_what}", f"start it: airflow {name.replace('_', '-')}")


def _last_seen(heartbeat: str | None) -> str:
    if not heartbeat:
        return "has never run on this database"
    since = datetime.now(UTC) - datetime.fromisoformat(heartbeat)
    return f"gave its last sign of life {since.total_seconds() / 60:.0f} minutes ago"


def check_pool(setup: ExaminedSetup) -> Iterator[Finding]:
    """Look for the pool of the download tasks, or make it where it is missing and that was asked for."""
    name = configured_pool()
    if name is None:
        yield ok("no pool is set: downloads run in Airflow's default_pool; pool in [livekit_backup] bounds their load")
        return
    make = f"airflow pools set {shlex.quote(name)} {POOL_SLOTS} {shlex.quote(POOL_DESCRIPTION)}"
    with create_session() as session:
        slots = session.scalar(select(Pool.slots).where(Pool.pool == name))
        if slots is None and setup.may_fix:
            session.add(Pool(pool=name, slots=POOL_SLOTS, description=POOL_DESCRIPTION, include_deferred=False))
    if slots is None and setup.may_fix:
        yield note(f"made the pool {name} with {POOL_SLOTS} slots, since it was missing")
    elif slots is None:
        yield broken(
            f"there is no pool {name}, so no download ever starts", f"{make}; or: airflow livekit-backup doctor --fix"
        )
    elif slots == UNLIMITED:
        yield warning(f"the pool {name} has no limit, so it bounds nothing", make)
    elif slots < 1:
        yield broken(f"the pool {name} has {slots} slots, so no download ever starts", make)
    else:
        yield ok(f"the pool {name} lets {slots} downloads run at a time")


def check_map_length(setup: ExaminedSetup) -> Iterator[Finding]:
    """See how many files one run can recover."""
    del setup
    most = conf.getint("core", "max_map_length", fallback=DEFAULT_MAX_MAP_LENGTH)
    if most < DEFAULT_MAX_MAP_LENGTH:
        yield warning(
            f"[core] max_map_length is {most}: of an hour with more files than that the rest waits for a person",
            f"AIRFLOW__CORE__MAX_MAP_LENGTH={DEFAULT_MAX_MAP_LENGTH} or more",
        )
    else:
        yield ok(f"one run can recover {most} files ([core] max_map_length)")
