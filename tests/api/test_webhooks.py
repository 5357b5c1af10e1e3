from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from standardwebhooks.webhooks import Webhook

from forebay.api.app import build
from forebay.api.task_object import task_object
from forebay.config import load_settings
from forebay.core.errors import InvalidRequestError
from forebay.core.request import Cost, InferenceRequest, Message, Role, TaskId, TextPart
from forebay.ops.metrics import Metrics
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.ports import NewTask, Outcome
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.webhook_ports import WebhookAttempt
from forebay.queue.webhooks import RedisWebhooks
from tests.api import webhook_rig
from tests.api.webhook_rig import OLD_SECRET, SECRET, dispatcher
from tests.outbound.raw_server import RawServer, leads_to, ok

WAIT_S = 60
REQUEST = InferenceRequest("demo", (Message(Role.USER, (TextPart("hello"),)),))
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
async def queue(redis: Redis) -> RedisQueue:
    queue = RedisQueue(redis, "test")
    await queue.start()
    return queue


@pytest.fixture
def hooks(redis: Redis, queue: RedisQueue) -> RedisWebhooks:
    return RedisWebhooks(redis, "test")


@pytest.fixture
async def receiver() -> AsyncIterator[RawServer]:
    async with RawServer(other=ok()).listening() as server:
        yield server


def url_of(server: RawServer, path: str = "/hook", host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.port}{path}"


async def finish(queue: RedisQueue, *names: str, url: str, text: str = "42") -> None:
    for name in names:
        await queue.enqueue(NewTask(TaskId(name), REQUEST, Cost(0, 5, 5), webhook_url=url))
    leases = await queue.claim("w", len(names), 10**6)
    await queue.finish([Outcome(lease.task_id, lease.fence, text) for lease in leases])


async def log_of(hooks: RedisWebhooks, name: str, attempts: int) -> list[WebhookAttempt]:
    """Wait until so many attempts are logged."""
    async with asyncio.timeout(WAIT_S):
        while len(log := await hooks.webhook_log(TaskId(name))) < attempts:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return log


async def test_a_receiver_gets_the_task_signed_by_every_secret(
    queue: RedisQueue, hooks: RedisWebhooks, receiver: RawServer
) -> None:
    metrics = Metrics()
    await finish(queue, "a", url=url_of(receiver, "/hook?for=me"), text="答案")
    async with dispatcher(hooks, [receiver.port], metrics=metrics):
        (attempt,) = await log_of(hooks, "a", 1)
    assert (attempt.outcome, attempt.status, attempt.again_s) == ("delivered", 200, None)
    ((line, headers, body),) = receiver.asked
    assert line == "POST /hook?for=me HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == "a-finished"
    for secret in (SECRET, OLD_SECRET):
        told = Webhook(secret).verify(body, headers)
    record = await queue.get(TaskId("a"))
    assert record is not None
    assert told == json.loads(json.dumps(task_object(record)))
    assert told["output"][0]["text"] == "答案"
    assert metrics.registry.get_sample_value(
        "forebay_webhook_attempts_total", {"outcome": "delivered"}
    )
    assert (await hooks.claim(0, 1, {})).waiting == 0


async def test_what_failed_is_sent_again_the_same_and_freshly_signed(
    queue: RedisQueue, hooks: RedisWebhooks, receiver: RawServer
) -> None:
    answers = iter([BUSY, b"", leads_to("/elsewhere", 307), ok()])

    async def one_after_another(writer: asyncio.StreamWriter) -> None:
        writer.write(next(answers))

    receiver.other = one_after_another
    await finish(queue, "a", url=url_of(receiver))
    async with dispatcher(hooks, [receiver.port]):
        log = await log_of(hooks, "a", 4)
    assert [(one.outcome, one.status) for one in log] == [
        ("answered", 503),
        ("broken_answer", None),
        ("answered", 307),
        ("delivered", 200),
    ]
    assert receiver.paths == ["/hook"] * 4
    assert {headers["webhook-id"] for _, headers, _ in receiver.asked} == {"a-finished"}
    assert len({body for _, _, body in receiver.asked}) == 1
    for _, headers, body in receiver.asked:
        Webhook(SECRET).verify(body, headers)


