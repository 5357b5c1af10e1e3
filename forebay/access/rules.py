"""What the operator has decided about who may come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from forebay.access.addresses import ForwardedHeader, Network

METRICS_LIST: Final = "metrics"
"""The list of networks that may read the metrics, beside those of the scopes."""


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The door's rules. A rate is in requests a second; a rate of None: no bound.

    ``anonymous``: nobody is asked for credentials, but to administer. ``loopback_only``: who is
    not asked must be on this machine, or come through a trusted proxy. ``anonymous_rate_per_s`` is
    each client address's; clients on this machine are not held to it unless they came through a
    proxy.
    ``address_rate_per_s`` is each address's too, whoever calls from it.
    ``allowed``: by scope, or ``metrics``, the networks that may use it; without an entry, all.
    ``origins``: other web pages that may call; a page of the service's own always may.
    """

    anonymous: bool = True
    loopback_only: bool = False
    anonymous_rate_per_s: float = 10.0
    anonymous_burst: int = 50
    address_rate_per_s: float | None = None
    address_burst: int = 50
    trusted_proxies: tuple[Network, ...] = ()
    forwarded_header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR
    allowed: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)
    origins: frozenset[str] = frozenset()
