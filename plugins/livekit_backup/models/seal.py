"""What proves a run's report later: a link of the chain that all reports of a DAG form."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AwareDatetime, Field

from livekit_backup.models.wire import FrozenModel


class Seal(FrozenModel):
    """One link. Digests are SHA-256 over a document's bytes as they are stored, hexadecimal."""

    number: int = Field(ge=1)
    """Counts the seals of a DAG, from 1, without a gap."""
    dag_id: str
    run_id: str
    sealed_at: AwareDatetime
    previous: str = ""
    """Digest of the seal before this one; empty in the first."""
    documents: Mapping[str, str]
    """Digest of each of the run's documents by its name, such as ``report.json``."""
