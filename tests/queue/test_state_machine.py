"""Runs the Lua library against a small model of it: any order of calls by doors and workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay.core.errors import ForebayError
from forebay.core.lifecycle import PHASES, State, can_follow
from forebay.core.request import Priority, TaskId
from forebay.queue.canary import RedisCanary, new_entry
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.groups import Group
from forebay.queue.limits import QueueLimits
from forebay.queue.opening import Place
from forebay.queue.ports import (
    Fence,
    Idempotency,
    Listing,
    NewTask,
    Outcome,
    Quota,
    StreamWrite,
    TaskError,
    TenantLoad,
)
from forebay.queue.records import to_entry
from forebay.queue.redis_operator import RedisOperator
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from forebay.queue.token_stream import RedisTokenStreams
from tests.queue.integrity import check_integrity
from tests.queue.key_check import find_leaks
from tests.queue.making import PLENTY, run_out, task
from tests.queue.model import ModelTask, QueueModel

T = TypeVar("T")
LIMITS = QueueLimits(
    lease_s=600, max_deliveries=3, max_waiting=12, max_waiting_tokens=300, starvation_share=0.25
)
LEVELS = [Priority.VIP, Priority.NORMAL, Priority(7), Priority.BATCH]
GROUPS = {"w1": Group.STABLE, "w2": Group.STABLE, "c1": Group.CANARY}
QUOTAS = {
    "acme": Quota(),
    "blue": Quota(max_waiting=4, max_waiting_tokens=100),
    # So slow that no time within a test earns a task: the burst is all there is.
    "slow": Quota(rate_per_s=1e-6, burst=3),
}
WAYS = ["line", "line", "line", "delay", "deadline"]


class QueueMachine(RuleBasedStateMachine):
    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.keys = Keys(uuid4().hex)
        self.redis = connect(self.url)
        self.queue = RedisQueue(self.redis, self.keys.name, LIMITS)
        self.streams = RedisTokenStreams(self.redis, self.keys.name, LIMITS)
        self.operator = RedisOperator(self.redis, self.keys.name, LIMITS)
        self.canary = RedisCanary([Place(self.redis, self.keys.name, LIMITS)])
        self.model = QueueModel(LIMITS)
        self.names = 0
        self.old: list[tuple[TaskId, Fence]] = []
        self.settled: set[str] = set()
        self.run(self.queue.start())

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            return await asyncio.wait_for(work, 20)

        return self.runner.run(bounded())

    def teardown(self) -> None:
        self.settled.clear()
        try:
            self.every_task_is_where_the_model_has_it()
            leaks = self.run(find_leaks(self.redis, self.keys))
        finally:
            self.run(self.redis.flushdb())
            self.run(self.redis.aclose())
            self.runner.close()
        assert not leaks

    def pick(self, data: st.DataObject, *states: State) -> ModelTask:
        return data.draw(st.sampled_from(self.model.having(*states)))

    def pick_held(self, data: st.DataObject) -> ModelTask:
        return data.draw(st.sampled_from(self.model.held))

    @initialize(share=st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0]))
    def canaries_have_a_share(self, share: float) -> None:
        if share > 0:
            self.the_canaries_share_is_set(share)

    # What doors do.

    @rule(
        tenant=st.sampled_from(sorted(QUOTAS)),
        priority=st.sampled_from(LEVELS),
        cost=st.integers(1, 50),
        weight=st.sampled_from([1.0, 1.0, 2.0, 0.5]),
        way=st.sampled_from(WAYS),
        key=st.sampled_from([None, None, "k1", "k2"]),
        body=st.sampled_from(["one", "one", "other"]),
    )
    def enqueue(
        self,
        tenant: str,
        priority: Priority,
        cost: int,
        weight: float,
        way: str,
        key: str | None,
        body: str,
    ) -> None:
        new = replace(
            task(f"t{self.names}", tenant=tenant, priority=priority, cost=cost, weight=weight),
            quota=QUOTAS[tenant],
            idempotency=None if key is None else Idempotency(key, body),
            delay_s=600 if way == "delay" else 0,
            deadline_s=600 if way == "deadline" else None,
        )
        self.names += 1
        if key is not None and (tenant, key) in self.model.keys:
            self.enqueue_again(new, *self.model.keys[tenant, key])
        elif code := self.model.refusal(new):
            self.enqueue_refused(new, code)
        else:
            # Twice: the second is a retry after a lost reply.
            for _ in range(2):
                taken = self.run(self.queue.enqueue(new))
                assert (taken.task_id, taken.fresh) == (new.task_id, True)
                assert 0 <= taken.position <= len(self.model.waiting)
            self.model.enqueue(new)

    def enqueue_again(self, new: NewTask, name: str, body: str) -> None:
        assert new.idempotency is not None
        if body == new.idempotency.digest:
            taken = self.run(self.queue.enqueue(new))
            assert (taken.task_id, taken.fresh) == (name, False)
        else:
            self.enqueue_refused(new, "idempotency_conflict")

    def enqueue_refused(self, new: NewTask, code: str) -> None:
        with pytest.raises(ForebayError) as refused:
            self.run(self.queue.enqueue(new))
        assert refused.value.code == code
        assert self.run(self.queue.get(new.task_id)) is None

    @precondition(lambda self: self.model.waiting)
    @rule(data=st.data())
    def cancel_waiting(self, data: st.DataObject) -> None:
        each = self.pick(data, State.QUEUED)
        assert self.run(self.queue.cancel(TaskId(each.name))) is True
        self.model.end_waiting(each, State.CANCELLED)

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def cancel_held(self, data: st.DataObject) -> None:
        each = self.pick_held(data)
        assert self.run(self.queue.cancel(TaskId(each.name))) is True
        each.cancel = True

    @precondition(lambda self: self.model.having(*TERMINAL))
    @rule(data=st.data())
    def cancel_ended(self, data: st.DataObject) -> None:
        each = self.pick(data, *TERMINAL)
        assert self.run(self.queue.cancel(TaskId(each.name))) is False

    # What workers do.

    @rule(worker=st.sampled_from(sorted(GROUPS)))
    def claim_freely(self, worker: str) -> None:
        self.claim(worker, 3, PLENTY)

    @rule(worker=st.sampled_from(sorted(GROUPS)), limit=st.integers(0, 5), free=st.integers(0, 150))
    def claim_within_bounds(self, worker: str, limit: int, free: int) -> None:
        self.claim(worker, limit, free)

    def claim(self, worker: str, limit: int, free: int) -> None:
        group = GROUPS[worker]
        leases = self.run(self.queue.claim(worker, limit, free, group=group))
        due = self.model.claim(worker, limit, free, group)
        assert [(lease.task_id, lease.fence, lease.deliveries) for lease in leases] == [
            (each.name, each.fence, each.deliveries) for each in due
        ]
        assert [lease.cost_total for lease in leases] == [each.cost for each in due]
        self.old += [(lease.task_id, lease.fence) for lease in leases]

    @precondition(lambda self: self.model.held)
    @rule(data=st.data(), error=st.sampled_from(["", "inference_failed", "cancelled", "expired"]))
    def finish(self, data: st.DataObject, error: str) -> None:
        each = self.pick_held(data)
        trouble = TaskError(error, "why") if error else None
        outcome = Outcome(TaskId(each.name), Fence(each.fence), "text", error=trouble)
        if each.group is Group.CANARY and error == "inference_failed":
            assert self.run(self.queue.finish([outcome, outcome])) == [each.name]
            self.model.spare(each)
            return
        # Twice: the second is a retry after a lost reply, and says that it is stored.
        assert self.run(self.queue.finish([outcome, outcome])) == [each.name, each.name]
        ends = {"": State.FINISHED, "cancelled": State.CANCELLED, "expired": State.EXPIRED}
        each.move(ends.get(error, State.FAILED))

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        each = self.pick_held(data)
        assert self.run(self.queue.release([(TaskId(each.name), Fence(each.fence))])) == [each.name]
        self.model.release(each)

    @precondition(lambda self: self.model.held)
    @rule(data=st.data(), text=st.text(max_size=3), steps=st.integers(0, 2))
    def append(self, data: st.DataObject, text: str, steps: int) -> None:
        each = self.pick_held(data)
        phases: list[State] = []
        for phase in PHASES:
            if len(phases) < steps and can_follow(each.state, phase):
                phases.append(phase)
                each.move(phase)
        write = StreamWrite(
            TaskId(each.name),
            Fence(each.fence),
            text,
            tokens=len(text),
            phases=tuple((phase, 0.5) for phase in phases),
        )
        assert self.run(self.streams.append([write])) == set()
        each.said += ["delta"] if text else []

    @rule(worker=st.sampled_from(sorted(GROUPS)))
    def heartbeat(self, worker: str) -> None:
        mine = self.model.held_by(worker)
        leases = [(TaskId(each.name), Fence(each.fence)) for each in mine]
        group = GROUPS[worker]
        reply = self.run(self.queue.heartbeat(worker, leases, group=group))
        self.model.heard[group].add(worker)
        assert reply.lost == set()
        assert reply.cancelled == {each.name for each in mine if each.cancel}

    # What the clock does.

    @precondition(lambda self: any(each.delayed for each in self.model.waiting))
    @rule(data=st.data())
    def a_delay_is_over(self, data: st.DataObject) -> None:
        delayed = [each for each in self.model.waiting if each.delayed]
        each = data.draw(st.sampled_from(delayed))
        self.pass_by("delayed", each)
        self.model.arrive(each)

    @precondition(lambda self: any(each.deadline for each in self.model.waiting))
    @rule(data=st.data())
    def a_deadline_passes(self, data: st.DataObject) -> None:
        each = data.draw(st.sampled_from([each for each in self.model.waiting if each.deadline]))
        self.pass_by("deadlines", each)
        self.model.end_waiting(each, State.EXPIRED)

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def a_lease_runs_out(self, data: st.DataObject) -> None:
        each = self.pick_held(data)
        self.run(run_out(self.redis, self.keys, each.name))
        self.run(self.queue.depth())
        self.model.crash(each)

    def pass_by(self, index: str, each: ModelTask) -> None:
        """Let the time of one entry come now; it must be there."""
        key = self.keys.prefix + KEY_NAMES[index]
        assert self.run(self.redis.zadd(key, {each.name: 1}, xx=True, ch=True)) == 1
        self.run(self.queue.depth())

    # What goes wrong.

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def a_stale_worker_comes_back(self, data: st.DataObject) -> None:
        tasks = self.model.tasks
        stale = [
            (task_id, fence)
            for task_id, fence in self.old
            if task_id not in tasks or tasks[task_id].fence != fence
        ]
        if not stale:
            return
        task_id, fence = data.draw(st.sampled_from(stale))
        assert self.run(self.queue.finish([Outcome(task_id, fence, "stale")])) == []
        assert self.run(self.queue.release([(task_id, fence)])) == []
        assert self.run(self.queue.redeliver([(task_id, fence)], "why")) == []
        assert self.run(self.streams.append([StreamWrite(task_id, fence, "stale", 1)])) == {task_id}
        assert self.run(self.queue.heartbeat("stale", [(task_id, fence)])).lost == {task_id}
        self.model.heard[Group.STABLE].add("stale")

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def a_delivery_comes_to_nothing(self, data: st.DataObject) -> None:
        each = self.pick_held(data)
        lease = (TaskId(each.name), Fence(each.fence))
        assert self.run(self.queue.redeliver([lease, lease], "why")) == [each.name]
        self.model.crash(each)

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def a_worker_dies_and_is_back(self, data: st.DataObject) -> None:
        worker = self.pick_held(data).worker
        mine = self.model.held_by(worker)
        assert sorted(self.run(self.queue.reap(worker))) == sorted(each.name for each in mine)
        self.model.forget_worker(worker)
        for each in mine:
            self.model.crash(each)
        self.claim(worker, 2, PLENTY)

    # What operators do.

    @precondition(lambda self: self.model.having(State.DEAD))
    @rule(data=st.data(), kept=st.booleans())
    def a_dead_letter_is_seen_to(self, data: st.DataObject, kept: bool) -> None:
        each = self.pick(data, State.DEAD)
        name = TaskId(each.name)
        self.settled.discard(each.name)
        if kept:
            assert self.run(self.operator.retry(name)) is True
            self.model.retry(each)
        else:
            assert self.run(self.operator.drop(name)) is True
            self.model.drop(each)
            assert self.run(self.queue.get(name)) is None
        assert self.run(self.operator.retry(name)) is False
        assert self.run(self.operator.drop(name)) is False

    @rule()
    def drain(self) -> None:
        self.run(self.operator.drain(True))
        self.model.drained = True
        self.claim("w1", 3, PLENTY)
        self.run(self.operator.drain(False))
        self.model.drained = False

    @rule(share=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    def canaries_get_another_share(self, share: float) -> None:
        self.the_canaries_share_is_set(share)

    def the_canaries_share_is_set(self, share: float) -> None:
        assert self.run(self.canary.set(new_entry(share, self.model.share, "test", "set")))
        self.model.set_share(share)

    @rule(listing=st.sampled_from(Listing), limit=st.integers(1, 5))
    def look_through(self, listing: Listing, limit: int) -> None:
        names: list[str] = []
        cursor, pages = "", 0
        while pages == 0 or cursor:
            page = self.run(self.operator.list_tasks(listing, cursor=cursor, limit=limit))
            names += [one.task_id for one in page.tasks]
            cursor, pages = page.cursor, pages + 1
        if listing is Listing.WAITING:
            lines = sorted(
                (each for each in self.model.waiting if each.in_line),
                key=lambda each: (each.level, each.tenant, each.seq),
            )
            assert names == [each.name for each in lines]
        else:
            kinds = {
                Listing.DELAYED: [each for each in self.model.waiting if each.delayed],
                Listing.SUSPECTS: [each for each in self.model.waiting if each.suspect],
                Listing.LEASED: self.model.held,
                Listing.DEAD: self.model.having(State.DEAD),
            }
            assert sorted(names) == sorted(each.name for each in kinds[listing])

    # What must always hold.

    @invariant()
    def the_books_add_up(self) -> None:
        assert self.run(check_integrity(self.redis, self.keys)) == []

    @invariant()
    def counters_agree(self) -> None:
        depth = self.run(self.queue.depth())
        waiting = self.model.waiting
        assert depth.waiting == len(waiting)
        assert depth.waiting_tokens == sum(each.cost for each in waiting)
        assert depth.leased == len(self.model.held)
        assert depth.dead == len(self.model.having(State.DEAD))
        assert depth.delayed == sum(each.delayed for each in waiting)
        loads: dict[str, list[int]] = {}
        for each in waiting:
            loads.setdefault(each.tenant, []).append(each.cost)
        assert self.run(self.operator.tenants()) == {
            tenant: TenantLoad(len(costs), sum(costs)) for tenant, costs in loads.items()
        }

    @invariant()
    def suspects_at_work_are_known(self) -> None:
        solo = self.run(self.redis.smembers(self.keys.prefix + KEY_NAMES["solo"]))
        assert solo == {each.name for each in self.model.held if each.solo}

    @invariant()
    def every_task_is_where_the_model_has_it(self) -> None:
        """Those that have ended are looked at once then, and once more at the end."""
        for each in self.model.tasks.values():
            if each.name in self.settled:
                continue
            if each.state.final:
                self.settled.add(each.name)
            record = self.run(self.queue.get(TaskId(each.name)))
            assert record is not None
            assert record.state is each.state
            assert record.deliveries == each.deliveries
            assert record.group is each.group
            assert (record.position is not None) is (each.state is State.QUEUED)
            assert (record.text is not None) is (each.state is State.FINISHED)
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


@pytest.mark.timeout(300)
def test_the_library_does_what_its_model_does(valkey: EmbeddedValkey) -> None:
    QueueMachine.url = valkey.url
    machine: Any = QueueMachine.TestCase()
    machine.settings = settings(
        max_examples=40,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine.runTest()
