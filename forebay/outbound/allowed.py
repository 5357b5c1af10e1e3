"""An operator's list of what may be reached besides the public internet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Network, ip_network
from typing import Final

from forebay.outbound.addresses import Network

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")


def read_allowed(words: Iterable[str]) -> tuple[frozenset[str], tuple[Network, ...]]:
    """Return the names and the ranges (CIDR; one address is one) in a list. Raises ValueError."""
    hosts, networks = set(), []
    for word in words:
        network = _network(word)
        if network is not None:
            networks.append(network)
        elif is_name(word.lower()) and not ends_in_number(word.lower()):
            hosts.add(word.lower())
        else:
            raise ValueError(f"{word!r} is neither a host's name nor an address or range")
    return frozenset(hosts), tuple(networks)


def check_ports(ports: Sequence[int]) -> None:
    """Raise ValueError unless there are ports, and each is one."""
    if not ports or not all(1 <= port <= 65535 for port in ports):
        raise ValueError("must be ports, from 1 to 65535")


def is_name(host: str) -> bool:
    """Return whether this is a host's name, in ASCII and lower case."""
    return len(host) <= 253 and _NAME.fullmatch(host) is not None


def ends_in_number(host: str) -> bool:
    """Return whether systems would take the host for an IPv4 address, in whatever notation."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _network(word: str) -> Network | None:
    try:
        network = ip_network(word)
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError(f"{word!r}: write an IPv4 range as one")
    return network
