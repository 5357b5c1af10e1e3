"""Health that does not lie: alive, ready, answering, each for its own reasons."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from forebay.admission.policy import Limits
from forebay.admission.pool import DecoderPool
from forebay.api.services import DoorSettings
from forebay.core.request import (
    Cost,
    InferenceRequest,
    Message,
    Priority,
    Role,
    SamplingParams,
    TaskId,
    TextPart,
)
from forebay.ops.worker_status import Phase, WorkerStatus, status_path, write_status
from forebay.queue.ports import NewTask, TaskError
from forebay.queue.replacements import RedisReplacements
from tests.api.door import Door, eventually, open_door, working

BUSY = WorkerStatus("w", os.getpid(), Phase.READY, "m", held=2)


def leave_sign(door: Door, status: WorkerStatus, age_s: float = 0.0) -> None:
    """Write a worker's sign of life as of ``age_s`` ago."""
    assert door.services.run_dir is not None
    write_status(door.services.run_dir, status)
    then = time.time() - age_s
    os.utime(status_path(door.services.run_dir, status.name), (then, then))


def gone_pid() -> int:
    """Return the id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.mark.parametrize(
    ("status", "age_s"),
    [
        (BUSY, 60),
        (replace(BUSY, still_s=11), 0),
        (replace(BUSY, still_s=6), 6),
        (replace(BUSY, phase=Phase.DRAINING), 60),
    ],
    ids=["silent", "at one step", "both", "while it drains"],
)
async def test_it_is_not_alive_while_a_worker_stands_still_with_work(
    door: Door, status: WorkerStatus, age_s: float
) -> None:
    leave_sign(door, status, age_s)
    refused = await door.http.get("/healthz")
    assert refused.status_code == 503
    assert refused.json() == {"status": "stalled", "workers": 1}
    leave_sign(door, replace(status, still_s=0.0))
    assert (await door.http.get("/healthz")).json() == {"status": "alive"}


@pytest.mark.parametrize(
    ("status", "age_s"),
    [
        (BUSY, 1),
        (replace(BUSY, held=0), 3600),
        (replace(BUSY, phase=Phase.LOADING, held=0), 3600),
        (replace(BUSY, pid=0), 3600),
    ],
    ids=["works", "idle and silent", "loads", "ended"],
)
async def test_it_is_alive_whatever_else_workers_do(
    door: Door, status: WorkerStatus, age_s: float
) -> None:
    leave_sign(door, status if status.pid else replace(status, pid=gone_pid()), age_s)
    assert (await door.http.get("/healthz")).status_code == 200


async def test_load_balancers_may_ask_with_head(door: Door) -> None:
    async with working(door):
        await eventually(door.queue.workers)
        for path in ("/healthz", "/ready", "/health", "/health/generate", "/metrics", "/"):
            told = await door.http.head(path)
            assert (told.status_code, told.content) == (200, b""), path
            assert int(told.headers["Content-Length"]) > 0
    leave_sign(door, BUSY, 60)
    assert (await door.http.head("/healthz")).status_code == 503


async def test_a_full_queue_is_alive_and_ready(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with open_door(
        redis, tmp_path / "blobs", decoders, limits=Limits(context_tokens=8192, max_waiting=3)
    ) as door:
        await fill(door, 3)
        await door.queue.heartbeat("w", [])
        assert (await door.http.get("/healthz")).status_code == 200
        assert (await door.http.get("/ready")).status_code == 200
        refused = await door.http.get("/health/generate")
        assert (refused.status_code, refused.json()["reason"]) == (503, "queue_full")


async def fill(door: Door, count: int) -> None:
    message = Message(Role.USER, (TextPart("?"),))
    request = InferenceRequest("m", (message,), SamplingParams(max_tokens=5))
    for index in range(count):
        await door.queue.enqueue(NewTask(TaskId(f"task-{index}"), request, Cost(0, 5, 5)))


async def test_a_drained_queue_is_not_ready_and_lives(door: Door) -> None:
    async with working(door):
        await eventually(door.queue.workers)
        await door.services.operator.drain()
        refused = await door.http.get("/ready")
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert (await door.http.get("/healthz")).status_code == 200
        await door.services.operator.drain(False)
        assert (await door.http.get("/ready")).status_code == 200


async def test_the_model_is_asked_once_for_all_who_want_to_know(door: Door) -> None:
    async with working(door) as worker:
        await eventually(door.queue.workers)
        replies = await asyncio.gather(*(door.http.get("/health/generate") for _ in range(20)))
        replies.append(await door.http.get("/health/generate"))
        assert {reply.status_code for reply in replies} == {200}
        assert replies[0].json()["status"] == "ok"
        [asked] = worker.seen
        assert asked.sampling.max_tokens == 1
        assert len(list(asked.images)) == 1


async def test_each_question_is_the_models_own_and_goes_before_the_others(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with open_door(redis, tmp_path / "blobs", decoders) as door:
        await fill(door, 5)
        await door.queue.heartbeat("w", [])
        asking = asyncio.create_task(door.http.get("/health/generate"))
        await eventually(lambda: _waiting(door, 6))
        [first] = await door.queue.claim("w", 1, 10**9)
        record = await door.queue.get(first.task_id)
        assert record is not None
        assert (record.priority, record.tenant) == (Priority(0), "forebay-health")
        async with working(door):
            await door.queue.release([(first.task_id, first.fence)])
            assert (await asking).status_code == 200


async def _waiting(door: Door, count: int) -> bool:
    return (await door.queue.depth()).waiting == count


async def test_a_model_that_does_not_answer_is_told_and_leaves_nothing_behind(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    settings = DoorSettings(health_timeout_s=0.5)
    async with open_door(redis, tmp_path / "blobs", decoders, settings=settings) as door:
        await door.queue.heartbeat("w", [])  # it lives, and that is all
        refused = await door.http.get("/health/generate")
        assert (refused.status_code, refused.json()["reason"]) == (503, "model_silent")
        assert "Retry-After" in refused.headers
        await eventually(lambda: _waiting(door, 0))


async def test_without_a_worker_or_with_one_that_fails_the_reason_is_told(door: Door) -> None:
    refused = await door.http.get("/health/generate")
    assert (refused.status_code, refused.json()["reason"]) == (503, "not_ready")
    door.services.probed._stale_at = 0  # a moment later
    async with working(door, lambda _: TaskError("upstream_failed", "no")):
        await eventually(door.queue.workers)
        refused = await door.http.get("/health/generate")
    assert (refused.status_code, refused.json()["reason"]) == (503, "upstream_failed")


async def test_replaced_workers_are_a_counter(door: Door, redis: Redis) -> None:
    await RedisReplacements(redis, "test").note("silent")
    await RedisReplacements(redis, "test").note("silent")
    shown = (await door.http.get("/metrics")).text
    families = {one.name: one for one in text_string_to_metric_families(shown)}
    family = families["forebay_worker_replaced"]
    assert family.type == "counter"
    assert [(one.labels, one.value) for one in family.samples] == [({"reason": "silent"}, 2)]
