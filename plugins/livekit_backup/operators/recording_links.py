"""Links of a task in Airflow's UI: the landed object in the S3 console, the egress in LiveKit's dashboard.

Airflow asks for them when the task has ended, on its worker, and keeps the answers as XComs: its API server never
runs any of this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from airflow.sdk import BaseOperatorLink

from livekit_backup.core.storage import split_uri
from livekit_backup.core.uri_folders import common_folder

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from livekit_backup.models.ledger_entry import LedgerEntry
    from livekit_backup.models.references import FileIdentity

EGRESSES = "https://cloud.livekit.io/projects/p_/egresses"
"""``p_`` is LiveKit's own stand-in, in the links of its docs, for the project that a person has open."""


class EgressSessionLink(BaseOperatorLink):
    """The egress in LiveKit's dashboard."""

    name = "Egress session"
    xcom_key = "livekit_egress_session"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow calls it so
        """Return the URL that the task has found, or an empty text."""
        return str(getattr(operator, "egress_session_url", ""))


class LandedObjectLink(BaseOperatorLink):
    """The landed object in the S3 console; of several, the folder that they share."""

    name = "Landed object"
    xcom_key = "livekit_landed_object"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow calls it so
        """Return the URL that the task has found, or an empty text."""
        return str(getattr(operator, "landed_object_url", ""))


def egress_session_url(files: Iterable[FileIdentity]) -> str:
    """Return where LiveKit's dashboard shows the egress of these files; of several egresses, all of them."""
    egresses = {file.egress_id for file in files}
    return f"{EGRESSES}/{quote(egresses.pop(), safe='', errors='replace')}" if len(egresses) == 1 else EGRESSES


def landed_object_url(entries: Iterable[LedgerEntry], place: str) -> str:
    """Return where the S3 console shows what landed; empty where there is no console, or nothing landed.

    :param place: the store's name, which is its endpoint.
    """
    uris = [entry.landed_uri for entry in entries if entry.landed_uri]
    console = _console(place)
    if not uris or not console:
        return ""
    if len(uris) == 1:
        (bucket, prefix), page = split_uri(uris[0]), "object"
    else:
        (bucket, prefix), page = common_folder(uris), "buckets"
    query = urlencode({"prefix": prefix}, quote_via=quote, safe="/", errors="replace")
    return f"{console}/s3/{page}/{quote(bucket)}?{query}"


def _console(place: str) -> str:
    """Return the console of an endpoint of AWS's own; each of its partitions has one."""
    host = urlsplit(place).hostname or ""
    if host.endswith(".amazonaws.com.cn"):
        return "https://console.amazonaws.cn"
    if not host.endswith(".amazonaws.com"):
        return ""
    return f"https://console.{'amazonaws-us-gov.com' if '.us-gov-' in f'.{host}' else 'aws.amazon.com'}"
