"""Where requests may go: the form of a URL, its port, and the addresses of its host."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from forebay.outbound.addresses import Address, Network, is_public, parse_address, plain
from forebay.outbound.allowed import ends_in_number, is_name, read_allowed
from forebay.outbound.errors import AddressRefusedError, UrlRefusedError

MOST_URL_CHARACTERS: Final = 2048

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_USER: Final = re.compile(r"[^/?#]*//[^/?#]*@")
_UNFIT: Final = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be asked. ``host``: an ASCII name in lower case, or an address, no brackets.

    ``path``: with the query, as it goes onto the wire.
    """

    scheme: str
    host: str
    port: int
    path: bytes

    @property
    def authority(self) -> str:
        """Host and port as the ``Host`` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, without what only a browser would use of it."""
        return f"{self.scheme}://{self.authority}{self.path.decode('ascii')}"

    def same_origin(self, other: Target) -> bool:
        """Return whether both are of one scheme, host and port."""
        here, there = (self.scheme, self.host, self.port), (other.scheme, other.host, other.port)
        return here == there


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be reached: the public internet at ``ports``, and what an operator names besides.

    ``hosts``: names whose addresses are not looked at. ``networks``: ranges that count as public.
    ``only``: names to which alone requests may go; empty for any.
    """

    ports: frozenset[int] = frozenset({80, 443})
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    only: frozenset[str] = frozenset()

    @classmethod
    def from_words(
        cls, allowed: Iterable[str], ports: Iterable[int], only: Iterable[str] = ()
    ) -> Reach:
        """Read an operator's list of addresses, ranges (CIDR) and names. Raises ValueError."""
        hosts, networks = read_allowed(allowed)
        return cls(frozenset(ports), hosts, networks, frozenset(only))

    def target(self, url: str) -> Target:
        """Return what ``url`` leads to. Nothing is resolved: that is part of dialling.

        Raises UrlRefusedError, or AddressRefusedError where the host is an address; both say what
        is wrong with the URL.
        """
        parsed = _parse(url)
        host = self._host(parsed.raw_host.decode("ascii", "replace").lower())
        port = _DEFAULT_PORTS[parsed.scheme] if parsed.port is None else parsed.port
        target = Target(parsed.scheme, host, port, parsed.raw_path)
        self.check_port(target.port)
        if self.only and host not in self.only:
            raise UrlRefusedError("The host is not one of those that the server allows.")
        address = parse_address(host)
        if address is not None:
            self.check_addresses(host, [address])
        return target

    def check_port(self, port: int) -> None:
        """Raise UrlRefusedError unless the port may be dialled."""
        if port not in self.ports:
            allowed = ", ".join(map(str, sorted(self.ports)))
            raise UrlRefusedError(f"Port {port} may not be used; the server allows {allowed}.")

    def check_addresses(self, host: str, addresses: Sequence[Address]) -> None:
        """Raise AddressRefusedError unless every address of ``host`` may be dialled.

        All of them, for one inside among many public ones is how a name is turned inwards.
        """
        if host in self.hosts:
            return
        if not all(self._allows(address) for address in addresses):
            raise AddressRefusedError("The host's address is not one of the public internet.")

    def _allows(self, address: Address) -> bool:
        address = plain(address)
        return is_public(address) or any(
            address.version == network.version and address in network for network in self.networks
        )

    def _host(self, host: str) -> str:
        if ":" in host or "%" in host:
            address = parse_address(host)
            if address is None:
                raise UrlRefusedError("The host is not an IPv6 address without a zone.")
            return host
        host = host.removesuffix(".")
        if not is_name(host):
            raise UrlRefusedError("The host is not a valid name.")
        if ends_in_number(host):
            if parse_address(host) is None:
                raise UrlRefusedError("Write an IPv4 address as four decimal numbers.")
            return host
        return self._full_name(host)

    def _full_name(self, host: str) -> str:
        local = "." not in host or host.endswith(".localhost")
        if local and host not in self.hosts and not self.networks:
            raise UrlRefusedError("The host must be a full domain name of the public internet.")
        return host


def _parse(url: str) -> httpx.URL:
    if len(url) > MOST_URL_CHARACTERS:
        raise UrlRefusedError(f"The URL is longer than {MOST_URL_CHARACTERS} characters.")
    if _UNFIT.search(url):
        raise UrlRefusedError("The URL has spaces, control characters or backslashes.")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise UrlRefusedError("The URL cannot be read.") from error
    if parsed.scheme not in _DEFAULT_PORTS or not parsed.raw_host:
        raise UrlRefusedError("The URL must begin with http:// or https:// and name a host.")
    if parsed.userinfo or _USER.match(url):  # an empty one is not kept by the parser
        raise UrlRefusedError("The URL must not hold a user name or a password.")
    return parsed