async def test_a_receiver_that_is_gone_is_not_asked_again(
    queue: RedisQueue, hooks: RedisWebhooks, receiver: RawServer
) -> None:
    receiver.other = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
    metrics = Metrics()
    await finish(queue, "a", url=url_of(receiver))
    async with dispatcher(hooks, [receiver.port], metrics=metrics):
        (attempt,) = await log_of(hooks, "a", 1)
    assert (attempt.outcome, attempt.again_s) == ("gone", None)
    assert (await hooks.claim(0, 1, {})).waiting == 0
    assert metrics.registry.get_sample_value("forebay_webhooks_given_up_total") == 1


async def test_after_the_last_try_it_is_given_up_visibly(
    queue: RedisQueue, hooks: RedisWebhooks, receiver: RawServer
) -> None:
    receiver.other = BUSY
    metrics = Metrics()
    await finish(queue, "a", url=url_of(receiver))
    async with dispatcher(hooks, [receiver.port], metrics=metrics):
        log = await log_of(hooks, "a", 4)
        await asyncio.sleep(0.2)
    assert [one.again_s is None for one in log] == [False, False, False, True]
    assert len(receiver.asked) == 4
    assert (await hooks.claim(0, 1, {})).waiting == 0
    assert metrics.registry.get_sample_value("forebay_webhooks_given_up_total") == 1


async def test_retry_after_is_honoured(
    queue: RedisQueue, hooks: RedisWebhooks, receiver: RawServer
) -> None:
    receiver.other = b"HTTP/1.1 429 Busy\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n"
    await finish(queue, "a", url=url_of(receiver))
    async with dispatcher(hooks, [receiver.port], schedule=webhook_rig.RetrySchedule(first_s=0.01)):
        (attempt,) = await log_of(hooks, "a", 1)
    assert attempt.again_s == 120


async def test_an_address_inside_is_logged_without_it(
    queue: RedisQueue, hooks: RedisWebhooks, receiver: RawServer
) -> None:
    await finish(queue, "a", url=f"http://10.0.0.1:{receiver.port}/")
    async with dispatcher(hooks, [receiver.port]):
        log = await log_of(hooks, "a", 4)
    assert {one.outcome for one in log} == {"address_refused"}
    assert receiver.connections == 0


