"""What one mapped task works on: one file as a rule, many where they are too small or too many for a task each."""

from __future__ import annotations

from livekit_backup.models.references import RecordingFile
from livekit_backup.models.store_abilities import StoreAbilities
from livekit_backup.models.wire import FrozenModel


class Bundle(FrozenModel):
    """The files of one mapped task, the nearest deadline first."""

    bundle_id: str
    """Made of which files they are, so that the same files are the same bundle in every try."""
    label: str
    """What a person recognises in the UI."""
    files: tuple[RecordingFile, ...]
    abilities: StoreAbilities | None = None
    """The warehouse's, as the run found them: its tasks need not look them up, one by one."""
