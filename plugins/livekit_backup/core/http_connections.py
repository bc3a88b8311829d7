"""Connections to the homes of recordings: by the proxies and CA bundles that httpx takes for LiveKit's API.

Both have to find one way out of a customer's network. httpx publishes no function that says which
proxy it takes, so its rules stand here again. Source: httpx 0.28, ``get_environment_proxies``,
``URLPattern`` and ``Client._transport_for_url``; a test holds both against each other.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import ssl
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import httpx
import urllib3

from livekit_backup.core.checked_connections import CheckedAddresses, pool_classes
from livekit_backup.core.locations import Location, Resolver, literal_addresses
from livekit_backup.errors import ConfigurationError, LivekitBackupError, RefusedError, SourceUnavailableError

KEPT_CONNECTIONS = 32
"""Idle ones that wait for the next range: as many as ranges are ever read side by side."""

_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_REFUSED_BY_PROXY = frozenset({"401", "403", "407"})


def pool_for(location: Location, checked: CheckedAddresses | None = None) -> urllib3.PoolManager:
    """Prepare connections to a location's home. Nothing is sent before the first request.

    :param checked: the addresses that a direct connection may go to. A proxy is the operator's own, and looks up names
        by itself: behind one they have no part in it.
    :raises RefusedError: the location is no usable URL.
    :raises ConfigurationError: the environment names a proxy or a CA bundle that cannot be used.
    """
    proxied = _proxied_scheme_of(location)
    pool = _proxied(location, proxied) if proxied else _direct(location)
    pool.pool_classes_by_scheme = pool_classes(None if proxied else checked)
    return pool


def api_client(**options: Any) -> httpx.Client:
    """Make an httpx client, whose own errors about the environment may repeat a proxy's password.

    :raises ConfigurationError: the environment names a proxy or a CA bundle that cannot be used.
    """
    tls = tls_context()
    try:
        return httpx.Client(verify=tls, **options)
    except (ImportError, ValueError, httpx.InvalidURL):
        raise _unusable_proxy() from None


def async_api_client(**options: Any) -> httpx.AsyncClient:
    """Make the same client for an event loop.

    :raises ConfigurationError: the environment names a proxy or a CA bundle that cannot be used.
    """
    tls = tls_context()
    try:
        return httpx.AsyncClient(verify=tls, **options)
    except (ImportError, ValueError, httpx.InvalidURL):
        raise _unusable_proxy() from None


def resolver_for(location: Location, resolver: Resolver) -> Resolver:
    """Return a resolver that leaves names to the proxy, where there is one: networks with one often have no other way.

    Its errors are those of :func:`pool_for`.
    """

    def resolve(host: str, port: int) -> Iterable[str]:
        # Only now, since most locations are refused or allowed without any address.
        return literal_addresses(host, port) if _proxied_scheme_of(location) else resolver(host, port)

    return resolve


def why_unanswered(location: Location, error: Exception) -> LivekitBackupError:
    """Say why a request got no answer. The error's own text is not shown: it can repeat the URL."""
    shown = type(error).__name__
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            # OpenSSL's own words, such as "certificate has expired"; at most a host name is in them.
            shown = f"{shown}: {cause.verify_message}"
        elif refusal := _TUNNEL.search(str(cause)):
            if refusal[1] in _REFUSED_BY_PROXY:
                return refused_by_proxy(location, refusal[1])
            shown = f"the proxy answered {refusal[1]}"
    return SourceUnavailableError(f"{location.name} did not answer: {shown}")


def refused_by_proxy(location: Location, status: int | str) -> ConfigurationError:
    """Say that the proxy, and not the recording's home, denies the way."""
    return ConfigurationError(
        f"the proxy in front of {location.host} answered {status}: put the user and password that it asks for "
        f"into its variable, such as {_variable(location.scheme)}, or add {location.host} to NO_PROXY"
    )


def proxied_scheme(url: httpx.URL) -> str:
    """Return whose proxy a URL is fetched through: ``http``, ``https`` or ``all``; empty for nobody's.

    :raises ConfigurationError: NO_PROXY cannot be read.
    """
    variables = getproxies()
    patterns = {f"{scheme}://": scheme for scheme in ("http", "https", "all") if variables.get(scheme)}
    for entry in (part.strip() for part in variables.get("no", "").split(",")):
        if entry == "*":
            return ""
        if entry:
            patterns[_pattern(entry)] = ""
    try:
        rules = sorted(((httpx.URL(pattern), scheme) for pattern, scheme in patterns.items()), key=_priority)
    except httpx.InvalidURL:
        raise ConfigurationError("NO_PROXY has an entry that is neither a host name nor an address") from None
    return next((scheme for pattern, scheme in rules if _matches(pattern, url)), "")


