from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from redis.asyncio import Redis

from forebay.core.errors import QueueFullError, QueueUnavailableError
from forebay.core.request import TaskId
from forebay.queue import connection
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.errors import EvictionPolicyError, ServerTooOldError
from forebay.queue.redis_queue import RedisQueue
from tests.chaos.proxy import Proxy
from tests.queue.making import PLENTY, answer, held, names, task
from tests.queue.servers import server


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedValkey, Redis]]:
    """A server that the test may treat badly."""
    with EmbeddedValkey(tmp_path) as server:
        client = connect(server.url)
        yield server, client
        await client.aclose()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused_with_the_mend(
    own: tuple[EmbeddedValkey, Redis], policy: str
) -> None:
    _, client = own
    await client.config_set("maxmemory-policy", policy)
    with pytest.raises(EvictionPolicyError, match="CONFIG SET maxmemory-policy noeviction"):
        await RedisQueue(client).start()


async def test_a_server_without_functions_is_refused(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def old(section: str) -> dict[str, str]:
        return {"redis_version": "6.2.14"}

    monkeypatch.setattr(redis, "info", old)
    with pytest.raises(ServerTooOldError, match=r"6\.2\.14"):
        await RedisQueue(redis).start()


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path, kind: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        url = f"unix://{tmp_path}/none.sock" if kind == "unix" else f"redis://127.0.0.1:{port}"
        client = connect(url)
        queue = RedisQueue(client)
        lease = (TaskId("a"), 1)
        for call in (
            queue.start(),
            queue.ping(),
            queue.enqueue(task("a")),
            queue.get(TaskId("a")),
            queue.claim("w", 1, 1),
            queue.wait_for_work(5),
            queue.release([lease]),
            queue.reap("w"),
            queue.redeliver([lease], "why"),
        ):
            with pytest.raises(QueueUnavailableError) as trouble:
                await call
            assert trouble.value.retry_after
        await client.aclose()


async def test_a_silent_server_is_unavailable_and_then_serves_again(
    own: tuple[EmbeddedValkey, Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = own
    assert server.pid is not None
    queue = RedisQueue(client)
    await queue.start()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(QueueUnavailableError, match="no answer in time"):
            await asyncio.wait_for(queue.ping(), 20)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await queue.enqueue(task("a"))
    assert names(await queue.claim("w", 1, PLENTY)) == ["a"]


async def test_a_server_that_went_away_is_found_again(
    own: tuple[EmbeddedValkey, Redis],
) -> None:
    server, client = own
    queue = RedisQueue(client)
    await queue.start()
    await queue.enqueue(task("a"))
    server.stop()
    with pytest.raises(QueueUnavailableError):
        await queue.ping()
    server.start()
    assert names(await queue.claim("w", 1, PLENTY)) == ["a"]


async def test_cut_connections_are_not_noticed(redis: Redis, queue: RedisQueue) -> None:
    for i in range(20):
        await redis.client_kill_filter(_type="normal", skipme=True)
        await queue.enqueue(task(f"t{i}"))
    assert len(await queue.claim("w", 50, PLENTY)) == 20


def test_connections_that_are_reset_while_idle_are_not_noticed(tmp_path: Path) -> None:
    """As a crash of a machine does it, under the event loop that the product's processes have."""

    async def main(port: int) -> None:
        async with Proxy(port).listening() as proxy:
            client = connect(f"redis://127.0.0.1:{proxy.port}")
            queue = RedisQueue(client)
            await queue.start()
            for at in range(10):
                proxy.cut(proxy.links)
                await asyncio.sleep(0.02)  # the reset arrives
                await queue.enqueue(task(f"t{at}"))
            assert len(await queue.claim("w", 50, PLENTY)) == 10
            assert proxy.accepted > 10
            await client.aclose()

    with server(tmp_path) as node:
        uvloop.run(main(node.port))


async def test_cancelled_calls_do_not_mix_up_replies(redis: Redis, queue: RedisQueue) -> None:
    """A cancelled command must not leave its reply for the next one on that connection."""
    await queue.enqueue(task("a"))
    for i in range(100):
        call = asyncio.create_task(queue.get(TaskId("a")) if i % 2 else queue.wait_for_work(1))
        await asyncio.sleep(0.0001 * (i % 10))
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
        record = await queue.get(TaskId("a"))
        assert record is not None
        assert record.task_id == "a"
        assert await queue.get(TaskId("nobody")) is None


async def test_a_cancelled_wait_ends_at_once(queue: RedisQueue) -> None:
    waiting = asyncio.create_task(queue.wait_for_work(60))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 5)


async def test_more_callers_than_connections_wait_their_turn(
    queue: RedisQueue, redis: Redis
) -> None:
    calls = [queue.enqueue(task(f"t{i}")) for i in range(5 * connection.MAX_CONNECTIONS)]
    await asyncio.gather(*calls)
    assert (await queue.depth()).waiting == len(calls)
    assert (await redis.info("clients"))["connected_clients"] < 2 * connection.MAX_CONNECTIONS


async def test_full_memory_refuses_new_tasks_and_finishes_old_ones(
    own: tuple[EmbeddedValkey, Redis],
) -> None:
    _, client = own
    queue = RedisQueue(client)
    await queue.start()
    for name in ("a", "b", "c"):
        await queue.enqueue(task(name))
    await client.config_set("maxmemory", 1)
    with pytest.raises(QueueFullError, match="no memory"):
        await queue.enqueue(task("d"))
    a, b = await queue.claim("w", 2, PLENTY)
    assert (await queue.heartbeat("w", [held(a), held(b)])).lost == set()
    assert await queue.finish([answer(a)]) == ["a"]
    assert await queue.release([held(b)]) == ["b"]
    assert await queue.cancel(TaskId("c"))
