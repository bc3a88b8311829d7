"""Where a recording lies: parsing a location, its deadline, and whether it may be fetched.

Deadlines are read from the URL itself, since the 7 days run per object from its own
upload. Sources: AWS SigV4 query authentication (``X-Amz-Date``, ``X-Amz-Expires``), GCS
V4 (``X-Goog-*``), AliOSS V4 (``x-oss-*``), GCS V2, AliOSS and S3 V2 (``Expires``), Azure SAS (``se``).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, unquote, urlsplit

from livekit_backup.core.public_addresses import is_public
from livekit_backup.core.redaction import safe_url, without_hidden_query
from livekit_backup.errors import RefusedError, SourceUnavailableError

Resolver = Callable[[str, int], Iterable[str]]
"""Gives the IP addresses of a host and port."""

MAX_URL = 16 * 1024
"""Characters. Signed URLs have some 600, with a session's token 2,500; servers take requests of 8 to 16 KiB."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_SIGNATURES = frozenset({"x-amz-signature", "x-goog-signature", "x-oss-signature", "signature", "sig"})
_HIDDEN_QUERY = re.compile(r"%(?:25)*3f|signature=|sig=", re.IGNORECASE)
_SIGNED_AT = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_HOST = re.compile(r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?\.?$|^[0-9a-f:.]+$")


class Location:
    """A location from an event or a manifest. Its text is safe; only :attr:`url` is the secret."""

    __slots__ = ("_query", "host", "path", "port", "scheme", "url")

    def __init__(self, url: str) -> None:
        if len(url) > MAX_URL:
            raise RefusedError(f"{safe_url(url[:MAX_URL])} goes on for {len(url)} characters, which no signed URL does")
        try:
            parts = urlsplit(url.strip())
            self.scheme = parts.scheme.lower()
            self.host = (parts.hostname or "").lower().rstrip(".")
            self.port = parts.port or _DEFAULT_PORTS.get(self.scheme, 0)
            has_user = "@" in parts.netloc
        except ValueError:
            raise RefusedError(f"{safe_url(url)} is not a usable URL; the event or manifest is malformed") from None
        if has_user:
            raise RefusedError(f"{safe_url(url)} carries a user name, which no signed URL does")
        self.url = url.strip()
        self.path = parts.path
        self._query = {key.lower(): value for key, value in parse_qsl(parts.query, keep_blank_values=True)}

    def __repr__(self) -> str:
        return f"Location({safe_url(self.url)!r})"

    __str__ = __repr__

    @property
    def name(self) -> str:
        """Scheme, host, port and path: safe to show."""
        return safe_url(self.url)

    @property
    def key_path(self) -> str:
        """The path as it names an object: decoded, without slashes around it."""
        return unquote(self.path).strip("/")

    @property
    def file_name(self) -> str:
        """What a file is called that only its location names: the path, without the query that may hide in it."""
        return unquote(without_hidden_query(self.path)).strip("/")

    @property
    def is_signed(self) -> bool:
        """Whether the URL itself is the credential. An unsigned one is in the customer's own bucket."""
        return not _SIGNATURES.isdisjoint(self._query)

    @property
    def is_plain(self) -> bool:
        """Whether the URL carries nothing that could be a credential: then it names a place, and no more."""
        return not self._query and not _HIDDEN_QUERY.search(self.path)

    @property
    def deadline(self) -> datetime | None:
        """When the URL dies by its own words, or None when it does not say."""
        try:
            for vendor in ("x-amz", "x-goog", "x-oss"):
                date, expires = self._query.get(f"{vendor}-date"), self._query.get(f"{vendor}-expires")
                if date and expires:
                    if not _SIGNED_AT.fullmatch(date):
                        return None
                    # strptime takes 3 ms to be imported.
                    signed = datetime.fromisoformat(date)
                    return signed + timedelta(seconds=int(expires))
            if expires := self._query.get("expires"):
                return datetime.fromtimestamp(int(expires), UTC)
            if "sig" in self._query and (until := self._query.get("se")):
                parsed = datetime.fromisoformat(until)
                return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        except (ValueError, OverflowError, OSError):
            return None
        return None


def system_resolver(host: str, port: int) -> list[str]:
    """Return the addresses that the operating system's resolver gives."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # In its order, which puts first what this machine can reach.
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def literal_addresses(host: str, port: int) -> list[str]:
    """Return the address that a host is in itself, however it is written; nothing for a name. Asks nobody."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return []
    return [str(info[4][0]) for info in found]


def check_location(
    location: Location, allowed_hosts: Iterable[str], resolver: Resolver = system_resolver
) -> tuple[str, ...] | None:
    """Refuse a location that may not be fetched, and return the addresses that were looked at.

    A connection may go to these alone, since a name server can answer differently the next time. None: the host is
    allowed by its full name, wherever that leads, or a proxy looks it up.

    An entry of ``allowed_hosts`` is a host, ``host:port``, or a pattern such as
    ``*.amazonaws.com``. Without a port it stands for the scheme's own. A host that is
    allowed by its full name may have a private address; one that only matches a pattern
    may not, since anybody can point a name of their own anywhere.

    :param resolver: gives no address for a name that a proxy, and not this machine, resolves.
    :raises RefusedError: not http(s), not an allowed host, or a private address.
    :raises SourceUnavailableError: the name does not resolve now.
    """
    if location.scheme not in _DEFAULT_PORTS:
        raise RefusedError(f"{location.name} is not http or https: only a person can fetch it")
    if not location.host or not _HOST.match(location.host):
        raise RefusedError(f"{location.name} has no usable host name")
    allowed = _matching_entry(location, allowed_hosts)
    if allowed is None:
        raise RefusedError(
            f"{location.name}: host {location.host!r} (port {location.port}) is not in allowed_hosts; "
            "add it if you know it"
        )
    return _public_addresses(location, resolver) if "*" in allowed else None


def _matching_entry(location: Location, allowed_hosts: Iterable[str]) -> str | None:
    matching = [entry for entry in allowed_hosts if _entry_matches(entry, location)]
    by_name = [entry for entry in matching if "*" not in entry]
    return next(iter(by_name or matching), None)


def _entry_matches(entry: str, location: Location) -> bool:
    host, _, port = entry.rpartition(":")
    if not host or not port.isdecimal() or (":" in host and not host.startswith("[")):
        host, port = entry, ""
    wanted = int(port) if port else _DEFAULT_PORTS[location.scheme]
    if location.port != wanted:
        return False
    return location.host.endswith(host[1:]) if host.startswith("*.") else location.host == host.strip("[]")


def _public_addresses(location: Location, resolver: Resolver) -> tuple[str, ...] | None:
    try:
        addresses = tuple(resolver(location.host, location.port))
    except UnicodeError:
        raise RefusedError(f"{location.name}: {location.host!r} cannot be a host name") from None
    except OSError as error:
        raise SourceUnavailableError(f"{location.host} does not resolve: {error.strerror or error}") from None
    for text in addresses:
        if not is_public(text):
            raise RefusedError(
                f"{location.name}: {location.host} resolves to {text}, which is not a public address; "
                "allow the host by its full name if that is right"
            )
    return addresses or None
