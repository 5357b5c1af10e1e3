"""A request as the gate sees it, before anything of its body is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from forebay.access.addresses import Address, ForwardedHeader, client_address, is_in, read_address
from forebay.access.credentials import RawHeaders, values_of
from forebay.access.rules import AccessRules

_HERE: Final = ip_address("127.0.0.1")
_MOST_HOSTS: Final = 256
"""Names that are judged once: a request asks for its own twice."""

_LONGEST_NAME: Final = 255

_READS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Knock:
    """Method, path, headers and the other end of the connection (None: a socket file)."""

    method: str
    path: str
    headers: RawHeaders
    peer: str | None

    @property
    def reads(self) -> bool:
        """Whether it only asks."""
        return self.method in _READS

    def address(self, rules: AccessRules) -> Address:
        """Return the client's address as far as the trusted proxies tell it."""
        forwarded = values_of(self.headers, rules.forwarded_header.value.encode())
        return client_address(
            self._peer_address(), forwarded, rules.trusted_proxies, rules.forwarded_header
        )

    def is_at_home(self) -> bool:
        """Whether it comes from this machine, by no proxy, and under a name that only it has."""
        proxied = any(values_of(self.headers, one.value.encode()) for one in ForwardedHeader)
        return self._peer_address().is_loopback and not proxied and _is_local(self._host())

    def has_strange_name(self, rules: AccessRules) -> bool:
        """Whether it comes from this machine under another's name, by no proxy that is trusted.

        A web page does that whose own host name was made to lead here (DNS rebinding), and so does
        a proxy that nobody named.
        """
        trusted = is_in(self._peer_address(), rules.trusted_proxies)
        named = bool(values_of(self.headers, b"host"))
        return named and not trusted and not _is_local(self._host())

    def foreign_origin(self, rules: AccessRules) -> str | None:
        """Return the web page's origin on whose behalf a browser calls, if that is another's."""
        origins = values_of(self.headers, b"origin")
        if not origins:
            return None
        hosts = values_of(self.headers, b"host")
        own = len(origins) == 1 and len(hosts) == 1 and _place(origins[0]) == hosts[0].lower()
        named = "*" in rules.origins or set(origins) <= rules.origins
        return None if own or named else origins[0][:200]

    def _peer_address(self) -> Address:
        found = None if self.peer is None else read_address(self.peer)
        return found or _HERE

    def _host(self) -> str:
        hosts = values_of(self.headers, b"host")
        try:
            return (urlsplit(f"//{hosts[0]}").hostname or "") if len(hosts) == 1 else ""
        except ValueError:
            return ""


def _is_local(host: str) -> bool:
    """Whether a name leads to this machine wherever it is asked for. No name is longer."""
    return len(host) <= _LONGEST_NAME and _leads_here(host)


@lru_cache(_MOST_HOSTS)
def _leads_here(host: str) -> bool:
    address = read_address(host)
    if address is not None:
        return address.is_loopback
    name = host.removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def _place(origin: str) -> str:
    """Return host and port of an origin, as a Host header has them."""
    return origin.partition("://")[2].lower()
