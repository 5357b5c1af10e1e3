from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.outbound.addresses import is_public, parse_address

V4 = st.integers(0, 2**32 - 1).map(IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(IPv6Address)
NAT64 = int(IPv6Address("64:ff9b::"))

INSIDE = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
    "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192",
    "192.168.1.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:0:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808",
    "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "2001:20::1",
    "2001:db8::1", "2002:7f00:1::", "2002:0808:0808::1", "3fff::1", "5f00::1", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "4000::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "93.184.215.14", "172.15.255.255", "172.32.0.1", "100.63.255.255",
    "100.128.0.1", "169.253.255.255", "223.255.255.255", "2606:4700:4700::1111",
    "2001:4860:4860::8888", "2a00:1450:4001:80b::200e", "64:ff9b::808:808", "::ffff:8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("text", INSIDE)
def test_what_is_not_the_public_internets_is_known_as_such(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert not is_public(address)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_public(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert is_public(address)


@given(V4)
def test_no_address_is_public_that_the_standard_library_holds_for_private(
    address: IPv4Address,
) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@given(V6)
def test_an_ipv6_address_is_public_only_among_those_given_out(address: IPv6Address) -> None:
    if is_public(address) and address.ipv4_mapped is None and int(address) >> 32 != NAT64 >> 32:
        assert int(address) >> 125 == 0b001
        assert not address.is_private
        assert address.sixtofour is None
        assert address.teredo is None


@given(V4)
def test_an_ipv4_address_inside_an_ipv6_one_is_judged_as_itself(address: IPv4Address) -> None:
    mapped = IPv6Address(f"::ffff:{address}")
    assert is_public(mapped) == is_public(address)
    assert is_public(IPv6Address(NAT64 + int(address))) == is_public(address)
    assert parse_address(str(mapped)) == address


@pytest.mark.parametrize("text", ["fe80::1%eth0", "2606:4700::1%1", "1.2.3", "0177.0.0.1", "x", ""])
def test_what_is_no_plain_address_is_none(text: str) -> None:
    assert parse_address(text) is None
