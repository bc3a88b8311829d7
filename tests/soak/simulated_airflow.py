"""One DAG run as Airflow makes it: tasks with their tries, what follows what, and clears by a person.

What an operator does between Airflow and the core stands here in a few lines each; the core itself is the real one.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

from livekit_backup.core.bundling import bundle, capacity
from livekit_backup.core.file_links import BackupLinks, RenewedSource
from livekit_backup.core.inbox import IntakeReader
from livekit_backup.core.ledger import Ledger
from livekit_backup.core.manifest_client import ManifestClient
from livekit_backup.core.primary_copy import StoreSource, copy_within_store
from livekit_backup.core.recovering import FileRecovery, Sources
from livekit_backup.core.run_plan import account_for, plan_run
from livekit_backup.core.statements import make_statement, render
from livekit_backup.core.warehouse_check import warehouse_abilities
from livekit_backup.errors import LivekitBackupError, NeedsOperatorError, PermanentError, UploadLostError
from livekit_backup.models.bundle import Bundle
from livekit_backup.models.ledger_entry import Attempt
from livekit_backup.models.references import RecordingFile
from livekit_backup.models.statement import Statement
from livekit_backup.models.window import Window

from .between_tries import DAYS_PASS, ZOMBIE
from .chaos import KilledError, Process
from .recordings import SMALL, TOKEN
from .setting import Setting
from .simulated_time import BEGIN

MOST = 1024


class LeakError(AssertionError):
    """A signed URL showed."""


@dataclass
class DagRun:
    """A run, and what became of its tasks so far."""

    setting: Setting
    run_id: str
    retries: int = 3
    states: dict[str, bool] = field(default_factory=dict)
    bundles: list[str] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    statement: Statement | None = None
    unexpected: list[str] = field(default_factory=list)
    """Errors that are none of ours: each is a bug."""

    # -- the whole, and its parts

    def run(self) -> None:
        """Run all tasks in their order."""
        self.ingest()
        if self.states["ingest"]:
            self.resolve()
        self.recover()
        self.report()

    def ingest(self) -> None:
        self._task("ingest", self._ingest)

    def resolve(self) -> None:
        self._task("resolve", self._resolve)

    def recover(self) -> None:
        for bundle_id in self.setting.rng.sample(self.bundles, len(self.bundles)):
            self.recover_bundle(bundle_id)

    def recover_bundle(self, bundle_id: str, *, land_alone: bool = False) -> None:
        """The task group of one bundle; or what a person clears of it."""
        if land_alone or self._task(f"download {bundle_id}", lambda attempt: self._download(attempt, bundle_id)):
            self._task(f"land {bundle_id}", lambda attempt: self._land(attempt, bundle_id))

    def report(self) -> None:
        self._task("report", self._report)

    # -- tries

    def _task(self, name: str, work: Callable[[Attempt], None]) -> bool:
        """Try a task as often as Airflow would, and return whether it succeeded."""
        for left in range(self.retries, -1, -1):
            number = self.tries[name] = self.tries.get(name, 0) + 1
            self._patient = bool(left)
            process = Process(f"{self.run_id} {name} try {number}")
            self.setting.stage.enter(process)
            attempt = Attempt(dag_id="d", run_id=self.run_id, task_id=name, try_number=number)
            self._let_days_pass(process)
            try:
                self._work(work, attempt, process)
            except KilledError:
                pass
            except (PermanentError, NeedsOperatorError) as error:
                self._look_at(error)
                break
            except LivekitBackupError as error:
                self._look_at(error)
            except Exception as error:  # noqa: BLE001 - Airflow retries it; here it is a finding
                self.unexpected.append(f"{name}: {''.join(traceback.format_exception(error))}")
            else:
                self.states[name] = True
                return True
            self.setting.clock.sleep(self.setting.rng.random() * 60)
        self.states[name] = False
        return False

    def _let_days_pass(self, process: Process) -> None:
        """Let a scheduler that was away begin this try when most links are dead."""
        if self.setting.chaos.strike([DAYS_PASS], process.name, 0.3):
            self.setting.clock.sleep(timedelta(days=5).total_seconds())

    def _work(self, work: Callable[[Attempt], None], attempt: Attempt, process: Process) -> None:
        """Do it; perhaps beside an earlier try that Airflow has given up, and that lives on: a zombie."""
        if attempt.try_number == 1 or not self.setting.chaos.strike([ZOMBIE], process.name):
            work(attempt)
            return
        errors: list[BaseException] = []
        before = attempt.model_copy(update={"try_number": attempt.try_number - 1})

        def live_on() -> None:
            self.setting.stage.enter(Process(f"{process.name}, the zombie before it"))
            # Nobody hears what became of it.
            with contextlib.suppress(LivekitBackupError, KilledError):
                work(before)

        def go() -> None:
            self.setting.stage.enter(process)
            try:
                work(attempt)
            except BaseException as error:  # noqa: BLE001 - raised again where the try is looked at
                errors.append(error)

        self.setting.turns.run([live_on, go])
        if errors:
            raise errors[0]

    def _look_at(self, error: BaseException) -> None:
        self.setting.chaos.trace.append(f"  {self.run_id}: {type(error).__name__}: {error}")
        seen: BaseException | None = error
        while seen:
            if TOKEN in f"{seen!r} {seen}":
                raise LeakError(f"a signed URL in {type(error).__name__}")
            seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)

    # -- what the operators do

    @property
    def _ledger(self) -> Ledger:
        return Ledger(self.setting.store, self.setting.settings.ledger)

    def _ingest(self, attempt: Attempt) -> None:
        reader = IntakeReader()
        reader.read(self.setting.store, self.setting.store.list_keys("s3://in/"))
        self._ledger.write_intake(attempt.dag_id, attempt.run_id, reader.result())

    def _abilities(self, attempt: Attempt):
        setting = self.setting
        return warehouse_abilities(setting.settings, setting.store, self._ledger, setting.clock.now(), attempt)

    def _resolve(self, attempt: Attempt) -> None:
        setting, ledger = self.setting, self._ledger
        self._abilities(attempt)
        intake = ledger.read_intake(attempt.dag_id, attempt.run_id)
        if intake is None:
            raise UploadLostError("the ledger has no intake of this run")
        with ManifestClient(setting.settings.allowed_hosts, first_wait_seconds=0.0) as client:
            plan = plan_run(
                intake.backups,
                inbox=setting.store,
                ledger=ledger,
                settings=setting.settings,
                fetch=client.fetch,
                most=capacity(setting.settings, MOST),
                now=setting.clock.now(),
                find_primary=setting.find_primary,
                patient=self._patient,
            )
        plan = plan.model_copy(update={"made_at": setting.clock.now()})
        account_for(plan, ledger, attempt)
        bundles = bundle(plan.to_recover, setting.settings, MOST, setting.clock.now())
        ledger.write_bundles(attempt.dag_id, attempt.run_id, bundles)
        ledger.write_plan(attempt.dag_id, attempt.run_id, plan)
        self.bundles = [made.bundle_id for made in bundles]

    @contextlib.contextmanager
    def _recovery(self, attempt: Attempt, bundle_id: str) -> Iterator[tuple[Bundle, FileRecovery]]:
        setting, ledger = self.setting, self._ledger
        found = ledger.read_bundle(attempt.dag_id, attempt.run_id, bundle_id)
        if found is None:
            raise UploadLostError("the ledger has no such bundle of this run")
        abilities = lru_cache(maxsize=1)(lambda: self._abilities(attempt))
        with contextlib.ExitStack() as stack:
            client = lru_cache(maxsize=1)(
                lambda: stack.enter_context(ManifestClient(setting.settings.allowed_hosts, first_wait_seconds=0.0))
            )
            links = BackupLinks(setting.store, found.files, lambda location: client().fetch(location))

            def source(file: RecordingFile) -> RenewedSource:
                return links.source(file, setting.settings.allowed_hosts)

            def primary(file: RecordingFile) -> StoreSource:
                return StoreSource(setting.store, file.primary_uri)

            def copy(file: RecordingFile, upload):
                return copy_within_store(file.primary_uri, upload, abilities()) if setting.shares_with_primary else None

            yield (
                found,
                FileRecovery(
                    setting.store,
                    ledger,
                    attempt,
                    abilities,
                    Sources(source, primary, copy),
                    on_conflict=setting.settings.on_conflict,
                    streams=setting.settings.parallel_ranges,
                    small=SMALL,
                    on_landed=setting.told.append,
                ),
            )

    def _download(self, attempt: Attempt, bundle_id: str) -> None:
        with self._recovery(attempt, bundle_id) as (found, recovery):
            recovery.download(found.files)

    def _land(self, attempt: Attempt, bundle_id: str) -> None:
        with self._recovery(attempt, bundle_id) as (found, recovery):
            recovery.land(found.files)

    def _report(self, attempt: Attempt) -> None:
        failed = [name for name in ("ingest", "resolve") if not self.states.get(name)]
        window = Window(start=BEGIN - timedelta(hours=1), end=BEGIN)
        statement = make_statement(self._ledger, self.setting.store, attempt, window, failed, self.setting.clock.now())
        text = render(statement)
        if TOKEN in text:
            raise LeakError("a signed URL in the report")
        self._ledger.write_statement(statement, text)
        self.statement = statement


__all__ = ["DagRun", "LeakError"]
