"""What all operators and the sensor of a recovery share: settings, stores and how errors reach Airflow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from livekit_backup.errors import LivekitBackupError
from livekit_backup.hooks.configuration import KEYS, check_upload_options, load_settings
from livekit_backup.hooks.task_context import is_plan_only
from livekit_backup.operators.retry_policy import RecoveryRetryPolicy

if TYPE_CHECKING:
    from airflow.sdk import Context, RetryPolicy

    from livekit_backup.core.ledger import Ledger
    from livekit_backup.hooks.object_store import S3ObjectStore
    from livekit_backup.hooks.s3_client import S3Connection
    from livekit_backup.models.settings import Settings
    from livekit_backup.models.upload_options import UploadOptions


log = logging.getLogger(__name__)


class RecoveryOperator(BaseOperator):
    """Base of the operators here. Every argument is optional and overrides a key of ``[livekit_backup]``.

    :param inbox: ``s3://bucket/prefix`` of stored webhook events.
    :param inbox_layout: strftime pattern of an hour's prefix under the inbox, in UTC.
    :param warehouse: ``s3://bucket/prefix`` where recordings land.
    :param landing_key: format string of a file's key under the warehouse.
    :param ledger: ``s3://bucket/prefix`` of outcomes and reports.
    :param aws_conn_id: Airflow connection for S3.
    :param inbox_conn_id: the inbox's connection, where it is another one.
    :param warehouse_conn_id: the warehouse's and the ledger's connection, where it is another one.
    :param primary_conn_id: connection of the bucket that LiveKit was asked to upload to; without it nothing is
        copied from there.
    :param livekit_conn_id: connection of LiveKit's API.
    :param upload_options: how objects are made in the warehouse: encryption, storage class, tags and the like, under
        boto3's names. A mapping or JSON text; what is no template in it is checked when the DAG is parsed.
    :param parallel_ranges: ranges of one recording that are read side by side, 1 to 16.
    :param allowed_hosts: hosts that locations may point to.
    :param grace: seconds to wait after a window's end.
    :param lookback: seconds before its window that a scheduled run reads again, for events that came late.
    :param on_conflict: ``keep_both``, ``fail`` or ``overwrite``, when a landing key holds other content.
    :param verify: ``standard`` or ``strict``: how much has to be proven before a file counts as landed.
    :param probe: whether landed media is looked into, and named where it seems damaged.
    :param bundle_files: files of one task, where they are too small or too many for a task each.
    :param bundle_bytes: bytes of one such task.
    :param max_bytes_per_second: of one download task.
    :param alarm_hours: hours left at which a backup that is not safe raises an alarm.
    :param retry_policy: Airflow's, asked about all errors but those that no retry can help. By default a
        :class:`~livekit_backup.operators.retry_policy.RecoveryRetryPolicy` decides alone.
    """

    template_fields: Sequence[str] = KEYS
    plans = False
    """Whether it has a part in a run that only plans."""

    def __init__(
        self,
        *,
        inbox: str | None = None,
        inbox_layout: str | None = None,
        warehouse: str | None = None,
        landing_key: str | None = None,
        ledger: str | None = None,
        aws_conn_id: str | None = None,
        inbox_conn_id: str | None = None,
        warehouse_conn_id: str | None = None,
        primary_conn_id: str | None = None,
        livekit_conn_id: str | None = None,
        upload_options: Mapping[str, Any] | str | None = None,
        parallel_ranges: int | str | None = None,
        allowed_hosts: Sequence[str] | str | None = None,
        grace: float | timedelta | None = None,
        lookback: float | timedelta | None = None,
        on_conflict: str | None = None,
        verify: str | None = None,
        probe: bool | str | None = None,
        bundle_files: int | str | None = None,
        bundle_bytes: int | str | None = None,
        max_bytes_per_second: int | str | None = None,
        alarm_hours: Sequence[float] | str | None = None,
        retry_policy: RetryPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(retry_policy, RecoveryRetryPolicy):
            retry_policy = RecoveryRetryPolicy(otherwise=retry_policy)
        super().__init__(retry_policy=retry_policy, **kwargs)
        self.inbox = inbox
        self.inbox_layout = inbox_layout
        self.warehouse = warehouse
        self.landing_key = landing_key
        self.ledger = ledger
        self.aws_conn_id = aws_conn_id
        self.inbox_conn_id = inbox_conn_id
        self.warehouse_conn_id = warehouse_conn_id
        self.primary_conn_id = primary_conn_id
        self.livekit_conn_id = livekit_conn_id
        check_upload_options(upload_options)
        self.upload_options = upload_options
        self.parallel_ranges = parallel_ranges
        self.allowed_hosts = allowed_hosts
        self.grace = grace
        self.lookback = lookback
        self.on_conflict = on_conflict
        self.verify = verify
        self.probe = probe
        self.bundle_files = bundle_files
        self.bundle_bytes = bundle_bytes
        self.max_bytes_per_second = max_bytes_per_second
        self.alarm_hours = alarm_hours
        # Airflow takes a millisecond to prepare each for the UI, also those that nobody has set.
        self.template_fields = [
            name for name in self.template_fields if name not in KEYS or getattr(self, name) is not None
        ]

    def pre_execute(self, context: Context) -> None:
        """Skip the task in a run that only plans, also when a person clears it alone; what prints the plan runs."""
        if is_plan_only(context) and not self.plans:
            raise AirflowSkipException("plan only: the plan is in the log of ingest_events, and nothing is written")

    def settings(self) -> Settings:
        """Return the settings that hold for this task. :raises ConfigurationError: a key is missing or wrong."""
        return load_settings({key: getattr(self, key) for key in KEYS})

    def inbox_store(self, settings: Settings) -> S3ObjectStore:
        """Return the store that holds the inbox."""
        return self._store(settings.inbox_conn_id)

    def warehouse_store(self, settings: Settings) -> S3ObjectStore:
        """Return the store that holds the warehouse and the ledger."""
        return self._store(settings.warehouse_conn_id, settings.upload_options)

    def primary_store(self, settings: Settings) -> S3ObjectStore | None:
        """Return the store of the bucket that LiveKit was asked to upload to, or None where none is set."""
        return self._store(settings.primary_conn_id) if settings.primary_conn_id else None

    def open_ledger(self, settings: Settings) -> Ledger:
        """Return the ledger."""
        from livekit_backup.core.ledger import Ledger

        return Ledger(self.warehouse_store(settings), settings.ledger)

    def _store(self, conn_id: str, options: UploadOptions | None = None) -> S3ObjectStore:
        """Return a store. All of one connection share its client, which takes time to make."""
        connections: dict[str, S3Connection] = self.__dict__.setdefault("_connections", {})
        return _store(conn_id, connections, options)


def _store(conn_id: str, connections: dict[str, S3Connection], options: UploadOptions | None = None) -> S3ObjectStore:
    # boto3 and the amazon provider take over a second to import: only a task that runs pays for them.
    from livekit_backup.hooks.object_store import S3ObjectStore
    from livekit_backup.hooks.s3_client import S3Connection

    return S3ObjectStore(connections.setdefault(conn_id, S3Connection(conn_id)), options)


class airflow_errors:  # noqa: N801 - used as a function
    """Show of an error of this package its sentence, and not the sixty lines that led to it.

    Whether it is retried is for :class:`RecoveryRetryPolicy` to say. At the level DEBUG the log has all of it.
    """

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Cut off where it was raised."""
        if isinstance(error, LivekitBackupError):
            log.debug("where it was raised:", exc_info=error)
            error.__traceback__ = error.__cause__ = None
            error.__suppress_context__ = True
