"""The signing keys of an issuer, fetched from its JWKS address and kept for a while.

The address is the operator's own choice, so it may be within the own network; it is asked over
TLS or on loopback, without redirects, with bounds on time and bytes. Tokens cannot make it be
asked often: an unknown key id does so at most once in a cooldown, whoever sends it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
import structlog

from forebay.access.addresses import read_address
from forebay.access.errors import AccessSetupError
from forebay.access.tokens import LEAST_RSA_BITS, LONGEST_KID, VerifyingKey
from forebay.core.errors import KeysUnavailableError

log = structlog.get_logger(__name__)

FRESH_S: Final = 600.0
"""How long fetched keys are used without another look."""

STALE_S: Final = 24 * 3600.0
"""How long they are used while the issuer cannot be reached."""

COOLDOWN_S: Final = 30.0
"""Between two requests to the issuer, whatever asks for them."""

MOST_KEYS: Final = 64
MOST_BYTES: Final = 256 * 1024
TIMEOUT_S: Final = 5.0
_ALGORITHMS: Final[dict[tuple[Any, Any], str]] = {("RSA", None): "RS256", ("EC", "P-256"): "ES256"}
"""By kind of key and curve. Secrets (``oct``) are never taken from an address."""


def check_jwks_url(url: str) -> str:
    """Return the address. Raises AccessSetupError unless it is https, or http on loopback."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    address = read_address(host)
    local = host == "localhost" or (address is not None and address.is_loopback)
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise AccessSetupError("jwt_jwks_url must be https://, or http:// on loopback")
    if parts.username is not None or parts.password is not None:
        raise AccessSetupError("jwt_jwks_url takes no user and no password")
    return url


class JwksKeys:
    """A ``KeySource`` that an issuer publishes. Safe for many tasks of one event loop."""

    def __init__(
        self,
        url: str,
        http: httpx.AsyncClient,
        *,
        cooldown_s: float = COOLDOWN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = check_jwks_url(url)
        self._http = http
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._keys: dict[str | None, VerifyingKey] = {}
        self._fetched_s = -float("inf")
        self._asked_s = -float("inf")
        self._lock = asyncio.Lock()

    async def find(self, kid: str | None) -> VerifyingKey | None:
        """Return the key of that id; without an id, the only one.

        Raises KeysUnavailableError when none can be had from the issuer.
        """
        if self._age() >= FRESH_S or not self._has(kid):
            await self._look_again(kid)
        if self._age() >= STALE_S:
            raise KeysUnavailableError(
                "the issuer's keys cannot be fetched", retry_after=self._cooldown_s
            )
        return self._pick(kid)

    def _age(self) -> float:
        return self._clock() - self._fetched_s

    def _has(self, kid: str | None) -> bool:
        return self._pick(kid) is not None

    def _pick(self, kid: str | None) -> VerifyingKey | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _look_again(self, kid: str | None) -> None:
        """Fetch, at most once in a cooldown; those who come meanwhile wait for the one fetch."""
        async with self._lock:
            known = self._age() < FRESH_S and self._has(kid)
            if known or self._clock() - self._asked_s < self._cooldown_s:
                return
            self._asked_s = self._clock()
            try:
                self._keys = read_jwks(await self._fetch())
            except (httpx.HTTPError, ValueError, RecursionError, TimeoutError) as error:
                log.warning("jwks.not_fetched", reason=type(error).__name__)
                return
            self._fetched_s = self._clock()

    async def _fetch(self) -> Any:
        """Return the document. Raises ValueError for one that is too large or no JSON."""
        async with (
            asyncio.timeout(TIMEOUT_S),
            self._http.stream("GET", self._url, follow_redirects=False) as reply,
        ):
            if reply.status_code != httpx.codes.OK:
                raise ValueError(f"status {reply.status_code}")
            content = bytearray()
            async for chunk in reply.aiter_bytes():
                content += chunk
                if len(content) > MOST_BYTES:
                    raise ValueError("too large")
        return json.loads(content)


def read_jwks(document: Any) -> dict[str | None, VerifyingKey]:
    """Return the usable signing keys by id, ``MOST_KEYS`` at most.

    Raises ValueError where the document has none.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    found: dict[str | None, VerifyingKey] = {}
    for entry in entries[:MOST_KEYS] if isinstance(entries, list) else ():
        key = _read_key(entry) if isinstance(entry, dict) else None
        if key is not None:
            found.setdefault(entry.get("kid"), key)
    if not found:
        raise ValueError("no usable key")
    return found


def _read_key(entry: Mapping[str, Any]) -> VerifyingKey | None:
    kid, kind = entry.get("kid"), (entry.get("kty"), entry.get("crv"))
    algorithm = _ALGORITHMS.get(kind) if all(isinstance(k, str | None) for k in kind) else None
    fit = algorithm is not None and entry.get("alg") in (None, algorithm)
    named = kid is None or (isinstance(kid, str) and len(kid) <= LONGEST_KID)
    if algorithm is None or not fit or not named or entry.get("use") not in (None, "sig"):
        return None
    try:
        key = jwt.PyJWK(dict(entry), algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if algorithm == "RS256" and key.key_size < LEAST_RSA_BITS:
        return None
    # a private key in a published set has leaked: what it signs proves nothing
    return None if hasattr(key, "private_numbers") else VerifyingKey(algorithm, key)
