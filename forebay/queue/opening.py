"""Opens a queue on whatever server its address names: verified, the library loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from forebay.core.errors import QueueUnavailableError
from forebay.queue.address import Form, ServerAddress
from forebay.queue.connection import (
    ANSWER_S,
    connect,
    connect_node,
    connect_slots,
    unavailable,
    verify_server,
)
from forebay.queue.errors import PartitionsError
from forebay.queue.limits import QueueLimits
from forebay.queue.partitioned_operator import PartitionedOperator
from forebay.queue.partitioned_streams import PartitionedStreams
from forebay.queue.partitions import PartitionedQueue, partition_limits, partition_name
from forebay.queue.ports import Operator
from forebay.queue.primaries import ClusterMap
from forebay.queue.redis_operator import RedisOperator
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import Keys, access_name
from forebay.queue.token_stream import RedisTokenStreams
from forebay.queue.verification import explained

COUNT_FIELD: Final = "partitions"


@dataclass(frozen=True, slots=True)
class Place:
    """One partition: a client of the server that has it, and the name it has there."""

    redis: Redis
    name: str
    limits: QueueLimits


@dataclass(frozen=True, slots=True)
class OpenQueue:
    """A queue to work with. ``streams`` reads only once it was entered or started.

    ``places``: for what is built for each partition. ``access``: a client for the keys of those
    who may come in, which are the whole queue's.
    """

    queue: RedisQueue | PartitionedQueue
    streams: RedisTokenStreams | PartitionedStreams
    operator: Operator
    places: tuple[Place, ...]
    access: Redis


@dataclass(frozen=True, slots=True)
class _Connected:
    """Verified clients: for what is the whole queue's, for access, and the partitions."""

    base: Redis
    access: Redis
    places: tuple[Place, ...]


@asynccontextmanager
async def open_queue(
    address: ServerAddress,
    name: str = "main",
    limits: QueueLimits | None = None,
    *,
    partitions: int = 1,
    answer_s: float = ANSWER_S,
) -> AsyncIterator[OpenQueue]:
    """Open the queue for the block; ``answer_s`` bounds each operation.

    Raises QueueSetupError for a server that must not be used or another number of partitions,
    QueueUnavailableError otherwise.
    """
    limits = limits or QueueLimits()
    async with AsyncExitStack() as stack:
        found = await _connected(stack, address, name, limits, partitions, answer_s)
        try:
            await _agree_on_partitions(found.base, address, name, limits, partitions)
            opened = _composed(found.places, found.access)
            if isinstance(opened.queue, PartitionedQueue):
                stack.push_async_callback(opened.queue.aclose)
            await opened.queue.start()
            await opened.queue.depth()  # a user who may not call functions is told now
        except QueueUnavailableError as error:
            raise explained(error, address) from error
        yield opened


def _composed(places: tuple[Place, ...], access: Redis) -> OpenQueue:
    queues = [RedisQueue(one.redis, one.name, one.limits) for one in places]
    streams = [RedisTokenStreams(one.redis, one.name, one.limits) for one in places]
    operators = [RedisOperator(one.redis, one.name, one.limits) for one in places]
    if len(places) == 1:
        return OpenQueue(queues[0], streams[0], operators[0], places, access)
    return OpenQueue(
        PartitionedQueue(queues),
        PartitionedStreams(streams),
        PartitionedOperator(operators),
        places,
        access,
    )


async def _connected(
    stack: AsyncExitStack,
    address: ServerAddress,
    name: str,
    limits: QueueLimits,
    partitions: int,
    answer_s: float,
) -> _Connected:
    names = [partition_name(name, number, partitions) for number in range(partitions)]
    share = partition_limits(limits, partitions)
    if address.form is not Form.CLUSTER:
        redis = connect(address, answer_s=answer_s)
        stack.push_async_callback(redis.aclose)
        await verify_server(redis)
        return _Connected(redis, redis, tuple(Place(redis, one, share) for one in names))
    keys = [Keys(one).meta for one in (name, access_name(name), *names)]
    cluster, clients = connect_slots(address, keys, answer_s=answer_s)
    for client in clients:
        stack.push_async_callback(client.aclose)
    stack.push_async_callback(cluster.aclose)
    await verify_cluster(address, cluster)
    base, access, *rest = clients
    places = (Place(redis, one, share) for redis, one in zip(rest, names, strict=True))
    return _Connected(base, access, tuple(places))


async def verify_cluster(address: ServerAddress, cluster: ClusterMap) -> None:
    """Verify every node that answers: a replica is a primary after a failover.

    Raises QueueSetupError; QueueUnavailableError where none answers.
    """
    try:
        async with unavailable("asking the cluster for its nodes"):
            primaries = set(await cluster.primaries())
            nodes = await cluster.nodes()
    except QueueUnavailableError as error:
        raise explained(error, address) from error
    away = 0
    for place in nodes:
        node = connect_node(address, place)
        try:
            await verify_server(node, replica_is_well=place not in primaries)
        except QueueUnavailableError:
            away += 1  # one node away is what a cluster is for
            if away == len(nodes):
                raise
        finally:
            await node.aclose()


async def _agree_on_partitions(
    base: Redis, address: ServerAddress, name: str, limits: QueueLimits, partitions: int
) -> None:
    """Note how many partitions the queue has. Tasks in others would never be looked for.

    Raises PartitionsError where it has another number and is not empty.
    """
    meta = Keys(name).meta
    async with unavailable("reading the queue's partitions"):
        noted = int(await base.hget(meta, COUNT_FIELD) or 1)
    if noted != partitions:
        busy = await _unfinished(address, name, limits, noted)
        if busy:
            raise PartitionsError(
                f"The queue {name!r} has {noted} partitions with {busy} unfinished tasks, and "
                f"queue_partitions is {partitions}.",
                mend=f"Set queue_partitions to {noted}, or let these tasks end first.",
            )
        # Written only where it changes: a full server takes no writes, and must not stop a start.
        async with unavailable("noting the queue's partitions"):
            await base.hset(meta, COUNT_FIELD, str(partitions))


async def _unfinished(
    address: ServerAddress, name: str, limits: QueueLimits, partitions: int
) -> int:
    async with AsyncExitStack() as stack:
        found = await _connected(stack, address, name, limits, partitions, ANSWER_S)
        queues = [RedisQueue(one.redis, one.name, one.limits) for one in found.places]
        depths = await asyncio.gather(*(one.depth() for one in queues))
    return sum(one.waiting + one.leased for one in depths)
