"""A fake LiveKit Cloud for the tests of DAGs that recover backups.

    from livekit_backup.testing import FakeLiveKit, Fault

    with FakeLiveKit() as livekit:
        recording = livekit.record_file("egress/standup.mp4")
        livekit.break_(recording, Fault.RESET, times=1)
        event = recording.event()

Importing this package loads nothing; a name loads its module on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from livekit_backup.testing.backup_server import Request
    from livekit_backup.testing.fake_api import ApiFault
    from livekit_backup.testing.fake_livekit import FakeLiveKit
    from livekit_backup.testing.presigning import SigningKey
    from livekit_backup.testing.recordings import Recording, RecordingOptions
    from livekit_backup.testing.stored_objects import Fault, StoredObject
    from livekit_backup.testing.synthetic_bytes import MIB, SyntheticBytes
    from livekit_backup.testing.webhook_sender import Delivery, WebhookSender

__all__ = [
    "MIB",
    "ApiFault",
    "Delivery",
    "FakeLiveKit",
    "Fault",
    "Recording",
    "RecordingOptions",
    "Request",
    "SigningKey",
    "StoredObject",
    "SyntheticBytes",
    "WebhookSender",
]

_MODULES = {
    "ApiFault": "fake_api",
    "Delivery": "webhook_sender",
    "FakeLiveKit": "fake_livekit",
    "Fault": "stored_objects",
    "Recording": "recordings",
    "RecordingOptions": "recordings",
    "Request": "backup_server",
    "SigningKey": "presigning",
    "StoredObject": "stored_objects",
    "WebhookSender": "webhook_sender",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'synthetic_bytes')}"), name)
