"""Canaries at a real queue: their share, whose turn it is, what becomes of what they fail at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from forebay.core.events import Usage
from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.address import parse_address
from forebay.queue.canary import RedisCanary, new_entry
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.groups import Group
from forebay.queue.limits import QueueLimits
from forebay.queue.opening import Place, open_queue
from forebay.queue.ports import Fence, Lease, Outcome, SameAnswer, StreamKind, TaskError
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import Keys
from forebay.queue.token_stream import RedisTokenStreams
from tests.queue.integrity import check_integrity
from tests.queue.making import PLENTY, answer, held, names, run_out, task
from tests.queue.model import ModelTask, QueueModel

CANARY, STABLE = Group.CANARY, Group.STABLE
FAILED = TaskError("inference_failed", "no")


class Rig:
    """A queue, and its canaries' share."""

    def __init__(self, queue: RedisQueue, redis: Redis, keys: Keys, limits: QueueLimits) -> None:
        self.queue, self.redis, self.keys = queue, redis, keys
        self.canary = RedisCanary([Place(redis, keys.name, limits)])

    async def share(self, share: float) -> None:
        assert await self.canary.set(new_entry(share, 0, "test", "set"))

    async def add(self, count: int, **more: Any) -> list[str]:
        there = [f"t{number}" for number in range(count)]
        for name in there:
            await self.queue.enqueue(task(name, **more))
        return there

    async def claim(self, group: Group, limit: int = 1) -> list[Lease]:
        return await self.queue.claim(group.value, limit, PLENTY, group=group)

    async def alive(self, group: Group, *, serving: bool = True) -> None:
        await self.queue.heartbeat(group.value, [], serving=serving, group=group)

    async def fail(self, lease: Lease) -> None:
        stored = await self.queue.finish([Outcome(*held(lease), error=FAILED)])
        assert stored == [lease.task_id]

    async def group_of(self, name: str) -> Group | None:
        record = await self.queue.get(TaskId(name))
        assert record is not None
        return record.group

    async def sound(self) -> bool:
        return await check_integrity(self.redis, self.keys) == []


@pytest.fixture
def rig(queue: RedisQueue, redis: Redis, keys: Keys, limits: QueueLimits) -> Rig:
    return Rig(queue, redis, keys, limits)


async def test_without_a_share_a_canary_gets_nothing_and_nobody_waits_for_it(rig: Rig) -> None:
    there = await rig.add(4)
    await rig.alive(CANARY)
    assert await rig.claim(CANARY, 4) == []
    assert names(await rig.claim(STABLE, 4)) == there


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.9])
async def test_a_canary_with_room_gets_its_share_to_a_task(rig: Rig, share: float) -> None:
    await rig.share(share)
    await rig.add(200)
    taken = {STABLE: 0, CANARY: 0}
    while sum(taken.values()) < 200:
        for group, room in ((CANARY, 100), (STABLE, 1)):
            leases = await rig.claim(group, room)
            taken[group] += len(leases)
            await rig.queue.finish([answer(one) for one in leases])
    assert abs(taken[CANARY] - 200 * share) <= 1


async def test_with_a_share_of_one_the_canary_gets_everything_while_it_lives(rig: Rig) -> None:
    await rig.share(1)
    there = await rig.add(5)
    await rig.alive(CANARY)
    assert await rig.claim(STABLE, 5) == []
    assert names(await rig.claim(CANARY, 3)) == there[:3]
    assert await rig.claim(STABLE, 5) == []  # it is full; the others wait for it
    await rig.alive(CANARY, serving=False)
    assert names(await rig.claim(STABLE, 5)) == there[3:]


async def test_a_share_without_a_canary_delays_nothing(rig: Rig) -> None:
    for share in (0.5, 1.0):
        await rig.share(share)
        there = await rig.add(6)
        leases = await rig.claim(STABLE, 6)
        assert names(leases) == there
        await rig.queue.finish([answer(one) for one in leases])
        await rig.redis.flushdb()


