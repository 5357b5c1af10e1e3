"""Accepted requests are answered, once each, whatever is killed with SIGKILL in mid-burst."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.core.request import TaskId
from forebay.queue.connection import connect
from forebay.queue.ports import StreamKind
from forebay.queue.token_stream import RedisTokenStreams
from tests.integration.stack import ServeProcess, serving

BURST = 50


@pytest.fixture(scope="module")
def stack(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    with serving(
        model, tmp_path_factory.mktemp("stack"), "--set", "max_tokens_default=250"
    ) as stack:
        yield stack


def strike_point(stack: ServeProcess, task_ids: list[str]) -> None:
    """Return in mid-burst: some are answered, and others are not."""
    watched = task_ids[::5]  # to look at all of them takes long enough to miss the moment
    stack.until(lambda: stack.answered(watched) > 0, "first answers")
    assert stack.answered(watched) < len(watched), "the burst was over too soon to be struck"


def ends(stack: ServeProcess, task_ids: list[str]) -> Counter[StreamKind]:
    """Count the terminal entries of all the tasks' streams."""

    async def count() -> Counter[StreamKind]:
        redis = connect(f"unix://{stack.data_dir}/queue/valkey.sock")
        found: Counter[StreamKind] = Counter()
        try:
            async with RedisTokenStreams(redis) as streams:
                for task_id in task_ids:
                    async with streams.subscribe(TaskId(task_id)) as entries:
                        found.update([one.kind async for one in entries if one.kind.terminal])
        finally:
            await redis.aclose()
        return found

    return asyncio.run(count())


def test_a_killed_worker_is_restarted_and_the_burst_is_answered_once_each(
    stack: ServeProcess,
) -> None:
    task_ids = stack.submit(BURST)
    strike_point(stack, task_ids)
    stack.kill_child("worker")
    stack.await_answers(task_ids)
    assert ends(stack, task_ids) == {StreamKind.DONE: BURST}


def test_tasks_accepted_by_an_api_that_is_killed_are_answered(stack: ServeProcess) -> None:
    task_ids = stack.submit(BURST, "whose is it")
    strike_point(stack, task_ids)
    stack.kill_child("api")
    stack.await_answers(task_ids)
    assert ends(stack, task_ids) == {StreamKind.DONE: BURST}


def test_tasks_accepted_by_a_queue_server_that_is_killed_are_answered(
    stack: ServeProcess,
) -> None:
    task_ids = stack.submit(BURST, "where is it")
    strike_point(stack, task_ids)
    old = stack.queue_server()
    os.kill(old, signal.SIGKILL)
    stack.until(lambda: "queue_server_restarted" in stack.output(), "new queue server")
    stack.tree.append(stack.queue_server())
    stack.await_answers(task_ids)
    assert ends(stack, task_ids) == {StreamKind.DONE: BURST}