async def test_a_receiver_that_hangs_holds_up_no_other(
    queue: RedisQueue, hooks: RedisWebhooks, receiver: RawServer
) -> None:
    at_once, most, free = 0, 0, asyncio.Event()

    async def hang(_: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await free.wait()

    hung = RawServer(other=hang)
    async with hung.listening("127.0.0.2"):
        await finish(queue, *(f"h{n}" for n in range(40)), url=url_of(hung, host="127.0.0.2"))
        await finish(queue, *(f"r{n}" for n in range(40)), url=url_of(receiver))
        ports = [hung.port, receiver.port]
        async with dispatcher(hooks, ports, at_once=8, per_host=3, total_s=30.0, stop_s=0.0):
            for number in range(40):
                await log_of(hooks, f"r{number}", 1)
            assert await hooks.webhook_log(TaskId("h0")) == []
    assert most == 3
    assert len(receiver.asked) == 40


async def test_a_stop_lets_what_has_begun_end_and_leaves_the_rest_to_others(
    queue: RedisQueue, redis: Redis, receiver: RawServer
) -> None:
    arrived, free = asyncio.Event(), asyncio.Event()

    async def wait(writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await free.wait()
        writer.write(ok())
        await writer.drain()

    hooks = RedisWebhooks(redis, "test", lease_s=0.3)
    receiver.answers["/slow"] = wait
    await finish(queue, "a", url=url_of(receiver, "/slow"))
    async with dispatcher(hooks, [receiver.port], stop_s=30.0):
        await arrived.wait()
        asyncio.get_running_loop().call_later(0.05, free.set)
    assert [one.outcome for one in await hooks.webhook_log(TaskId("a"))] == ["delivered"]

    arrived.clear()
    free.clear()
    await finish(queue, "b", url=url_of(receiver, "/slow"))
    async with dispatcher(hooks, [receiver.port], stop_s=0.05):
        await arrived.wait()
    assert await hooks.webhook_log(TaskId("b")) == []
    free.set()
    async with dispatcher(hooks, [receiver.port]):
        (attempt,) = await log_of(hooks, "b", 1)
    assert (attempt.outcome, attempt.attempt) == ("delivered", 2)


async def test_a_dispatcher_that_is_killed_in_mid_post_is_followed_by_another(
    valkey: EmbeddedValkey, queue: RedisQueue, hooks: RedisWebhooks, receiver: RawServer
) -> None:
    arrived = asyncio.Event()

    async def hang(_: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.sleep(WAIT_S)

    receiver.other = hang
    await finish(queue, "a", url=url_of(receiver))
    root = Path(webhook_rig.__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "tests.api.webhook_rig",
        valkey.url,
        "test",
        str(receiver.port),
    ]
    process = await asyncio.create_subprocess_exec(*command, cwd=root)
    try:
        async with asyncio.timeout(WAIT_S):
            await arrived.wait()
    finally:
        process.kill()
        await process.wait()
    assert await hooks.webhook_log(TaskId("a")) == []
    receiver.other = ok()
    async with dispatcher(hooks, [receiver.port]):
        (attempt,) = await log_of(hooks, "a", 1)
    assert (attempt.outcome, attempt.attempt) == ("delivered", 2)
    assert len({body for _, _, body in receiver.asked}) == 1


async def test_two_dispatchers_deliver_each_webhook_once(
    queue: RedisQueue, hooks: RedisWebhooks, receiver: RawServer
) -> None:
    names = [f"t{n}" for n in range(60)]
    await finish(queue, *names, url=url_of(receiver))
    ports = [receiver.port]
    async with dispatcher(hooks, ports, per_host=8), dispatcher(hooks, ports, per_host=8):
        for name in names:
            await log_of(hooks, name, 1)
    assert sorted(headers["webhook-id"] for _, headers, _ in receiver.asked) == sorted(
        f"{name}-finished" for name in names
    )


async def test_a_webhook_whose_every_attempt_killed_its_dispatcher_ends(
    queue: RedisQueue, redis: Redis, hooks: RedisWebhooks, receiver: RawServer
) -> None:
    await finish(queue, "a", url=url_of(receiver))
    short = RedisWebhooks(redis, "test", lease_s=0.001)
    for _ in range(4):
        assert (await short.claim(1, 1, {})).leases
        await asyncio.sleep(0.01)
    async with dispatcher(hooks, [receiver.port]):
        (attempt,) = await log_of(hooks, "a", 1)
    assert (attempt.outcome, attempt.attempt) == ("dispatcher_lost", 5)
    assert receiver.connections == 0


async def test_a_queue_that_goes_away_is_asked_again(
    tmp_path: Path, receiver: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.api.webhooks.dispatcher._AWAY_S", 0.05)
    with EmbeddedValkey(tmp_path / "queue") as server:
        redis = webhook_rig.connect(server.url)
        queue = RedisQueue(redis, "test")
        await queue.start()
        hooks = RedisWebhooks(redis, "test")
        async with dispatcher(hooks, [receiver.port]):
            server.stop()
            await asyncio.sleep(0.3)
            server.start()
            await queue.start()
            await finish(queue, "a", url=url_of(receiver))
            assert (await log_of(hooks, "a", 1))[0].outcome == "delivered"
        await redis.aclose()


async def test_an_api_made_from_settings_delivers_and_lets_receivers_be_named(
    valkey: EmbeddedValkey, queue: RedisQueue, hooks: RedisWebhooks, receiver: RawServer,
    tmp_path: Path,
) -> None:  # fmt: skip
    told = {
        "queue_url": valkey.url,
        "queue_name": "test",
        "data_dir": str(tmp_path),
        "webhook_allow": "127.0.0.1",
        "webhook_ports": str(receiver.port),
    }
    url = url_of(receiver)
    async with build(load_settings(**told)) as app:
        with pytest.raises(InvalidRequestError, match="webhook_secret"):
            app.state.services.webhooks.accept(url)
    async with build(load_settings(**told, webhook_secret=f"{SECRET},{OLD_SECRET}")) as app:
        services = app.state.services
        await finish(queue, "a", url=services.webhooks.accept(url))
        assert (await log_of(services.webhook_log, "a", 1))[0].outcome == "delivered"
        assert b"forebay_webhook_attempts_total" in services.metrics.render()
    ((_, headers, body),) = receiver.asked
    Webhook(OLD_SECRET).verify(body, headers)