async def test_a_canary_that_is_full_is_not_waited_for(rig: Rig) -> None:
    await rig.share(0.5)
    await rig.add(8)
    await rig.claim(STABLE)
    assert len(await rig.claim(CANARY, 1)) == 1  # it asked for no more
    assert len(await rig.claim(STABLE, 6)) == 6


async def test_a_stable_worker_leaves_its_turn_to_a_canary_that_waits(rig: Rig) -> None:
    await rig.share(0.5)
    assert await rig.claim(CANARY, 2) == []  # it waits
    there = await rig.add(4)
    assert names(await rig.claim(STABLE, 4)) == there[:1]
    assert await rig.claim(STABLE, 4) == []
    assert names(await rig.claim(CANARY, 4)) == there[1:2]
    assert names(await rig.claim(STABLE, 4)) == there[2:3]


async def test_who_waits_behind_the_other_group_is_told_when_it_has_taken_its_turn(
    rig: Rig,
) -> None:
    await rig.share(0.5)
    assert await rig.claim(CANARY, 2) == []
    there = await rig.add(3)
    await rig.queue.wait_for_work(5)
    assert names(await rig.claim(STABLE, 3)) == there[:1]
    assert await rig.claim(STABLE, 3) == []
    async with waited_for(rig.queue):
        assert names(await rig.claim(CANARY, 3)) == there[1:2]
    assert await rig.claim(CANARY, 3) == []
    async with waited_for(rig.queue):
        assert names(await rig.claim(STABLE, 1)) == there[2:]
        await rig.add(5)


@asynccontextmanager
async def waited_for(queue: RedisQueue) -> AsyncIterator[None]:
    """Fail unless the block tells those who wait for work that there is some."""
    waiting = asyncio.create_task(queue.wait_for_work(60))
    yield
    await asyncio.wait_for(waiting, 10)


async def test_a_rollback_ends_it_at_once_and_what_runs_may_end(rig: Rig) -> None:
    await rig.share(1)
    there = await rig.add(3)
    [first] = await rig.claim(CANARY)
    await rig.share(0)
    assert await rig.claim(CANARY, 3) == []
    assert names(await rig.claim(STABLE, 3)) == there[1:]
    assert await rig.queue.finish([answer(first)]) == [first.task_id]
    assert await rig.group_of(there[0]) is CANARY
    assert await rig.group_of(there[1]) is None


async def test_what_a_canary_fails_at_is_given_to_a_stable_worker_and_counts_nothing(
    rig: Rig, streams: RedisTokenStreams
) -> None:
    await rig.share(1)
    there = await rig.add(2)
    await rig.alive(STABLE)
    first, _ = await rig.claim(CANARY, 2)
    await rig.fail(first)
    assert await rig.sound()
    assert await rig.claim(CANARY, 2) == []
    [again] = await rig.claim(STABLE)
    assert (again.task_id, again.deliveries) == (there[0], 1)
    assert await rig.queue.finish([Outcome(*held(first), "late")]) == []
    assert await rig.queue.finish([answer(again)]) == [again.task_id]
    record = await rig.queue.get(again.task_id)
    assert record is not None
    assert (record.state, record.group, record.text) == (State.FINISHED, STABLE, "42")
    async with streams.subscribe(again.task_id) as entries:
        kinds = [one.kind async for one in entries]
    assert kinds == [StreamKind.RESTART, StreamKind.DONE]


async def test_what_a_stable_worker_fails_at_too_fails(rig: Rig) -> None:
    await rig.share(1)
    await rig.alive(STABLE)
    await rig.add(1)
    [first] = await rig.claim(CANARY)
    await rig.fail(first)
    [again] = await rig.claim(STABLE)
    await rig.fail(again)
    record = await rig.queue.get(TaskId("t0"))
    assert record is not None
    assert (record.state, record.error) == (State.FAILED, FAILED)


