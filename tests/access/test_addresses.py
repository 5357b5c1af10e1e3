"""Where a request comes from, whatever its headers claim."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.access.addresses import (
    ForwardedHeader,
    client_address,
    household,
    is_in,
    read_address,
    read_networks,
)

XFF, RFC7239 = ForwardedHeader.X_FORWARDED_FOR, ForwardedHeader.FORWARDED
PROXIES = read_networks(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])
PROXY, OTHER_PROXY = ip_address("10.0.0.1"), "10.9.9.9"

outside = (
    st.ip_addresses().map(lambda a: read_address(str(a))).filter(lambda a: not is_in(a, PROXIES))
)
inside = st.ip_addresses(v=4, network="10.0.0.0/8")
claims = st.lists(st.one_of(st.ip_addresses().map(str), st.text(max_size=20)), max_size=5)


@given(client=outside, claims=claims, proxies=st.lists(inside, max_size=3))
def test_whatever_a_client_claims_the_address_is_the_one_that_the_first_proxy_saw(
    client, claims, proxies
) -> None:
    header = ", ".join([*claims, str(client), *map(str, proxies)])
    assert client_address(PROXY, [header], PROXIES, XFF) == client


@given(
    client=outside, values=st.lists(st.text(), max_size=4), header=st.sampled_from(ForwardedHeader)
)
def test_a_peer_that_is_no_proxy_is_not_believed(client, values, header) -> None:
    assert client_address(client, values, PROXIES, header) == client


@given(values=st.lists(st.text(max_size=300), max_size=4), header=st.sampled_from(ForwardedHeader))
def test_no_header_breaks_the_walk(values, header) -> None:
    client_address(PROXY, values, PROXIES, header)


@given(client=outside, header=st.sampled_from(ForwardedHeader))
def test_several_headers_are_one_list(client, header) -> None:
    form = "{}" if header is XFF else 'for="[{}]"'
    values = [form.format("1.2.3.4"), form.format(client), form.format(OTHER_PROXY)]
    assert client_address(PROXY, values, PROXIES, header) == client


@pytest.mark.parametrize(
    ("header", "value", "found"),
    [
        (XFF, "203.0.113.7:4711", "203.0.113.7"),
        (XFF, "[2001:db8::1]:4711", "2001:db8::1"),
        (XFF, "::ffff:203.0.113.7", "203.0.113.7"),
        (XFF, "203.0.113.7, unknown", "10.0.0.1"),
        (XFF, "203.0.113.7,", "203.0.113.7"),
        (XFF, "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        (RFC7239, 'for="[2001:db8:cafe::17]:4711";proto=https', "2001:db8:cafe::17"),
        (RFC7239, 'by=1.1.1.1;For="203.0.113.7", for=10.0.0.2', "203.0.113.7"),
        (RFC7239, 'for=203.0.113.7, for="_hidden, for=6.6.6.6"', "10.0.0.1"),
        (RFC7239, "for=6.6.6.6, proto=https", "10.0.0.1"),
    ],
)
def test_forms_of_a_hop(header: ForwardedHeader, value: str, found: str) -> None:
    assert str(client_address(PROXY, [value], PROXIES, header)) == found


def test_a_thousand_hops_take_no_longer_than_the_last_few() -> None:
    header = ", ".join(["10.0.0.2"] * 100_000)
    assert client_address(PROXY, [header], PROXIES, XFF) == ip_address("10.0.0.2")


@given(st.ip_addresses(v=6))
def test_addresses_of_one_ipv6_household_count_as_one(address) -> None:
    neighbour = IPv6Address(int(address) ^ 0xFFFF)
    assert household(address) == household(neighbour)
    assert household(address) != household(IPv6Address(int(address) ^ (1 << 64)))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_counts_by_itself_in_either_form(address: IPv4Address) -> None:
    assert read_address(f"::ffff:{address}") == address
    assert household(address) == str(address)


def test_a_network_with_host_bits_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        read_networks(["10.0.0.1/8"])