def _proxied_scheme_of(location: Location) -> str:
    try:
        return proxied_scheme(httpx.URL(location.url))
    except httpx.InvalidURL:
        raise RefusedError(f"{location.name} is not a usable URL; the event or manifest is malformed") from None


def _variable(scheme: str) -> str:
    lower = f"{scheme}_proxy"
    return lower if os.environ.get(lower) else lower.upper()


def _pattern(entry: str) -> str:
    if "://" in entry:
        return entry
    address = entry.partition("/")[0]
    for kind, pattern in ((ipaddress.IPv4Address, f"all://{entry}"), (ipaddress.IPv6Address, f"all://[{entry}]")):
        try:
            kind(address)
        except ValueError:
            continue
        return pattern
    return f"all://{entry}" if entry.lower() == "localhost" else f"all://*{entry}"


def _priority(rule: tuple[httpx.URL, str]) -> tuple[bool, int, int]:
    """The most particular first: with a port, the longer host, the longer scheme."""
    pattern, _ = rule
    scheme = "" if pattern.scheme == "all" else pattern.scheme
    return pattern.port is None, -len("" if pattern.host == "*" else pattern.host), -len(scheme)


def _matches(pattern: httpx.URL, url: httpx.URL) -> bool:
    if pattern.scheme not in ("all", url.scheme) or pattern.port not in (None, url.port):
        return False
    host = pattern.host
    if host.startswith("*."):
        return url.host.endswith(host[1:]) and len(url.host) >= len(host)
    if host.startswith("*"):
        return host == "*" or url.host == host[1:] or url.host.endswith(f".{host[1:]}")
    return not host or url.host == host


def _direct(location: Location) -> urllib3.PoolManager:
    tls = tls_context() if location.scheme == "https" else None
    return urllib3.PoolManager(num_pools=1, maxsize=KEPT_CONNECTIONS, retries=False, ssl_context=tls)


def _proxied(location: Location, scheme: str) -> urllib3.ProxyManager:
    proxy = _proxy(scheme, f"add {location.host} to NO_PROXY")
    login = base64.b64encode(b":".join(proxy.raw_auth)).decode() if proxy.raw_auth else ""
    tls = tls_context() if "https" in (location.scheme, proxy.url.scheme) else None
    return urllib3.ProxyManager(
        str(proxy.url),
        num_pools=1,
        maxsize=KEPT_CONNECTIONS,
        retries=False,
        ssl_context=tls,
        proxy_ssl_context=tls,
        proxy_headers={"Proxy-Authorization": f"Basic {login}"} if login else None,
    )


def _unusable_proxy() -> ConfigurationError:
    """Find the variable for which httpx made no client: it looks at all of them, whatever is to be fetched."""
    try:
        proxied_scheme(httpx.URL())
        for scheme in ("http", "https", "all"):
            if getproxies().get(scheme):
                _proxy(scheme, "remove it")
    except ConfigurationError as error:
        return error
    return ConfigurationError("a variable such as HTTPS_PROXY or NO_PROXY cannot be used")


def _proxy(scheme: str, or_else: str) -> httpx.Proxy:
    value, variable = getproxies()[scheme], _variable(scheme)
    remedy = f"set it to http://host:port, or {or_else}"
    # Neither the value nor httpx's words for it are shown: there can be a password in them.
    try:
        url = httpx.URL(value if "://" in value else f"http://{value}")
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme.startswith("socks"):
        raise ConfigurationError(
            f"{variable} names a SOCKS proxy, and recordings cannot be fetched through one: {remedy}"
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"{variable} is not the URL of an HTTP proxy: {remedy}")
    return httpx.Proxy(url)


def tls_context() -> ssl.SSLContext:
    """Return what trusts the environment's CAs, or certifi's: one for all, since to read them takes 17 ms.

    :raises ConfigurationError: the environment names a CA bundle that cannot be used.
    """
    variables = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    try:
        # Read again where a person changes what is in there.
        places = [path for name in variables if (path := os.environ.get(name))]
        return _read_cas(*((path, Path(path).stat().st_mtime_ns) for path in places))
    except OSError as error:
        variable = next(name for name in variables if os.environ.get(name))
        raise ConfigurationError(
            f"{variable} is no CA bundle that can be used: {error.strerror or type(error).__name__}"
        ) from None


@lru_cache(maxsize=1)
def _read_cas(*_: tuple[str, int]) -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that led to it. urllib3 sets some as the cause and leaves others as the context."""
    if error:
        yield error
        yield from _causes(error.__cause__)
        yield from _causes(error.__context__ if error.__context__ is not error.__cause__ else None)