@pytest.mark.parametrize("code", ["cancelled", "expired"])
async def test_a_task_that_ended_for_its_client_is_no_failure(rig: Rig, code: str) -> None:
    await rig.share(1)
    await rig.add(1)
    [lease] = await rig.claim(CANARY)
    await rig.queue.finish([Outcome(*held(lease), error=TaskError(code, "why"))])
    record = await rig.queue.get(lease.task_id)
    assert record is not None
    assert record.state.final
    trial = await rig.canary.trial(60)
    assert trial.counts[CANARY].total == 0


@pytest.mark.parametrize("way", ["reaped", "expired", "redelivered"])
async def test_what_a_canary_loses_is_no_suspect_and_counts_nothing(rig: Rig, way: str) -> None:
    await rig.share(1)
    await rig.alive(STABLE)
    there = await rig.add(3)
    leases = await rig.claim(CANARY, 3)
    if way == "reaped":
        assert sorted(await rig.queue.reap(CANARY.value)) == there
    elif way == "expired":
        await run_out(rig.redis, rig.keys, *there)
        await rig.queue.depth()
    else:
        assert await rig.queue.redeliver([held(one) for one in leases], "why") == there
    assert await rig.sound()
    again = await rig.claim(STABLE, 3)
    assert [(one.task_id, one.deliveries) for one in again] == [(name, 1) for name in there]
    trial = await rig.canary.trial(60)
    assert trial.counts[CANARY].lost == 3


async def test_a_task_given_back_by_a_canary_may_go_to_anyone(rig: Rig) -> None:
    await rig.share(1)
    await rig.alive(STABLE)
    await rig.add(1)
    [lease] = await rig.claim(CANARY)
    await rig.queue.release([held(lease)])
    assert await rig.group_of("t0") is None
    assert names(await rig.claim(CANARY)) == ["t0"]


async def test_a_canary_alone_with_everything_cannot_be_killed_for_ever(rig: Rig) -> None:
    """Nobody else is there for what it loses: its deliveries count as anyone's."""
    await rig.share(1)
    await rig.add(1)
    for _ in range(4):
        [lease] = await rig.claim(CANARY)
        await rig.queue.redeliver([held(lease)], "it died")
    record = await rig.queue.get(TaskId("t0"))
    assert record is not None
    assert record.state is State.DEAD
    assert await rig.sound()


async def test_suspects_are_for_stable_workers_and_a_canary_goes_on_beside_them(rig: Rig) -> None:
    await rig.add(1)
    [lease] = await rig.claim(STABLE)
    await rig.queue.redeliver([held(lease)], "it died")
    await rig.share(0.5)
    await rig.queue.enqueue(task("fresh1"))
    await rig.queue.enqueue(task("fresh2"))
    await rig.alive(STABLE)
    assert names(await rig.claim(CANARY, 3)) == []  # not its turn yet
    assert names(await rig.claim(STABLE, 3)) == ["t0"]
    await rig.share(1)
    assert names(await rig.claim(CANARY, 3)) == ["fresh1", "fresh2"]


async def test_a_canarys_answer_is_kept_for_nobody(rig: Rig) -> None:
    same = SameAnswer("digest")
    await rig.share(1)
    await rig.queue.enqueue(replace(task("a"), same=same))
    follows = await rig.queue.enqueue(replace(task("b"), same=same))
    [lease] = await rig.claim(CANARY)
    await rig.queue.finish([answer(lease, "new")])
    assert follows.reuse is not None
    assert await rig.group_of("b") is CANARY  # it shared the run, and says whose that was
    third = await rig.queue.enqueue(replace(task("c"), same=same))
    assert third.reuse is None
    await rig.share(0)
    [lease] = await rig.claim(STABLE)
    await rig.queue.finish([answer(lease, "old")])
    fourth = await rig.queue.enqueue(replace(task("d"), same=same))
    assert fourth.reuse is not None
    record = await rig.queue.get(TaskId("d"))
    assert record is not None
    assert (record.text, record.group) == ("old", None)


