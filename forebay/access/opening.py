"""Sets access up for one queue: keys, tokens, rates, the audit, and the gate in front."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis.asyncio import Redis

from forebay.access.audit import AuditTrail
from forebay.access.gate import Gate
from forebay.access.jwks import JwksKeys
from forebay.access.key_ring import KeyRing
from forebay.access.key_store import KeyStore
from forebay.access.library import AccessLibrary
from forebay.access.secret_file import load_or_make_pepper
from forebay.access.setup import AccessSetup, TokenSetup
from forebay.access.throttle import Throttle
from forebay.access.tokens import KeySource, TokenVerifier, public_key, secret_key
from forebay.queue.connection import unavailable


@dataclass(frozen=True, slots=True)
class Access:
    """What stands at the door, ready for use."""

    gate: Gate
    keys: KeyStore
    ring: KeyRing
    audit: AuditTrail


@asynccontextmanager
async def open_access(setup: AccessSetup, redis: Redis, queue_name: str) -> AsyncIterator[Access]:
    """Set access up for the block, on the server of the queue's whole.

    Raises:
        AccessSetupError: a secret, a key or an address of the settings cannot be used.
        QueueUnavailableError: the server does not answer.
    """
    async with AsyncExitStack() as stack:
        store = await open_keys(setup.pepper_file, redis, queue_name)
        ring = KeyRing(store)
        tokens = None
        if setup.tokens is not None:
            tokens = TokenVerifier(await token_source(setup.tokens, stack), setup.tokens.rules)
        gate = Gate(
            setup.rules,
            keys=ring if setup.takes_keys else None,
            tokens=tokens,
            meter=Throttle(redis, queue_name),
        )
        yield Access(gate, store, ring, AuditTrail(redis, queue_name))


async def open_keys(pepper_file: Path, redis: Redis, queue_name: str) -> KeyStore:
    """Return the keys of a queue, looked at. Raises AccessSetupError, QueueUnavailableError."""
    store = KeyStore(redis, queue_name, load_or_make_pepper(pepper_file))
    await store.start()
    return store


async def forget_keys(redis: Redis, queue_name: str) -> int:
    """Forget every key of a queue, whatever pepper they were made under; return how many."""
    library = AccessLibrary(redis, queue_name)
    async with unavailable("forgetting the API keys"):
        await library.load()
        return await library.key_clear()


async def token_source(setup: TokenSetup, stack: AsyncExitStack) -> KeySource:
    """Return where the keys of tokens are, open until ``stack`` ends. Raises AccessSetupError."""
    if setup.secret is not None:
        return secret_key(setup.secret)
    if setup.public_pem is not None:
        return public_key(setup.public_pem)
    assert setup.jwks_url is not None
    http = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=2))
    return JwksKeys(setup.jwks_url, await stack.enter_async_context(http))
