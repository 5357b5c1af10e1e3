"""The loop that takes a canary's share back, at a real queue."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from forebay.ops.alerts.store import AlertStore
from forebay.ops.canary.judgement import Terms
from forebay.ops.canary.watch import CanaryWatch
from forebay.ops.metrics import Metrics
from forebay.queue.canary import RedisCanary, new_entry
from forebay.queue.groups import Group
from forebay.queue.limits import QueueLimits
from forebay.queue.opening import Place
from forebay.queue.ports import Outcome, TaskError
from forebay.queue.redis_queue import RedisQueue
from tests.queue.making import PLENTY, held, task

NAME = "canary-watch"


class Scene:
    def __init__(self, redis: Redis) -> None:
        self.queue = RedisQueue(redis, NAME)
        self.canary = RedisCanary([Place(redis, NAME, QueueLimits())])
        self.store = AlertStore(redis, NAME)
        self.told: list[dict[str, Any]] = []
        self.metrics = Metrics()

    def watch(self, process: str = "one", **more: Any) -> CanaryWatch:
        async def note(entry: dict[str, Any]) -> None:
            self.told.append(entry)

        async def leads() -> bool:
            return await self.store.lead(process, 60)

        return CanaryWatch(
            self.canary,
            self.metrics,
            Terms(least=5),
            leads=leads,
            on_rollback=note,
            **more,
        )

    async def fail(self, count: int) -> None:
        """Let a canary with the whole share fail at so many tasks."""
        await self.canary.set(new_entry(1, 0, "test", "set"))
        for number in range(count):
            await self.queue.enqueue(task(f"t{number}"))
        for lease in await self.queue.claim("c", count, PLENTY, group=Group.CANARY):
            await self.queue.finish(
                [Outcome(*held(lease), error=TaskError("inference_failed", ""))]
            )

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def test_a_canary_that_fails_loses_its_share_once_with_its_figures(redis: Redis) -> None:
    scene = Scene(redis)
    await scene.fail(8)
    watch = scene.watch()
    await watch.look()
    await watch.look()
    [entry] = scene.told
    assert (entry["reason"], entry["share"], entry["before"]) == ("failed", 0.0, 1.0)
    assert entry["figures"]["canary"]["failed"] == 8
    assert (await scene.canary.log(5))[0] == entry
    assert (await scene.canary.trial(60)).share == 0
    assert scene.value("forebay_canary_rolled_back") == 1
    await scene.canary.set(new_entry(0.1, 0, "ada", "set"))
    await watch.look()
    assert scene.value("forebay_canary_rolled_back") == 0
    assert (await scene.canary.trial(60)).share == 0.1  # what was before is not held against it


async def test_only_the_process_with_the_lead_judges_and_with_judging_off_none(
    redis: Redis,
) -> None:
    scene = Scene(redis)
    await scene.fail(8)
    await scene.watch(judges=False).look()
    assert await scene.store.lead("another", 60)
    await scene.watch().look()
    assert scene.told == []
    assert scene.value("forebay_group_tasks", group="canary", outcome="failed") == 8
    await scene.store.resign("another")
    await scene.watch().look()
    assert len(scene.told) == 1