async def test_workers_that_serve_are_those_any_task_may_come_to(rig: Rig) -> None:
    await rig.alive(CANARY)
    assert await rig.queue.workers() == 0
    await rig.share(0.9)
    assert await rig.queue.workers() == 0
    await rig.share(1)
    assert await rig.queue.workers() == 1
    await rig.alive(STABLE)
    assert await rig.queue.workers() == 2


async def test_what_comes_of_tasks_is_counted_for_each_group_while_there_is_a_share(
    rig: Rig,
) -> None:
    await rig.add(1)
    await rig.queue.finish([answer(one) for one in await rig.claim(STABLE)])
    await rig.share(0.5)
    await rig.add(1)
    await rig.queue.enqueue(task("x"))
    for number in range(6):
        await rig.queue.enqueue(task(f"n{number}"))
    stable, canary = [], []
    while len(stable) + len(canary) < 7:
        stable += await rig.claim(STABLE)
        canary += await rig.claim(CANARY)
    usage = Usage(1, 1)
    await rig.queue.finish([Outcome(*held(stable[0]), "a", usage=usage), answer(stable[1], "")])
    await rig.queue.finish([answer(canary[0]), Outcome(*held(canary[1]), error=FAILED)])
    trial = await rig.canary.trial(60)
    counted = trial.counts[STABLE]
    assert (counted.answered, counted.empty, counted.failed) == (1, 1, 0)
    counted = trial.counts[CANARY]
    assert (counted.answered, counted.failed, counted.whole.total) == (1, 1, 1)
    assert trial.share == 0.5
    [entry, *_] = await rig.canary.log(5)
    assert trial.entry == entry


async def test_a_change_of_the_share_or_of_what_canaries_run_begins_a_trial(rig: Rig) -> None:
    await rig.share(0.5)
    await rig.canary.begin({"model": "one"})
    await rig.canary.begin({"model": "one"})
    before = await rig.canary.trial(60)
    assert (before.starts, before.about) == (2, {"model": "one"})
    await rig.canary.begin({"model": "two"})
    after = await rig.canary.trial(60)
    assert (after.starts, after.about, after.share) == (1, {"model": "two"}, 0.5)
    assert after.number == before.number + 1
    assert not await rig.canary.set(new_entry(0, 0.5, "test", "late"), trial=before.number)
    assert (await rig.canary.trial(60)).share == 0.5
    entry = new_entry(0, 0.5, "test", "in time")
    for _ in range(2):  # the second is a retry after a lost reply
        assert await rig.canary.set(entry, trial=after.number)
    assert [one["reason"] for one in await rig.canary.log(5)] == ["in time", "set"]


