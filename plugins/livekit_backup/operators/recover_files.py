"""The two tasks of a bundle of files, which as a rule is one: download, then verify and land."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from livekit_backup.errors import ConfigurationError, UploadLostError
from livekit_backup.hooks.configuration import configured_pool
from livekit_backup.hooks.recovery_metrics import emit_download, emit_landed
from livekit_backup.hooks.task_context import TaskLabel, attempt_of
from livekit_backup.operators.recording_links import (
    EgressSessionLink,
    LandedObjectLink,
    egress_session_url,
    landed_object_url,
)
from livekit_backup.operators.recovery_operator import RecoveryOperator, airflow_errors

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import BaseOperatorLink, Context

    from livekit_backup.core.file_upload import FileUpload
    from livekit_backup.core.ledger import Ledger
    from livekit_backup.core.recovering import FileRecovery, Sources
    from livekit_backup.core.transfer_protocols import Source
    from livekit_backup.hooks.object_store import S3ObjectStore
    from livekit_backup.models.bundle import Bundle
    from livekit_backup.models.ledger_entry import Attempt, LedgerEntry
    from livekit_backup.models.references import RecordingFile, Upload
    from livekit_backup.models.settings import Settings
    from livekit_backup.models.store_abilities import StoreAbilities

LABEL = "livekit_files"
"""The context key of a mapped task's label: a room, a filename, a size, the hours left."""

log = logging.getLogger(__name__)


class BundleOperator(RecoveryOperator):
    """Base of the two: knows its files and shows their label.

    :param bundle: one entry of what :class:`ResolveManifestsOperator` returned.
    """

    template_fields: Sequence[str] = (*RecoveryOperator.template_fields, "bundle")

    def __init__(self, *, bundle: Any, **kwargs: Any) -> None:
        kwargs.setdefault("map_index_template", f"{{{{ {LABEL} }}}}")
        super().__init__(**kwargs)
        self.bundle = bundle

    @contextlib.contextmanager
    def _recovery(self, context: Context) -> Iterator[tuple[Bundle, FileRecovery]]:
        """Give the bundle, and what recovers it."""
        from livekit_backup.core.media_probe import MediaProbe
        from livekit_backup.core.pacing import Pace
        from livekit_backup.core.recovering import FileRecovery
        from livekit_backup.core.small_files import SMALL
        from livekit_backup.core.warehouse_check import warehouse_abilities

        settings = self.settings()
        ledger = self.open_ledger(settings)
        attempt = attempt_of(context)
        bundle = self._read_bundle(ledger, attempt)
        context[LABEL] = bundle.label  # type: ignore[literal-required]
        warehouse = self.warehouse_store(settings)
        abilities = lru_cache(maxsize=1)(
            lambda: warehouse_abilities(settings, warehouse, ledger, datetime.now(UTC), attempt)
        )
        with TaskLabel(context["ti"], bundle.label) as label, contextlib.ExitStack() as stack:
            recovery = FileRecovery(
                warehouse,
                ledger,
                attempt,
                abilities,
                self._sources(settings, bundle, stack, abilities),
                on_conflict=settings.on_conflict,
                verify=settings.verify,
                probe=stack.enter_context(MediaProbe(warehouse, ledger)) if settings.probe else None,
                streams=settings.parallel_ranges,
                small=SMALL,
                pace=Pace(settings.max_bytes_per_second) if settings.max_bytes_per_second else None,
                show=label.show,
                on_fetched=emit_download,
                on_landed=emit_landed,
            )
            yield bundle, recovery

    def _read_bundle(self, ledger: Ledger, attempt: Attempt) -> Bundle:
        bundle = ledger.read_bundle(attempt.dag_id, attempt.run_id, str(self.bundle))
        if bundle is None:
            raise UploadLostError(
                f"the ledger has no bundle {str(self.bundle)[:40]!r} of this run: clear resolve_manifests and what "
                "follows it"
            )
        return bundle

    def _sources(
        self,
        settings: Settings,
        bundle: Bundle,
        stack: contextlib.ExitStack,
        abilities: Callable[[], StoreAbilities],
    ) -> Sources:
        from livekit_backup.core.file_links import BackupLinks
        from livekit_backup.core.manifest_client import ManifestClient
        from livekit_backup.core.primary_copy import StoreSource, copy_within_store
        from livekit_backup.core.recovering import Sources

        # What has landed before needs no manifest, and a client takes time to make.
        client = lru_cache(maxsize=1)(lambda: stack.enter_context(ManifestClient(settings.allowed_hosts)))
        links = BackupLinks(self.inbox_store(settings), bundle.files, lambda location: client().fetch(location))

        def open_primary(file: RecordingFile) -> Source:
            return StoreSource(self._primary_of(file, settings), file.primary_uri)

        def copy_primary(file: RecordingFile, upload: FileUpload) -> Upload | None:
            if not self._primary_of(file, settings).shares_with(self.warehouse_store(settings)):
                return None
            return copy_within_store(file.primary_uri, upload, abilities())

        return Sources(lambda file: links.source(file, settings.allowed_hosts), open_primary, copy_primary)

    def _primary_of(self, file: RecordingFile, settings: Settings) -> S3ObjectStore:
        primary = self.primary_store(settings)
        if primary is None:
            raise ConfigurationError(
                f"primary_conn_id is not set any more, and {file.primary_uri} was planned to be copied: set it again, "
                "or clear resolve_manifests and what follows it"
            )
        return primary


