"""Where a request comes from, when proxies stand in between.

Every proxy appends the address that it was called from, so the right-most entry that no trusted
proxy wrote is the client's; all to the left of it is the client's own claim.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MOST_HOPS: Final = 32
_NODE: Final = re.compile(r'"([^"\\]+)"|([^"\s]+)')
_IPV6_HOUSEHOLD: Final = 64
"""Bits of an IPv6 address that one customer of a provider cannot change."""


_LONGEST_KEPT: Final = 64
_MOST_KEPT: Final = 4096
"""Addresses that were read lately: one request asks for its own seven times."""


class ForwardedHeader(StrEnum):
    """The one header that the proxies write. Any other is the client's own, and not read."""

    X_FORWARDED_FOR = "x-forwarded-for"
    FORWARDED = "forwarded"


def read_address(text: str) -> Address | None:
    """Return an address, None for what is none; IPv4 within IPv6 is IPv4, zones are left out."""
    return _read(text) if len(text) <= _LONGEST_KEPT else _read.__wrapped__(text)


@lru_cache(_MOST_KEPT)
def _read(text: str) -> Address | None:
    try:
        address = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return networks from CIDR notation or addresses. Raises ValueError naming a wrong one."""
    return tuple(ip_network(text.strip(), strict=True) for text in texts)


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    """Whether one of the networks has the address."""
    return any(address.version == one.version and address in one for one in networks)


def client_address(
    peer: Address, forwarded: Sequence[str], trusted: Sequence[Network], header: ForwardedHeader
) -> Address:
    """Return the right-most hop that is no trusted proxy.

    ``peer``: the other end of the connection. ``forwarded``: values of ``header``, in the order in
    which they came. A hop that is no address ends the walk at the proxy that reported it. Where
    all hops are trusted, the left-most is the client.
    """
    here = peer
    hops = _hops(forwarded, header)
    for text in reversed(hops[-_MOST_HOPS:]):
        if not is_in(here, trusted):
            break
        hop = read_address(text)
        if hop is None:
            break
        here = hop
    return here


def household(address: Address) -> str:
    """Return the name under which an address is counted: IPv6 by its /64, IPv4 by itself."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((address, _IPV6_HOUSEHOLD), strict=False))


def _hops(values: Sequence[str], header: ForwardedHeader) -> list[str]:
    # Cut at every comma, quoted or not: no node has one in it, and a quote that a client leaves
    # open must not swallow what a proxy appended.
    parts = [part.strip() for part in ",".join(values).split(",")]
    read = _without_port if header is ForwardedHeader.X_FORWARDED_FOR else _forwarded_for
    return [read(part) for part in parts if part]


def _forwarded_for(element: str) -> str:
    """Return what RFC 7239 calls the node of an element's ``for``, "" where there is none."""
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            found = _NODE.fullmatch(value.strip())
            return _without_port(found[1] or found[2]) if found else ""
    return ""


def _without_port(text: str) -> str:
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::\d{1,5})?", text)
    if bracketed:
        return bracketed[1]
    with_port = re.fullmatch(r"([\d.]+):\d{1,5}", text)
    return with_port[1] if with_port else text