WORKERS = {"s1": STABLE, "s2": STABLE, "c1": CANARY, "c2": CANARY}
OPERATIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 6), st.sampled_from(["acme", "blue"])),
    st.tuples(st.just("claim"), st.sampled_from(sorted(WORKERS)), st.integers(1, 6)),
    st.tuples(st.just("claim"), st.sampled_from(sorted(WORKERS)), st.integers(1, 6)),
    st.tuples(st.sampled_from(["answer", "fail", "lose", "release"]), st.integers(0, 99)),
    st.tuples(st.just("share"), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(share=st.sampled_from([0.25, 0.5, 1.0]), steps=st.lists(OPERATIONS, min_size=20))
async def test_each_group_is_given_exactly_what_the_model_says(
    redis: Redis, share: float, steps: list[tuple[Any, ...]]
) -> None:
    """Dense in claims, where the machine of all calls is broad."""
    await redis.flushdb()
    limits = QueueLimits(lease_s=600)
    queue = RedisQueue(redis, "dense", limits)
    twin = Twin(Rig(queue, redis, Keys("dense"), limits), QueueModel(limits))
    await twin.share(share)
    for name, *args in steps:
        await getattr(twin, name)(*args)
    assert await twin.rig.sound()


class Twin:
    """A queue and its model, given the same."""

    def __init__(self, rig: Rig, model: QueueModel) -> None:
        self.rig, self.model = rig, model
        self.names = 0

    async def share(self, share: float) -> None:
        await self.rig.share(share)
        self.model.set_share(share)

    async def add(self, count: int, tenant: str) -> None:
        for _ in range(count):
            new = task(f"t{self.names}", tenant=tenant)
            self.names += 1
            await self.rig.queue.enqueue(new)
            self.model.enqueue(new)

    async def claim(self, worker: str, limit: int) -> None:
        group = WORKERS[worker]
        leases = await self.rig.queue.claim(worker, limit, PLENTY, group=group)
        due = self.model.claim(worker, limit, PLENTY, group)
        assert [(one.task_id, one.fence, one.deliveries) for one in leases] == [
            (each.name, each.fence, each.deliveries) for each in due
        ]

    def pick(self, number: int) -> ModelTask | None:
        held = self.model.held
        return held[number % len(held)] if held else None

    async def answer(self, number: int) -> None:
        if each := self.pick(number):
            await self.rig.queue.finish([Outcome(TaskId(each.name), Fence(each.fence), "42")])
            each.move(State.FINISHED)

    async def fail(self, number: int) -> None:
        if each := self.pick(number):
            outcome = Outcome(TaskId(each.name), Fence(each.fence), error=FAILED)
            assert await self.rig.queue.finish([outcome]) == [each.name]
            if each.group is CANARY:
                self.model.spare(each)
            else:
                each.move(State.FAILED)

    async def lose(self, number: int) -> None:
        if each := self.pick(number):
            await self.rig.queue.redeliver([(TaskId(each.name), Fence(each.fence))], "why")
            self.model.crash(each)

    async def release(self, number: int) -> None:
        if each := self.pick(number):
            await self.rig.queue.release([(TaskId(each.name), Fence(each.fence))])
            self.model.release(each)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    share=st.floats(0.01, 0.99),
    rooms=st.lists(st.tuples(st.sampled_from(list(Group)), st.integers(1, 8)), max_size=40),
)
async def test_a_canary_never_gets_more_than_its_share_whoever_asks_when(
    rig: Rig, share: float, rooms: list[tuple[Group, int]]
) -> None:
    await rig.redis.flushdb()
    await rig.share(share)
    for number in range(40):
        await rig.queue.enqueue(task(f"t{number}"))
    taken = {STABLE: 0, CANARY: 0}
    order: list[str] = []
    for group, room in rooms:
        leases = await rig.claim(group, room)
        taken[group] += len(leases)
        order += names(leases)
    assert taken[CANARY] <= share * sum(taken.values()) + 1
    assert order == [f"t{number}" for number in range(len(order))]  # nobody is overtaken


async def test_partitions_have_one_share_and_one_log(
    valkey: EmbeddedValkey, redis: Redis, limits: QueueLimits
) -> None:
    address = parse_address(valkey.url)
    async with open_queue(address, uuid4().hex, limits, partitions=3) as opened:
        canary = RedisCanary(opened.places)
        await canary.begin({"model": "new"})
        assert await canary.set(new_entry(1, 0, "test", "set"))
        for number in range(12):
            await opened.queue.enqueue(task(f"t{number}", tenant=f"tenant{number}"))
        await opened.queue.heartbeat("c", [], group=CANARY)
        assert await opened.queue.claim("s", 20, PLENTY) == []
        leases = await opened.queue.claim("c", 20, PLENTY, group=CANARY)
        assert len(leases) == 12
        await opened.queue.finish([answer(one) for one in leases])
        trial = await canary.trial(60)
        assert (trial.counts[CANARY].answered, trial.workers[CANARY]) == (12, 1)
        away = Keys(opened.places[2].name)
        await opened.places[2].redis.hset(away.meta, "canary_share", "0.5")
        await canary.spread()
        assert await opened.places[2].redis.hget(away.meta, "canary_share") == "1"
        assert len(await canary.log(10)) == 1
    await redis.flushdb()