class DownloadFilesOperator(BundleOperator):
    """Brings a bundle's files to the warehouse, unseen until they are verified.

    A file of up to 8 MiB, and every file of a bundle of many, is fetched, verified and landed here. A larger file
    that has the task for itself is streamed into an uncompleted multipart upload at its landing key, for
    :class:`VerifyAndLandOperator` to complete. No disk is used, and memory does not grow with a file. Its own signed
    URL is read from the manifest again, here, and goes nowhere else. A retry goes on with what an earlier try has
    left; what has landed is not fetched again. The label in the UI shows how far it is.

    Runs in the configured ``pool``, unless another is given.

    Returns ``{files, landed, bytes}``.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (EgressSessionLink(),)
    egress_session_url = ""

    def __init__(self, *, bundle: Any, **kwargs: Any) -> None:
        if pool := configured_pool():
            kwargs.setdefault("pool", pool)
        super().__init__(bundle=bundle, **kwargs)

    def execute(self, context: Context) -> dict[str, int]:
        """Download what has not landed."""
        with airflow_errors(), self._recovery(context) as (bundle, recovery):
            self.egress_session_url = egress_session_url(bundle.files)
            return _result(bundle, recovery.download(bundle.files))


class VerifyAndLandOperator(BundleOperator):
    """Verifies an upload and completes it: completing is landing, atomic and without a copy.

    An upload whose bytes turn out wrong is dropped; one whose key is taken lands beside, unless ``on_conflict`` says
    otherwise. What has landed already is looked at: it has to be where the ledger says.

    Returns ``{files, landed, bytes}``.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (LandedObjectLink(),)
    landed_object_url = ""
    landed: Sequence[LedgerEntry] = ()

    def execute(self, context: Context) -> dict[str, int]:
        """Verify and land what the download has left, and look at what it has landed."""
        with airflow_errors(), self._recovery(context) as (bundle, recovery):
            entries = self.landed = recovery.land(bundle.files)
            self.landed_object_url = landed_object_url(entries, recovery.warehouse.place_name())
            if not self.landed_object_url:
                # Airflow would keep an empty link, at the price of a request for each file.
                self.operator_extra_links = ()
        for entry in entries:
            log.info(
                "%s at %s: sha256 %s, verified by %s",
                entry.outcome.value,
                entry.landed_uri,
                entry.sha256,
                ", ".join(entry.verified_by),
            )
            for gap in entry.unverified if len(entries) == 1 else ():
                log.warning("not verified: %s", gap)
        return _result(bundle, entries)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage:  # noqa: ARG002
        """Return what landed, for OpenLineage's listener, which calls it by this name."""
        from livekit_backup.hooks.lineage import lineage_of

        return lineage_of(self.landed)


def _result(bundle: Bundle, entries: Sequence[LedgerEntry]) -> dict[str, int]:
    """Return numbers: the names are in the ledger."""
    return {
        "files": len(bundle.files),
        "landed": len(entries),
        "bytes": sum(entry.size or 0 for entry in entries),
    }
