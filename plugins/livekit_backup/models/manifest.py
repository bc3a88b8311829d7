"""The JSON manifest of one egress. Source: livekit/egress ``pkg/config/manifest.go``.

It has no sizes, no checksums and no schema version; empty lists are omitted. Manifests
of October and November 2024 also had ``presigned_url`` beside ``location``.
"""

from __future__ import annotations

from pydantic import Field, SecretStr, model_validator

from livekit_backup.models.wire import Int64, Listed, WireModel

_NO_LOCATION = SecretStr("")


class Stored(WireModel):
    """Something that an egress stored, and where."""

    location: SecretStr = _NO_LOCATION
    presigned_url: SecretStr = Field(default=_NO_LOCATION)

    @property
    def link(self) -> SecretStr:
        """The location to read: the signed one where there are two."""
        return self.presigned_url if self.presigned_url.get_secret_value() else self.location


class ManifestFile(Stored):
    """A file, a segment or an image."""

    filename: str = ""


class ManifestPlaylist(Stored):
    """An HLS playlist; its filename is not in the manifest, and the live playlist is not listed."""

    segments: Listed[ManifestFile] = ()
    """In upload order, which is not the order of playing."""


class Manifest(WireModel):
    """What an egress stored."""

    egress_id: str = ""
    room_id: str = ""
    room_name: str = ""
    started_at: Int64 = 0
    """Nanoseconds; floats with a spacing of 256 ns are seen too."""
    ended_at: Int64 = 0
    files: Listed[ManifestFile] = ()
    playlists: Listed[ManifestPlaylist] = ()
    images: Listed[ManifestFile] = ()

    @model_validator(mode="after")
    def _is_a_manifest(self) -> Manifest:
        """Any JSON object would pass otherwise: every field may be absent."""
        if not (self.egress_id or self.files or self.playlists or self.images):
            raise ValueError("no egress_id, files, playlists or images: not an egress manifest")
        return self
