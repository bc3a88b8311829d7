"""The two tasks of a bundle of files, which as a rule is one: download, then verify and land.

Each task of Airflow begins in a process of its own, so what the second one would do again costs as much as the first:
of a small file the download does all, and says so in what it returns.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from livekit_backup.errors import ConfigurationError, UploadLostError
from livekit_backup.hooks.configuration import configured_pool
from livekit_backup.hooks.task_context import attempt_of
from livekit_backup.operators.bundle_operator import BundleOperator
from livekit_backup.operators.recording_links import (
    EgressSessionLink,
    LandedObjectLink,
    egress_session_url,
    landed_object_url,
)
from livekit_backup.operators.recovery_operator import airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

log = logging.getLogger(__name__)


class DownloadFilesOperator(BundleOperator):
    """Brings a bundle's files to the warehouse, unseen until they are verified.

    A file of up to 8 MiB, and every file of a bundle of many, is fetched, verified and landed here. A larger file
    that has the task for itself is streamed into an uncompleted multipart upload at its landing key, for
    :class:`VerifyAndLandOperator` to complete. No disk is used, and memory does not grow with a file. Its own signed
    URL is read from the manifest again, here, and goes nowhere else. A retry goes on with what an earlier try has
    left; what has landed is not fetched again. The label in the UI shows how far it is.

    Runs in the configured ``pool``, unless another is given.

    Returns ``{bundle, label, files, landed, bytes, link}``: numbers, and what :class:`VerifyAndLandOperator` needs.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (EgressSessionLink(), LandedObjectLink())
    egress_session_url = ""

    def __init__(self, *, bundle: Any, **kwargs: Any) -> None:
        if pool := configured_pool():
            kwargs.setdefault("pool", pool)
        super().__init__(bundle=bundle, **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Download what has not landed."""
        with airflow_errors(), self._recovery(context) as (bundle, recovery):
            self.egress_session_url = egress_session_url(bundle.files)
            try:
                self.landed = recovery.download(bundle.files)
            finally:
                self._show_link(landed_object_url(self.landed, recovery.warehouse.place_name()))
        return self._result(bundle)


class VerifyAndLandOperator(BundleOperator):
    """Verifies an upload and completes it: completing is landing, atomic and without a copy.

    An upload whose bytes turn out wrong is dropped; one whose key is taken lands beside, unless ``on_conflict`` says
    otherwise. What the download has landed a moment ago it has verified and looked at, so there is nothing left to do
    for it; in any later try, and whenever the task is cleared, it is looked at again: it has to be where the ledger
    says.

    :param bundle: what :class:`DownloadFilesOperator` returned, and unless given what the one right before this task
        did, in the same mapped group; an entry of what :class:`ResolveManifestsOperator` returned will do, and
        everything is looked at then.

    Returns ``{bundle, label, files, landed, bytes, link}``.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (LandedObjectLink(),)

    def __init__(self, *, bundle: Any = None, **kwargs: Any) -> None:
        super().__init__(bundle=bundle, **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Verify and land what the download has left."""
        with airflow_errors():
            if self.bundle is None:
                self.bundle = self._returned_by_download(context)
        said = self.bundle if isinstance(self.bundle, Mapping) else {}
        if said and said["landed"] == said["files"] and attempt_of(context).try_number == 1:
            self._label(context, said["label"])
            self._show_link(said["link"])
            log.info(
                "download has verified and landed all of it, and looked at it in the warehouse: see its log. "
                "Clear this task to look again."
            )
            return dict(said)
        with airflow_errors(), self._recovery(context) as (bundle, recovery):
            self.landed = recovery.land(bundle.files)
            self._show_link(landed_object_url(self.landed, recovery.warehouse.place_name()))
        return self._result(bundle)

    def _returned_by_download(self, context: Context) -> Any:
        """Ask for it by this task's own index: an argument ``download.output`` costs Airflow two requests more."""
        ti = context["ti"]
        for before in self.get_direct_relatives(upstream=True):
            if issubclass(getattr(before, "operator_class", type(before)), DownloadFilesOperator):
                if returned := ti.xcom_pull(task_ids=before.task_id, map_indexes=ti.map_index):
                    return returned
                raise UploadLostError(f"{before.task_id} has returned nothing: clear the download task")
        raise ConfigurationError(
            f"{self.task_id} knows no bundle: put it right behind a DownloadFilesOperator, or give it bundle="
        )

    def _bundle_id(self) -> str:
        return str(self.bundle["bundle"] if isinstance(self.bundle, Mapping) else self.bundle)
