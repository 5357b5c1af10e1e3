"""A primary that is killed under load: the work goes on by itself, under Sentinel and in a cluster.

What a failover may lose is what the replica had not been sent. These tests count what was accepted
and is gone, and hold that to the last moments before the kill.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from forebay.core.errors import QueueUnavailableError
from forebay.core.request import TaskId, Tenant
from forebay.queue.address import parse_address
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.errors import EvictionPolicyError, PartitionsError
from forebay.queue.opening import OpenQueue, open_queue
from forebay.queue.partitions import PartitionedQueue, partition_of
from forebay.queue.ports import StreamKind, StreamWrite
from tests.queue.making import PLENTY, answer, held, task
from tests.queue.servers import cluster, sentinel_group

PARTITIONS = 4
LOSS_S = 2.0
"""Far above what replication lags behind here, even where the machine is busy."""


class Load:
    """Clients that send and a worker that answers, both as patient as the real ones."""

    def __init__(self, opened: OpenQueue) -> None:
        self.queue = opened.queue
        self.streams = opened.streams
        self.accepted: dict[TaskId, float] = {}
        self.refused = 0
        self.answered: set[TaskId] = set()
        self._running = True

    async def send(self, tenant: str) -> None:
        number = 0
        while self._running:
            number += 1
            with suppress(QueueUnavailableError):
                taken = await self.queue.enqueue(task(f"{tenant}{number}", tenant=tenant))
                self.accepted[taken.task_id] = time.monotonic()
                await asyncio.sleep(0.01)
                continue
            self.refused += 1
            await asyncio.sleep(0.05)

    async def work(self) -> None:
        while True:
            try:
                leases = await self.queue.claim("w", 8, PLENTY)
                await self.queue.heartbeat("w", [held(one) for one in leases])
                await self.streams.append(
                    [StreamWrite(one.task_id, one.fence, "4", 1) for one in leases]
                )
                self.answered.update(await self.queue.finish([answer(one) for one in leases]))
                if not leases:
                    await self.queue.wait_for_work(0.2)
            except QueueUnavailableError:
                await asyncio.sleep(0.1)

    async def through(self, strike: Callable[[], None], tenants: list[str]) -> float:
        """Run the load, strike, and run on until new tasks are answered; return when it struck."""
        async with asyncio.TaskGroup() as group:
            senders = [group.create_task(self.send(tenant)) for tenant in tenants]
            worker = group.create_task(self.work())
            await self._answers_of(tenants, 0.0)
            strike()
            struck = time.monotonic()
            await asyncio.sleep(1)
            await self._answers_of(tenants, time.monotonic())
            self._running = False
            await asyncio.gather(*senders)
            await self._until(lambda: self._lost(struck) <= set(self._in_doubt(struck)))
            await self._worked_off()
            worker.cancel()
        return struck

    async def _answers_of(self, tenants: list[str], since: float) -> None:
        """Wait until of each tenant a task that was accepted after ``since`` is answered."""

        def done() -> bool:
            fresh = {one for one in self.answered if self.accepted.get(one, 0.0) > since}
            return all(any(f"-{t}" in f"-{one}" for one in fresh) for t in tenants)

        await self._until(done)

    async def _worked_off(self) -> None:
        """Wait for what was taken in, or claimed, by a call whose answer was lost."""
        async with asyncio.timeout(90):
            while (depth := await self.queue.depth()).waiting or depth.leased:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    @staticmethod
    async def _until(done: Callable[[], bool]) -> None:
        async with asyncio.timeout(90):
            while not done():  # noqa: ASYNC110 - servers are looked at
                await asyncio.sleep(0.05)

    def _lost(self, struck: float) -> set[TaskId]:
        return set(self.accepted) - self.answered

    def _in_doubt(self, struck: float) -> list[TaskId]:
        return [one for one, at in self.accepted.items() if struck - LOSS_S < at < struck]


async def test_work_goes_on_after_a_failover_by_sentinels(tmp_path: Path) -> None:
    with sentinel_group(tmp_path) as group:
        async with open_queue(parse_address(group.url)) as opened:
            load = Load(opened)
            await load.through(lambda: group.primary.send(signal.SIGKILL), ["a", "b"])
            assert load.refused
            async with opened.streams as streams:
                last = max(load.answered, key=lambda one: load.accepted.get(one, 0.0))
                async with streams.subscribe(last) as entries:
                    kinds = [entry.kind async for entry in entries]
            assert kinds == [StreamKind.DELTA, StreamKind.DONE]
        assert group.named_port() == group.replica.port


@pytest.mark.slow
async def test_a_primary_that_is_silent_and_comes_back_as_a_replica_is_left(tmp_path: Path) -> None:
    with sentinel_group(tmp_path) as group:
        async with open_queue(parse_address(group.url)) as opened:
            load = Load(opened)
            await load.through(lambda: group.primary.send(signal.SIGSTOP), ["a"])
            group.primary.send(signal.SIGCONT)
            again = Load(opened)
            await again.through(lambda: None, ["c"])
            assert not again._lost(0.0)


def tenants_of_all_partitions() -> list[str]:
    """Return a tenant for each partition."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < PARTITIONS:
        number += 1
        found.setdefault(partition_of(Tenant(f"t{number}x"), PARTITIONS), f"t{number}x")
    return list(found.values())


