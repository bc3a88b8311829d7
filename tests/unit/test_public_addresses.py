"""Which addresses a forged event can make nobody connect to, in every form that carries one."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_backup.core.locations import Location, check_location, literal_addresses
from livekit_backup.core.public_addresses import is_public
from livekit_backup.errors import RefusedError

INTERNAL = [
    "127.0.0.1", "127.255.255.254", "10.0.0.5", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
    "100.127.255.255", "169.254.169.254", "169.254.170.2", "0.0.0.0", "0.1.2.3", "192.0.0.192", "198.18.0.1",
    "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "100.100.100.200", "192.88.99.1",
]  # fmt: skip
PUBLIC = ["52.218.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "168.63.129.15"]
EASILY = st.sampled_from(INTERNAL) | st.ip_addresses(v=4).map(str)


def _forms(text: str) -> dict[str, str]:
    number = int(ipaddress.IPv4Address(text))
    tail = f"{number >> 16:x}:{number & 0xFFFF:x}"
    return {
        "mapped": f"::ffff:{tail}",
        "mapped, dotted": f"::ffff:{text}",
        "NAT64": f"64:ff9b::{tail}",
        "6to4": f"2002:{tail}::1",
        "ISATAP": f"2600:1f13::5efe:{tail}",
        "ISATAP, public": f"2600:1f13::200:5efe:{tail}",
        "zone": f"::ffff:{text}%eth0",
    }


@pytest.mark.parametrize("text", INTERNAL)
def test_internal_addresses_in_every_form(text):
    assert not is_public(text)
    for name, form in _forms(text).items():
        assert not is_public(form), name


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_in_every_form(text):
    assert is_public(text)
    for name, form in _forms(text).items():
        assert is_public(form), name


@pytest.mark.parametrize(
    "text",
    [
        "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b:1::808:808", "fe80::1", "fe80::1%eth0",
        "fec0::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "ff02::1", "ff0e::1", "100::1", "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "2001:db8::1", "3fff::1", "4000::1", "5f00::1",
    ],
)  # fmt: skip
def test_internal_addresses_of_ipv6(text):
    assert not is_public(text)


def test_public_addresses_of_ipv6():
    assert is_public("2600:1fa0:8000::1")
    assert is_public("2a00:1450:4001:800::201b")


@given(EASILY)
def test_no_form_is_more_public_than_what_it_carries(text):
    for name, form in _forms(text).items():
        assert is_public(form) == is_public(text), name


@given(st.ip_addresses())
def test_what_is_public_is_global_for_python_too(address):
    if is_public(str(address)) and not (address.version == 6 and address in ipaddress.ip_network("64:ff9b::/96")):
        carried = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
        assert carried.is_global


def _written(number: int) -> list[str]:
    """An IPv4 address as ``inet_aton`` takes it: decimal, octal, hexadecimal, short, and mixed."""
    a, b, c, d = number.to_bytes(4, "big")
    return [
        f"{a}.{b}.{c}.{d}", f"{number}", f"{number:#x}", f"0{number:o}", f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{c << 8 | d}", f"{a:#x}.{b}.0{c:o}.{d}",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["127.0.0.1", "169.254.169.254", "10.0.0.5"])
def test_however_a_host_is_written_it_is_that_address(text):
    """Also where a pattern of the operator's allows such a host."""
    for host in _written(int(ipaddress.IPv4Address(text))):
        assert literal_addresses(host, 443) == [text]
        pattern = f"*.{host.rpartition('.')[2]}"
        with pytest.raises(RefusedError):
            check_location(Location(f"https://{host}/k"), (pattern, "*.amazonaws.com"), literal_addresses)
