"""Runs the Lua library against a small model of it: any order of calls by doors and workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forebay.core.lifecycle import State, can_follow
from forebay.core.request import Priority, TaskId
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import Fence, Lease, Outcome, StreamWrite, TaskError
from forebay.queue.records import to_entry
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from forebay.queue.token_stream import RedisTokenStreams
from tests.queue.key_check import find_leaks
from tests.queue.making import PLENTY, run_out, task

T = TypeVar("T")
LIMITS = QueueLimits(lease_s=600, max_deliveries=3)
CLASSES = [Priority.VIP, Priority.NORMAL, Priority(7), Priority.BATCH]
WORKERS = ("w1", "w2")
TENANTS = ("acme", "blue")


@dataclass
class Model:
    """One task as the model sees it."""

    name: str
    order: int
    tenant: str
    priority: Priority
    cost: int
    state: State = State.QUEUED
    worker: str = ""
    fence: int = 0
    deliveries: int = 0
    suspect: bool = False
    cancel: bool = False
    said: list[str] = field(default_factory=list)

    def move(self, state: State) -> None:
        assert can_follow(self.state, state), f"{self.state} -> {state}"
        self.state = state

    def crash(self) -> None:
        """What becomes of it when its worker is gone."""
        self.fence += 1
        if self.cancel:
            self.move(State.CANCELLED)
        elif self.deliveries >= LIMITS.max_deliveries:
            self.move(State.DEAD)
        else:
            self.move(State.QUEUED)
            self.suspect = True


class QueueMachine(RuleBasedStateMachine):
    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.keys = Keys(uuid4().hex)
        self.redis = connect(self.url)
        self.queue = RedisQueue(self.redis, self.keys.name, LIMITS)
        self.streams = RedisTokenStreams(self.redis, self.keys.name, LIMITS)
        self.tasks: dict[str, Model] = {}
        self.old: list[tuple[TaskId, Fence]] = []
        self.run(self.queue.start())

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            return await asyncio.wait_for(work, 20)

        return self.runner.run(bounded())

    def teardown(self) -> None:
        leaks = self.run(find_leaks(self.redis, self.keys))
        self.run(self.redis.flushdb())
        self.run(self.redis.aclose())
        self.runner.close()
        assert not leaks

    def having(self, *states: State) -> list[Model]:
        found = [each for each in self.tasks.values() if each.state in states]
        return sorted(found, key=lambda each: each.order)

    def held_by(self, worker: str) -> list[Model]:
        return [each for each in self.having(State.LEASED) if each.worker == worker]

    def pick(self, data: st.DataObject, *states: State) -> Model:
        return data.draw(st.sampled_from(self.having(*states)))

    # What doors do.

    @rule(
        tenant=st.sampled_from(TENANTS),
        priority=st.sampled_from(CLASSES),
        cost=st.integers(1, 50),
    )
    def enqueue(self, tenant: str, priority: Priority, cost: int) -> None:
        name = f"t{len(self.tasks)}"
        taken = self.run(
            self.queue.enqueue(task(name, tenant=tenant, priority=priority, cost=cost))
        )
        assert 0 <= taken.position <= len(self.having(State.QUEUED))
        self.tasks[name] = Model(name, len(self.tasks), tenant, priority, cost)

    @precondition(lambda self: self.having(State.QUEUED))
    @rule(data=st.data())
    def cancel_waiting(self, data: st.DataObject) -> None:
        each = self.pick(data, State.QUEUED)
        assert self.run(self.queue.cancel(TaskId(each.name))) is True
        each.move(State.CANCELLED)

    @precondition(lambda self: self.having(State.LEASED))
    @rule(data=st.data())
    def cancel_leased(self, data: st.DataObject) -> None:
        each = self.pick(data, State.LEASED)
        assert self.run(self.queue.cancel(TaskId(each.name))) is True
        each.cancel = True

    @precondition(lambda self: self.having(*TERMINAL))
    @rule(data=st.data())
    def cancel_ended(self, data: st.DataObject) -> None:
        each = self.pick(data, *TERMINAL)
        assert self.run(self.queue.cancel(TaskId(each.name))) is False

    # What workers do.

    @rule(worker=st.sampled_from(WORKERS))
    def claim_freely(self, worker: str) -> None:
        self.claim(worker, 2, PLENTY)

    @rule(worker=st.sampled_from(WORKERS), limit=st.integers(0, 5), free=st.integers(0, 150))
    def claim_within_bounds(self, worker: str, limit: int, free: int) -> None:
        self.claim(worker, limit, free)

    def claim(self, worker: str, limit: int, free: int) -> None:
        holding = self.held_by(worker)
        waiting = self.having(State.QUEUED)
        suspects = [each for each in waiting if each.suspect]
        solos = [each for each in self.having(State.LEASED) if each.suspect]
        leases = self.run(self.queue.claim(worker, limit, free))
        taken = [self.tasks[lease.task_id] for lease in leases]
        if any(each.suspect for each in holding):
            assert taken == []
        elif suspects and not holding and limit:
            assert taken == suspects[:1]
        elif suspects and not solos:
            assert taken == []
        else:
            self.check_turns(waiting, taken, limit, free, idle=not holding)
        for each, lease in zip(taken, leases, strict=True):
            self.take(each, lease, worker)

    def check_turns(
        self, waiting: list[Model], taken: list[Model], limit: int, free: int, *, idle: bool
    ) -> None:
        plain = [each for each in waiting if not each.suspect]
        assert len(taken) <= limit
        # Each tenant's tasks of a class leave in the order in which they came.
        for tenant in TENANTS:
            for priority in CLASSES:
                line = [e for e in plain if (e.tenant, e.priority) == (tenant, priority)]
                gone = [e for e in taken if (e.tenant, e.priority) == (tenant, priority)]
                assert gone == line[: len(gone)]
        left = [each for each in plain if each not in taken]
        ranks = [CLASSES.index(each.priority) for each in taken]
        assert ranks == sorted(ranks)
        if taken and left:
            assert ranks[-1] <= min(CLASSES.index(each.priority) for each in left)
        spent = sum(each.cost for each in taken)
        assert spent <= free or (idle and len(taken) == 1)
        if len(taken) < limit and left:
            # It stopped because the head of the most urgent class did not fit.
            assert taken or not idle
            urgent = min(CLASSES.index(each.priority) for each in left)
            heads: dict[str, Model] = {}
            for each in left:
                if CLASSES.index(each.priority) == urgent:
                    heads.setdefault(each.tenant, each)
            assert any(each.cost > free - spent for each in heads.values())

    def take(self, each: Model, lease: Lease, worker: str) -> None:
        assert lease.fence > each.fence
        assert lease.cost_total == each.cost
        each.move(State.LEASED)
        each.worker, each.fence = worker, lease.fence
        each.deliveries += 1
        assert lease.deliveries == each.deliveries
        if self.was_delivered(each):
            each.said = ["restart"]
        self.old.append((lease.task_id, lease.fence))

    def was_delivered(self, each: Model) -> bool:
        return any(task_id == each.name for task_id, _ in self.old)

    @precondition(lambda self: self.having(State.LEASED))
    @rule(data=st.data(), error=st.sampled_from(["", "inference_failed", "cancelled", "expired"]))
    def finish(self, data: st.DataObject, error: str) -> None:
        each = self.pick(data, State.LEASED)
        trouble = TaskError(error, "why") if error else None
        outcome = Outcome(TaskId(each.name), Fence(each.fence), "text", error=trouble)
        # Twice: the second is a retry after a lost reply, and says that it is stored.
        assert self.run(self.queue.finish([outcome, outcome])) == [each.name, each.name]
        ends = {"": State.FINISHED, "cancelled": State.CANCELLED, "expired": State.EXPIRED}
        each.move(ends.get(error, State.FAILED))

    @precondition(lambda self: self.having(State.LEASED))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        each = self.pick(data, State.LEASED)
        assert self.run(self.queue.release([(TaskId(each.name), Fence(each.fence))])) == [each.name]
        each.deliveries -= 1
        each.fence += 1
        each.move(State.CANCELLED if each.cancel else State.QUEUED)

    @precondition(lambda self: self.having(State.LEASED))
    @rule(data=st.data(), text=st.text(max_size=3))
    def append(self, data: st.DataObject, text: str) -> None:
        each = self.pick(data, State.LEASED)
        write = StreamWrite(TaskId(each.name), Fence(each.fence), text, 1)
        assert self.run(self.streams.append([write])) == set()
        each.said.append("delta")

    @rule(worker=st.sampled_from(WORKERS))
    def heartbeat(self, worker: str) -> None:
        mine = self.held_by(worker)
        reply = self.run(
            self.queue.heartbeat(worker, [(TaskId(each.name), Fence(each.fence)) for each in mine])
        )
        assert reply.lost == set()
        assert reply.cancelled == {each.name for each in mine if each.cancel}

    # What goes wrong.

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def a_stale_worker_comes_back(self, data: st.DataObject) -> None:
        stale = [
            (task_id, fence) for task_id, fence in self.old if self.tasks[task_id].fence != fence
        ]
        if not stale:
            return
        task_id, fence = data.draw(st.sampled_from(stale))
        assert self.run(self.queue.finish([Outcome(task_id, fence, "stale")])) == []
        assert self.run(self.queue.release([(task_id, fence)])) == []
        assert self.run(self.queue.redeliver([(task_id, fence)], "why")) == []
        assert self.run(self.streams.append([StreamWrite(task_id, fence, "stale", 1)])) == {task_id}
        assert self.run(self.queue.heartbeat("stale", [(task_id, fence)])).lost == {task_id}

    @precondition(lambda self: self.having(State.LEASED))
    @rule(data=st.data())
    def a_lease_runs_out(self, data: st.DataObject) -> None:
        each = self.pick(data, State.LEASED)
        self.run(run_out(self.redis, self.keys, each.name))
        self.run(self.queue.depth())
        each.crash()

    @precondition(lambda self: self.having(State.LEASED))
    @rule(data=st.data())
    def a_delivery_comes_to_nothing(self, data: st.DataObject) -> None:
        each = self.pick(data, State.LEASED)
        lease = (TaskId(each.name), Fence(each.fence))
        assert self.run(self.queue.redeliver([lease, lease], "why")) == [each.name]
        each.crash()

    @precondition(lambda self: self.having(State.LEASED))
    @rule(data=st.data())
    def a_worker_dies_and_is_back(self, data: st.DataObject) -> None:
        worker = self.pick(data, State.LEASED).worker
        mine = self.held_by(worker)
        assert sorted(self.run(self.queue.reap(worker))) == sorted(each.name for each in mine)
        for each in mine:
            each.crash()
        self.claim(worker, 2, PLENTY)

    # What must always hold.

    @invariant()
    def counters_agree(self) -> None:
        depth = self.run(self.queue.depth())
        waiting = self.having(State.QUEUED)
        assert depth.waiting == len(waiting)
        assert depth.waiting_tokens == sum(each.cost for each in waiting)
        assert depth.leased == len(self.having(State.LEASED))
        assert depth.dead == len(self.having(State.DEAD))

    @invariant()
    def suspects_at_work_are_known(self) -> None:
        solo = self.run(self.redis.smembers(self.keys.prefix + KEY_NAMES["solo"]))
        assert solo == {each.name for each in self.having(State.LEASED) if each.suspect}

    @invariant()
    def every_task_is_where_the_model_has_it(self) -> None:
        for each in self.tasks.values():
            record = self.run(self.queue.get(TaskId(each.name)))
            assert record is not None
            assert record.state is each.state
            assert record.deliveries == each.deliveries
            assert (record.position is not None) is (each.state is State.QUEUED)
            assert (record.text is not None) is (each.state is State.FINISHED)

    @invariant()
    def streams_are_whole_and_end_once(self) -> None:
        for each in self.tasks.values():
            kinds = self.run(self.kinds_of(each.name))
            end = [TERMINAL[each.state]] if each.state in TERMINAL else []
            assert kinds == each.said + end

    async def kinds_of(self, name: str) -> list[str]:
        stream: list[Any] = await self.redis.xrange(self.keys.stream(TaskId(name)))
        return [str(to_entry(stream_id, fields).kind) for stream_id, fields in stream]


TERMINAL = {
    State.FINISHED: "done",
    State.FAILED: "error",
    State.EXPIRED: "error",
    State.DEAD: "error",
    State.CANCELLED: "cancelled",
}


def test_the_model_ends_every_final_state_but_those_before_the_queue() -> None:
    final = {state for state in State if state.final}
    assert set(TERMINAL) == final - {State.SHED}


@pytest.mark.timeout(200)
def test_the_library_does_what_its_model_does(valkey: EmbeddedValkey) -> None:
    QueueMachine.url = valkey.url
    machine: Any = QueueMachine.TestCase()
    machine.settings = settings(
        max_examples=60,
        stateful_step_count=80,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine.runTest()