@pytest.mark.slow
async def test_work_goes_on_after_a_primary_of_a_cluster_is_killed(tmp_path: Path) -> None:
    tenants = tenants_of_all_partitions()
    with cluster(tmp_path) as nodes:
        address = parse_address(nodes.url)
        async with open_queue(address, partitions=PARTITIONS) as opened:
            assert isinstance(opened.queue, PartitionedQueue)
            load = Load(opened)
            owners = {nodes.owner(f"{{fb:main:{n}}}:meta").port for n in range(PARTITIONS)}
            assert len(owners) > 1
            victim = nodes.owner(f"{{fb:main:{partition_of(Tenant(tenants[0]), PARTITIONS)}}}:meta")
            await load.through(lambda: victim.send(signal.SIGKILL), tenants)
            assert load.refused
            async with opened.streams as streams:
                last = max(load.answered, key=lambda one: load.accepted.get(one, 0.0))
                async with streams.subscribe(last) as entries:
                    kinds = [entry.kind async for entry in entries]
            assert kinds == [StreamKind.DELTA, StreamKind.DONE]
            depth = await opened.queue.depth()
            assert (depth.waiting, depth.leased) == (0, 0)


async def test_a_flushed_primary_of_a_cluster_is_given_the_library_again(tmp_path: Path) -> None:
    with cluster(tmp_path, replicas=False) as nodes:
        async with open_queue(parse_address(nodes.url), partitions=PARTITIONS) as opened:
            for node in nodes.nodes:
                node.run("FLUSHALL")
                node.run("FUNCTION", "FLUSH")
            for tenant in tenants_of_all_partitions():
                await opened.queue.enqueue(task("a", tenant=tenant))
            assert len(await opened.queue.claim("w", 10, PLENTY)) == PARTITIONS


async def test_an_evicting_node_of_a_cluster_is_refused(tmp_path: Path) -> None:
    with cluster(tmp_path, replicas=False) as nodes:
        nodes.nodes[2].run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        with pytest.raises(EvictionPolicyError, match=f"-p {nodes.nodes[2].port} CONFIG SET"):
            async with open_queue(parse_address(nodes.url)):
                pass


async def test_the_number_of_partitions_changes_only_when_nothing_is_left(
    valkey: EmbeddedValkey, redis: Redis
) -> None:
    address = parse_address(valkey.url)
    async with open_queue(address, "parts", partitions=2) as opened:
        taken = await opened.queue.enqueue(task("a"))
    with pytest.raises(PartitionsError, match="Set queue_partitions to 2"):
        async with open_queue(address, "parts", partitions=3):
            pass
    async with open_queue(address, "parts", partitions=2) as opened:
        await opened.queue.cancel(taken.task_id)
    async with open_queue(address, "parts", partitions=3) as opened:
        await opened.queue.enqueue(task("b"))
    await redis.flushdb()
