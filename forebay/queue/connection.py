"""Connections to the queue's server: bounded in number, in time and in tries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.crc import key_slot
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError

from forebay.queue.address import Form, HostPort, Login, ServerAddress, parse_address
from forebay.queue.dialling import (
    CLOSE_S,
    MAX_CONNECTIONS,
    HostConnection,
    HostSSLConnection,
    LinePool,
    PrimaryConnection,
    PrimarySSLConnection,
    SocketConnection,
    credentials_of,
    tls_options,
)
from forebay.queue.operation import ANSWER_S, RETRY_AFTER_S, unavailable
from forebay.queue.primaries import ClusterMap, Primary, SentinelPrimary, SlotPrimary
from forebay.queue.verification import verify_server

__all__ = [
    "ANSWER_S",
    "LONGEST_BLOCK_S",
    "MAX_CONNECTIONS",
    "RETRY_AFTER_S",
    "connect",
    "connect_node",
    "connect_slots",
    "read_page",
    "read_streams",
    "unavailable",
    "verify_server",
]

LONGEST_BLOCK_S: Final = ANSWER_S / 2
"""Longest blocking read; below the patience with it, so silence still means a dead server."""

ASKING_CONNECTIONS: Final = 2
LEAST_CONNECTIONS: Final = 8


def connect(where: str | ServerAddress, *, answer_s: float = ANSWER_S) -> Redis:
    """Return a client for one server, or for the primary that Sentinels name; nothing is dialled.

    A broken connection is retried three times within half a second: every function of the Lua
    library may safely be sent twice. A server that is silent for ``answer_s`` is not asked again
    by the same call. Raises ValueError for another kind of URL; a cluster is for
    ``connect_slots``.
    """
    address = parse_address(where) if isinstance(where, str) else where
    if address.form is Form.CLUSTER:
        raise ValueError("a cluster's clients are one for each partition of the queue")
    primary = None
    if address.form is Form.SENTINEL:
        asking = Login(password=address.login.sentinel_password)
        primary = SentinelPrimary(
            address.hosts,
            address.service,
            lambda place: _to_host(address, place, login=asking, connections=ASKING_CONNECTIONS),
        )
    return _client(address, answer_s, MAX_CONNECTIONS, primary)


def connect_node(address: ServerAddress, place: HostPort) -> Redis:
    """Return a client for one node of a cluster, whatever it serves."""
    return _to_host(address, place, login=address.login, connections=ASKING_CONNECTIONS)


def connect_slots(
    address: ServerAddress, keys: Sequence[str], *, answer_s: float = ANSWER_S
) -> tuple[ClusterMap, list[Redis]]:
    """Return a cluster's map, and for each key a client of whoever is its primary.

    They share the map's connections; the clients' own are bounded together.
    """
    cluster = ClusterMap(address.hosts, lambda place: connect_node(address, place))
    each = max(LEAST_CONNECTIONS, MAX_CONNECTIONS // len(keys))
    clients = [
        _client(address, answer_s, each, SlotPrimary(cluster, key_slot(key.encode())))
        for key in keys
    ]
    return cluster, clients


def _to_host(address: ServerAddress, place: HostPort, *, login: Login, connections: int) -> Redis:
    there = ServerAddress(Form.SINGLE, (place,), login=login, tls=address.tls)
    in_cluster = address.form is Form.CLUSTER
    return _client(there, ANSWER_S, connections, None, node_of_cluster=in_cluster)


def _client(
    address: ServerAddress,
    answer_s: float,
    connections: int,
    primary: Primary | None,
    *,
    node_of_cluster: bool = False,
) -> Redis:
    pool = LinePool(
        answer_s=answer_s,
        address=address,
        primary=primary,
        node_of_cluster=node_of_cluster,
        max_connections=connections,
        db=address.db,
        credential_provider=credentials_of(address.login),
        decode_responses=True,
        protocol=2,
        # The time is bounded by the operation, not here: redis-py would use asyncio.wait_for,
        # which before Python 3.12 now and then swallows a cancellation.
        socket_timeout=None,
        socket_connect_timeout=CLOSE_S,  # connecting is bounded by AliveConnection
        retry=Retry(
            ExponentialBackoff(cap=0.2, base=0.05),
            retries=3,
            supported_errors=(RedisConnectionError,),
        ),
        retry_on_error=[BusyLoadingError],
        health_check_interval=0,
        **_transport(address, primary),
    )
    return Redis.from_pool(pool)


def _transport(address: ServerAddress, primary: Primary | None) -> dict[str, Any]:
    if address.socket is not None:
        return {"connection_class": SocketConnection, "path": str(address.socket)}
    options: dict[str, Any] = tls_options(address.tls) if address.tls else {}
    if primary is not None:
        kind: type[AbstractConnection] = PrimarySSLConnection if address.tls else PrimaryConnection
    else:
        kind = HostSSLConnection if address.tls else HostConnection
        host, port = address.hosts[0]
        options |= {"host": host, "port": port}
    return {"connection_class": kind, **options}


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
