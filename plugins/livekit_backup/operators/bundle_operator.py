"""What the two tasks of a bundle share: they know its files, show their label, and leave links and lineage."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from livekit_backup.errors import ConfigurationError, UploadLostError
from livekit_backup.hooks.recovery_metrics import emit_download, emit_landed
from livekit_backup.hooks.task_context import TaskLabel, attempt_of, shown_label
from livekit_backup.operators.recording_links import LandedObjectLink
from livekit_backup.operators.recovery_operator import RecoveryOperator

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

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
    landed: Sequence[LedgerEntry] = ()
    """What this task itself has landed or looked at."""
    landed_object_url = ""

    def __init__(self, *, bundle: Any, **kwargs: Any) -> None:
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
        bundle = self._read_bundle(ledger, attempt, self._bundle_id())
        self._label(context, bundle.label)
        warehouse = self.warehouse_store(settings)
        abilities = lru_cache(maxsize=1)(
            lambda: warehouse_abilities(settings, warehouse, ledger, datetime.now(UTC), attempt, noted=bundle.abilities)
        )
        with TaskLabel(bundle.label) as label, contextlib.ExitStack() as stack:
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

    def _label(self, context: Context, label: str) -> None:
        context[LABEL] = label  # type: ignore[literal-required]
        if self.map_index_template is None:
            # Given before, Airflow would compile it once more, to find that there is no label yet.
            context["map_index_template"] = f"{{{{ {LABEL} }}}}"
        # Airflow's message of the task's end carries it; what it does not know yet it sends by a message more.
        context["ti"].rendered_map_index = shown_label(label)

    def _bundle_id(self) -> str:
        return str(self.bundle)

    def _read_bundle(self, ledger: Ledger, attempt: Attempt, bundle_id: str) -> Bundle:
        bundle = ledger.read_bundle(attempt.dag_id, attempt.run_id, bundle_id)
        if bundle is None:
            raise UploadLostError(
                f"the ledger has no bundle {bundle_id[:40]!r} of this run: clear resolve_manifests and what follows it"
            )
        return bundle

    def _show_link(self, url: str) -> None:
        """Link to what landed."""
        self.landed_object_url = url
        if not url:
            # Airflow would keep an empty link, at the price of a request for each file.
            self.operator_extra_links = [
                link for link in self.operator_extra_links if not isinstance(link, LandedObjectLink)
            ]

    def _result(self, bundle: Bundle) -> dict[str, Any]:
        """Tell in the log what landed; return numbers and the label: the names of the files are in the ledger."""
        for entry in self.landed:
            log.info(
                "%s at %s: sha256 %s, verified by %s",
                entry.outcome.value,
                entry.landed_uri,
                entry.sha256,
                ", ".join(entry.verified_by),
            )
            for gap in entry.unverified if len(self.landed) == 1 else ():
                log.warning("not verified: %s", gap)
        return {
            "bundle": bundle.bundle_id,
            "label": bundle.label,
            "files": len(bundle.files),
            "landed": len(self.landed),
            "bytes": sum(entry.size or 0 for entry in self.landed),
            "link": self.landed_object_url,
        }

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage:  # noqa: ARG002
        """Return what landed, for OpenLineage's listener, which calls it by this name."""
        from livekit_backup.hooks.lineage import lineage_of

        return lineage_of(self.landed)

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
