"""One call tells where many tasks stand; what a client keeps with its task comes back."""

from __future__ import annotations

from dataclasses import replace

from forebay.core.lifecycle import State
from forebay.core.request import TaskId
from forebay.queue.ports import Glimpse, Outcome, SameAnswer
from tests.queue.making import task


async def test_a_glance_agrees_with_what_is_said_of_each_task(queue):
    ids = [(await queue.enqueue(task(f"t{at}"))).task_id for at in range(4)]
    (lease,) = await queue.claim("w", 1, 10**9)
    await queue.cancel(ids[3])
    seen = await queue.glance([*ids, TaskId("nobody")])
    assert list(seen) == ids
    for task_id, glimpse in seen.items():
        record = await queue.get(task_id)
        assert (glimpse.state, glimpse.position) == (record.state, record.position)
    assert seen[lease.task_id].state is State.LEASED
    assert [seen[one].position for one in ids[1:3]] == [0, 1]
    assert seen[ids[3]].state is State.CANCELLED
    assert await queue.glance([]) == {}


async def test_who_waits_for_another_ones_answer_is_seen_where_that_one_stands(queue):
    leader, follower = [
        (await queue.enqueue(task(name, same=SameAnswer("digest")))).task_id for name in "ab"
    ]
    waiting = await queue.glance([leader, follower])
    assert waiting[follower] == waiting[leader]
    (lease,) = await queue.claim("w", 1, 10**9)
    running = await queue.glance([leader, follower])
    assert running[follower] == running[leader] == Glimpse(State.LEASED)
    await queue.release([(lease.task_id, lease.fence)])
    again = await queue.glance([leader, follower])
    assert again[follower].state is State.QUEUED
    await queue.claim("w", 1, 10**9)
    await queue.cancel(follower)
    seen = await queue.glance([leader, follower])
    assert [one.state for one in seen.values()] == [State.LEASED, State.CANCELLED]


async def test_metadata_comes_back_while_the_task_waits_and_when_it_has_ended(queue):
    kept = {"order": "7", "Ключ": '值 " \\ \n'}
    task_id = (await queue.enqueue(replace(task("a"), metadata=kept))).task_id
    assert (await queue.get(task_id)).metadata == kept
    (lease,) = await queue.claim("w", 1, 10**9)
    await queue.finish([Outcome(lease.task_id, lease.fence, text="x")])
    assert (await queue.get(task_id)).metadata == kept
    plain = (await queue.enqueue(task("b"))).task_id
    assert (await queue.get(plain)).metadata == {}
