"""Who is connected: counted in all and by address, each with a bound."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from forebay.core.errors import DoorFullError, ForebayError, TooManyConnectionsError
from forebay.core.neighbours import CONNECTIONS, Neighbours

_RETRY_AFTER_S: Final = 1.0
_HOME_BYTES: Final = 8
"""Of an IPv6 address: what follows is the client's own to choose."""

_TOLD: Final = 64
"""Connections over a bound that are told so; more are closed without a word."""

_MOST_HOMES: Final = 4096
"""Addresses whose home is kept: each connection asks twice."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Crowd:
    """The connections of one process. ``most``: in all; ``most_of_one``: of one address.

    ``proxies``: networks of those who speak for many clients, and are bounded in all only.
    ``neighbours``: processes at the same port, whose connections count, too.
    """

    def __init__(
        self,
        most: int,
        most_of_one: int,
        proxies: Sequence[Network] = (),
        neighbours: Neighbours | None = None,
    ) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._proxies = tuple(proxies)
        self._now = 0
        self._of: Counter[str] = Counter()
        self._neighbours = neighbours or Neighbours()

    @property
    def now(self) -> int:
        """Connections of this process at present, refused ones that still read why included."""
        return self._now

    @property
    def in_all(self) -> int:
        """Those of the neighbours, too."""
        return self._now + self._neighbours.others(CONNECTIONS)

    def enter(self, address: str) -> ForebayError | None:
        """Count a connection, to ``leave`` at its end even if refused; return why it is."""
        home = home_of(address)
        self._count(home, 1)
        if self._over(home) > 0:
            return TooManyConnectionsError(
                f"your address has {self._most_of_one} connections open, which is the limit",
                retry_after=_RETRY_AFTER_S,
            )
        if self.in_all > self._most:
            return DoorFullError(
                f"{self._most} connections are open, which is the limit", retry_after=_RETRY_AFTER_S
            )
        return None

    def crushed(self, address: str) -> bool:
        """Whether there is no room even to tell one of ``address`` that there is none."""
        return max(self._over(home_of(address)), self.in_all - self._most) > _TOLD

    def _over(self, home: str) -> int:
        elsewhere = self._neighbours.others(self._neighbours.place_of(home))
        over = self._of[home] + elsewhere - self._most_of_one
        return over if over > 0 and not self._is_proxy(home) else 0

    def _is_proxy(self, home: str) -> bool:
        # only asked of who is over the bound: most never are
        try:
            parsed = ipaddress.ip_address(home)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)

    def leave(self, address: str) -> None:
        """Count a connection's end."""
        home = home_of(address)
        self._count(home, -1)
        if not self._of[home]:
            del self._of[home]

    def _count(self, home: str, change: int) -> None:
        self._now += change
        self._of[home] += change
        self._neighbours.add(CONNECTIONS, change)
        self._neighbours.add(self._neighbours.place_of(home), change)


@lru_cache(_MOST_HOMES)
def home_of(address: str) -> str:
    """Return what connections are counted by: an IPv4 address, or an IPv6 network of a home."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address  # a Unix socket has none
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(parsed.packed[:_HOME_BYTES] + bytes(16 - _HOME_BYTES)))
