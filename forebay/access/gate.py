"""The gate: from a request's first line and headers to a caller, or to a refusal."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

from forebay.access.addresses import Address, household, is_in
from forebay.access.caller import ANONYMOUS, Caller, Scope
from forebay.access.credentials import Credentials, read_credentials
from forebay.access.key_ring import KeyRing
from forebay.access.knock import Knock
from forebay.access.paths import METRICS, scope_of
from forebay.access.rules import METRICS_LIST, AccessRules
from forebay.access.throttle import Bill, Cell, Meter, rate, spending
from forebay.access.tokens import TokenVerifier, refused
from forebay.core.errors import (
    AddressNotAllowedError,
    ForbiddenError,
    NotAuthenticatedError,
    RateLimitedError,
)

READ_COST: Final = 0.1
"""What asking costs, beside sending: clients poll."""

GUESSES_PER_S: Final = 0.2
GUESSES_AT_ONCE: Final = 10
MOST_SHUT_OUT: Final = 10_000


class Gate:
    """Lets callers in by ``rules``; ``keys`` and ``tokens`` are None where they are not taken.

    Administration needs credentials even where nothing else does: what is called from this machine
    may be a web page that its user looks at, or a proxy that hands on anyone.

    Without a ``meter`` nothing is counted: for tests of other things, and for nothing else.
    """

    def __init__(
        self,
        rules: AccessRules | None = None,
        *,
        keys: KeyRing | None = None,
        tokens: TokenVerifier | None = None,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules or AccessRules()
        self._keys = keys
        self._tokens = tokens
        self._meter = meter
        self._clock = clock
        self._shut_out: OrderedDict[str, float] = OrderedDict()

    @property
    def anonymous(self) -> bool:
        """Whether nobody is asked for credentials, but to administer."""
        return self._rules.anonymous

    @property
    def takes_keys(self) -> bool:
        """Whether API keys are good here."""
        return self._keys is not None

    @property
    def takes_tokens(self) -> bool:
        """Whether JSON Web Tokens are."""
        return self._tokens is not None

    async def admit(self, knock: Knock) -> Caller | None:
        """Return who comes in; None where the path is open to anyone.

        Raises:
            NotAuthenticatedError, ForbiddenError, AddressNotAllowedError, RateLimitedError: why
                nobody does.
            KeysUnavailableError, QueueUnavailableError: nobody can be told from another now.
        """
        scope, address = scope_of(knock.path, knock.method), knock.address(self._rules)
        if scope is None:
            if knock.path == METRICS:
                self._check_address(METRICS_LIST, address)
            return None
        self._check_address(scope, address)
        caller = await self._identify(knock, scope, address)
        caller.require(scope)
        await self._count(knock, caller, address)
        return caller

    def spending(self, caller: Caller, tokens: int) -> AbstractAsyncContextManager[Bill]:
        """Charge the caller's token budgets for the block; what fails in it is given back.

        Raises RateLimitedError, ForbiddenError where they have no room.
        """
        return spending(self._meter, caller, tokens)

    def _check_address(self, what: str, address: Address) -> None:
        allowed = self._rules.allowed.get(what)
        if allowed and not is_in(address, allowed):
            raise AddressNotAllowedError(f"the networks of allow_{what} do not have {address}")

    async def _identify(self, knock: Knock, scope: Scope, address: Address) -> Caller:
        if self._rules.anonymous and scope is not Scope.ADMIN:
            return self._anonymous(knock, address)
        try:
            return await self._verified(read_credentials(knock.headers), address)
        except NotAuthenticatedError as error:
            if error.given:
                await self._count_guess(address)
            raise

    def _anonymous(self, knock: Knock, address: Address) -> Caller:
        origin = knock.foreign_origin(self._rules)
        if origin is not None:
            # a browser would call for any page that its user looks at
            raise ForbiddenError(f"the web page {origin} is not one of cors_origins")
        if self._rules.loopback_only and knock.has_strange_name(self._rules):
            raise ForbiddenError(
                "this server is for its own machine, and was called by another name. A proxy that "
                "stands in front must be one of trusted_proxies"
            )
        return replace(ANONYMOUS, address=str(address))

    async def _verified(self, credentials: Credentials | None, address: Address) -> Caller:
        if credentials is None:
            raise NotAuthenticatedError("send a key: Authorization: Bearer KEY")
        if credentials.is_key and self._keys is not None:
            if not self._keys.holds(credentials.text):
                self._check_shut_out(address)
            key = await self._keys.find(credentials.text)
            if key is None:
                raise refused()
            return key.caller(str(address))
        if not credentials.is_key and self._tokens is not None:
            return await self._tokens.verify(credentials.text, str(address))
        raise refused()

    async def _count(self, knock: Knock, caller: Caller, address: Address) -> None:
        cells = self._cells(knock, caller, address)
        if self._meter is not None and cells:
            cost = READ_COST if knock.reads else 1.0
            await self._meter.charge([(cell, cost) for cell in cells])

    def _cells(self, knock: Knock, caller: Caller, address: Address) -> list[Cell]:
        rules, allowance, place = self._rules, caller.allowance, household(address)
        cells = []
        if rules.anonymous and not knock.is_at_home():
            per_s, burst = rules.anonymous_rate_per_s, rules.anonymous_burst
            cells.append(rate(f"anonymous:{place}", per_s, burst, "requests from this address"))
        if rules.address_rate_per_s is not None:
            per_s, burst = rules.address_rate_per_s, rules.address_burst
            cells.append(rate(f"address:{place}", per_s, burst, "requests from this address"))
        if allowance.rate_per_s is not None:
            about = f"requests of {caller.name}"
            cells.append(rate(f"rate:{caller.name}", allowance.rate_per_s, allowance.burst, about))
        return cells

    async def _count_guess(self, address: Address) -> None:
        """Count credentials that were no good. Raises RateLimitedError for one too many."""
        if self._meter is None:
            return
        place = household(address)
        cell = rate(f"guess:{place}", GUESSES_PER_S, GUESSES_AT_ONCE, "wrong credentials from here")
        try:
            await self._meter.charge([(cell, 1.0)])
        except RateLimitedError as error:
            self._shut_out[place] = self._clock() + (error.retry_after or 1.0)
            self._shut_out.move_to_end(place)
            while len(self._shut_out) > MOST_SHUT_OUT:
                self._shut_out.popitem(last=False)
            raise

    def _check_shut_out(self, address: Address) -> None:
        """Raise RateLimitedError for an address that has guessed too often: nothing is looked up.

        Keys that were good a moment ago are not kept out: their users may share it with a guesser.
        """
        place = household(address)
        until = self._shut_out.get(place)
        if until is None:
            return
        left = until - self._clock()
        if left > 0:
            raise RateLimitedError("wrong credentials from here", retry_after=left)
        del self._shut_out[place]
