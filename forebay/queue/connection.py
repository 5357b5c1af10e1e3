"""Connections to the queue's server: bounded in number, in time and in tries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from forebay.core.errors import QueueUnavailableError
from forebay.queue.errors import EvictionPolicyError, ServerTooOldError
from forebay.queue.pool import SwiftPool

ANSWER_S: Final = 3.0
"""Longest that one operation may take, waiting for a connection and retries included."""

LONGEST_BLOCK_S: Final = ANSWER_S / 2
"""Longest blocking read; below the patience above, so silence still means a dead server."""

CONNECT_TIMEOUT_S: Final = 1.0
MAX_CONNECTIONS: Final = 64
POOL_WAIT_S: Final = 3.0
RETRY_AFTER_S: Final = 1.0


def connect(url: str) -> Redis:
    """Return a client for ``unix://``, ``redis://`` or ``rediss://``; nothing is dialled yet.

    A broken connection is retried three times within half a second: every function of the Lua
    library may safely be sent twice. A server that is silent is not asked again by the same call.
    Raises ValueError for another kind of URL.
    """
    pool = SwiftPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=POOL_WAIT_S,
        decode_responses=True,
        protocol=2,
        # The time is bounded in unavailable(), not here: redis-py would use asyncio.wait_for,
        # which before Python 3.12 now and then swallows a cancellation.
        socket_timeout=None,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(
            ExponentialBackoff(cap=0.2, base=0.05),
            retries=3,
            supported_errors=(RedisConnectionError,),
        ),
        retry_on_error=[BusyLoadingError],
        health_check_interval=0,
    )
    return Redis.from_pool(pool)


@asynccontextmanager
async def unavailable(doing: str, within_s: float = ANSWER_S) -> AsyncIterator[None]:
    """Turn every error of Redis or the socket, and silence, into QueueUnavailableError."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except (RedisError, OSError) as error:
        raise QueueUnavailableError(
            f"The queue's server did not answer while {doing}: {_why(error)}",
            retry_after=RETRY_AFTER_S,
        ) from error


def _why(error: Exception) -> str:
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else repr(error))


async def verify_server(redis: Redis) -> None:
    """Refuse a server that could lose accepted tasks, or that is too old.

    Raises EvictionPolicyError, ServerTooOldError or QueueUnavailableError.
    """
    async with unavailable("verifying it"):
        about = await redis.info("server")
        memory = await redis.info("memory")
    version = str(about.get("redis_version", "0"))
    if int(version.split(".", maxsplit=1)[0]) < 7:
        raise ServerTooOldError(
            f"The queue's server is version {version}.", mend="Use Valkey, or Redis 7.0 or later."
        )
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise EvictionPolicyError(
            f"The queue's server has maxmemory-policy {policy}: it would lose accepted tasks.",
            mend="Run: valkey-cli CONFIG SET maxmemory-policy noeviction",
        )


async def read_streams(
    redis: Redis, after: Mapping[str, str], *, block_s: float, count: int | None = None
) -> dict[str, list[tuple[str, dict[str, str]]]]:
    """Return the entries (id, fields) after ``after`` in each stream; block until there is one.

    ``block_s`` is at most ``LONGEST_BLOCK_S``; the result is empty when it has passed.
    """
    streams: dict[Any, Any] = dict(after)
    reply = await redis.xread(streams, count=count, block=max(1, round(block_s * 1000)))
    found = cast("list[tuple[str, list[tuple[str, dict[str, str]]]]]", reply or [])
    return dict(found)


async def read_page(
    redis: Redis, stream: str, after: str, count: int
) -> list[tuple[str, dict[str, str]]]:
    """Return up to ``count`` entries (id, fields) of one stream that follow ``after``."""
    page = await redis.xrange(stream, min=f"({after}", count=count)
    return cast("list[tuple[str, dict[str, str]]]", page or [])
