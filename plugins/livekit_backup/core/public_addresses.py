"""Whether an address is one of the public internet, whatever form it is written in and whatever it carries.

An IPv6 address can carry an IPv4 address, and what routes it there looks at that one. Source: IANA's
special-purpose registries, as far as every Python's ``ipaddress`` that runs this agrees with them, RFC 4291 (mapped,
compatible), 6052 (NAT64), 2765 (translated), 3056 (6to4), 4380 (Teredo), 5214 (ISATAP).
"""

from __future__ import annotations

import ipaddress

_UNICAST = ipaddress.ip_network("2000::/3")
"""All that IANA has given out for the public internet; the rest is a network's own, or nobody's."""
_TAIL_IS_IPV4 = tuple(map(ipaddress.ip_network, ("::ffff:0:0/96", "64:ff9b::/96")))
"""IPv4-mapped, and NAT64's well-known prefix, by which an IPv6-only network reaches all of IPv4."""
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})

_NOT_PUBLIC_EITHER = tuple(
    map(
        ipaddress.ip_network,
        (
            # Azure's metadata and agent service: a public address that only its own machines reach.
            "168.63.129.16/32",
            # IETF protocols; Oracle's metadata service is in it. Older Pythons call parts of both global.
            "192.0.0.0/24",
            "192.88.99.0/24",
            "2001::/23",
            "3fff::/20",
        ),
    )
)


def is_public(text: str) -> bool:
    """Whether an address, and the IPv4 address that it carries, is one of the public internet.

    :param text: of an IPv4 or IPv6 address, with or without a zone.
    :raises ValueError: it is no address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return _is_global(address)
    if any(address in network for network in _TAIL_IS_IPV4):
        return _is_global(_low_bits(address))
    if address not in _UNICAST or not _is_global(address):
        return False
    carried = address.sixtofour
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        carried = _low_bits(address)
    return carried is None or _is_global(carried)


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if address.is_multicast or not (address.is_global or getattr(address, "sixtofour", None)):
        return False
    return not any(address in network for network in _NOT_PUBLIC_EITHER)


def _low_bits(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
