"""Leaders and followers against a model: any order of arrivals, ends, cancels and lost workers."""

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

from forebay.core.lifecycle import State
from forebay.core.request import Priority, TaskId
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import (
    STREAM_START,
    Lease,
    Outcome,
    Reuse,
    SameAnswer,
    StreamEntry,
    StreamId,
    StreamKind,
    StreamWrite,
    TaskError,
)
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from forebay.queue.token_stream import RedisTokenStreams
from tests.queue.integrity import check_integrity
from tests.queue.key_check import find_leaks
from tests.queue.making import PLENTY, held, run_out, task

T = TypeVar("T")
LEVELS = [Priority.VIP, Priority.NORMAL]
DIGESTS = ["a", "b"]
ENDS = {"": State.FINISHED, "inference_failed": State.FAILED, "cancelled": State.CANCELLED}


@dataclass
class Known:
    """One task as the model sees it."""

    name: str
    digest: str
    priority: Priority
    order: int
    state: State = State.QUEUED
    leader: str | None = None
    reuse: Reuse | None = None
    cancel: bool = False
    deliveries: int = 0
    text: str | None = None
    lease: Lease | None = None
    heard: list[StreamEntry] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return not self.state.final


class FollowersMachine(RuleBasedStateMachine):
    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.keys = Keys(uuid4().hex)
        self.redis = connect(self.url)
        limits = QueueLimits(lease_s=600, starvation_share=0)
        self.queue = RedisQueue(self.redis, self.keys.name, limits)
        self.streams = RedisTokenStreams(self.redis, self.keys.name, limits)
        self.tasks: dict[str, Known] = {}
        self.leads: dict[str, str] = {}  # digest -> who is joined, or whose answer is kept
        self.run(self.queue.start())
        self.run(self.streams.start())

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            return await asyncio.wait_for(work, 20)

        return self.runner.run(bounded())

    def teardown(self) -> None:
        while self.waiting_in_line() or self.having(State.LEASED):
            self.claim()
            for one in self.having(State.LEASED):
                assert one.lease is not None
                text = one.text or ""
                self.run(self.queue.finish([Outcome(*held(one.lease), text)]))
                self.end(one, State.FINISHED, text)
        self.listen()
        assert all(map(self.has_heard_the_end, self.tasks.values()))
        self.who_heard_the_end_heard_the_whole_answer_once()
        self.run(self.streams.aclose())
        leaks = self.run(find_leaks(self.redis, self.keys))
        self.run(self.redis.flushdb())
        self.run(self.redis.aclose())
        self.runner.close()
        assert not leaks

    def having(self, *states: State) -> list[Known]:
        return [one for one in self.tasks.values() if one.state in states]

    def followers(self, leader: str) -> list[Known]:
        found = [one for one in self.tasks.values() if one.leader == leader and one.alive]
        return sorted(found, key=lambda one: one.order)

    def end(self, one: Known, state: State, text: str | None = None) -> None:
        """What the model expects of the end of a task that ran, or that ended by itself."""
        followers = self.followers(one.name)
        one.state, one.text, one.lease = state, text, None
        if one.leader is not None:
            return
        if state is State.FINISHED:
            self.leads[one.digest] = one.name
        elif self.leads.get(one.digest) == one.name:
            del self.leads[one.digest]
        if not followers:
            return
        if state is State.CANCELLED:
            heir = followers[0]
            heir.leader = heir.reuse = None
            self.leads.setdefault(one.digest, heir.name)
            for other in followers[1:]:
                other.leader = heir.name
            return
        for follower in followers:
            follower.state, follower.text = state, text

    @rule(digest=st.sampled_from(DIGESTS), priority=st.sampled_from(LEVELS), reads=st.booleans())
    def arrive(self, digest: str, priority: Priority, reads: bool) -> None:
        one = Known(f"t{len(self.tasks)}", digest, priority, len(self.tasks))
        new = task(one.name, priority=priority, same=SameAnswer(digest, read=reads))
        known = self.tasks.get(self.leads.get(digest, ""))
        if reads and known is not None and known.state is State.FINISHED:
            one.reuse, one.state, one.text = Reuse.CACHED, State.FINISHED, known.text
        elif (
            reads
            and known is not None
            and not known.cancel
            and (known.state is State.LEASED or known.priority <= priority)
        ):
            one.reuse, one.leader = Reuse.JOINED, known.name
        elif reads or known is None:
            self.leads[digest] = one.name
        self.tasks[one.name] = one
        for _ in range(2):
            assert self.run(self.queue.enqueue(new)).reuse is one.reuse

    @rule()
    def claim(self) -> None:
        leases = self.run(self.queue.claim("w", 2, PLENTY))
        for lease in leases:
            one = self.tasks[lease.task_id]
            assert one.leader is None
            assert one.state is State.QUEUED
            one.state, one.lease = State.LEASED, lease
            one.deliveries += 1
        assert leases or not self.waiting_in_line() or self.having(State.LEASED)

    def waiting_in_line(self) -> list[Known]:
        return [one for one in self.having(State.QUEUED) if one.leader is None]

    @precondition(lambda self: self.having(State.LEASED))
    @rule(data=st.data(), text=st.text("xyz", min_size=1, max_size=3))
    def say(self, data: st.DataObject, text: str) -> None:
        one = data.draw(st.sampled_from(self.having(State.LEASED)))
        assert one.lease is not None
        one.text = (one.text or "") + text
        write = StreamWrite(*held(one.lease), text, 1)
        assert self.run(self.streams.append([write])) == set()

    @precondition(lambda self: self.having(State.LEASED))
    @rule(data=st.data(), code=st.sampled_from([*ENDS, ""]))
    def finish(self, data: st.DataObject, code: str) -> None:
        one = data.draw(st.sampled_from(self.having(State.LEASED)))
        assert one.lease is not None
        text = one.text or ""
        error = TaskError(code, "why") if code else None
        outcome = Outcome(*held(one.lease), text, error=error)
        assert self.run(self.queue.finish([outcome, outcome])) == [one.name] * 2
        self.end(one, ENDS[code], None if code else text)

    @precondition(lambda self: self.having(State.QUEUED, State.LEASED))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.having(State.QUEUED, State.LEASED)))
        assert self.run(self.queue.cancel(TaskId(one.name))) is True
        if one.state is State.LEASED:
            one.cancel = True
        else:
            self.end(one, State.CANCELLED)

    @precondition(lambda self: self.having(State.LEASED))
    @rule(data=st.data())
    def lose_the_worker(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.having(State.LEASED)))
        self.run(run_out(self.redis, self.keys, one.name))
        self.run(self.queue.depth())
        one.text = one.lease = None
        if one.cancel:
            self.end(one, State.CANCELLED)
        elif one.deliveries >= 3:
            self.end(one, State.DEAD)
        else:
            one.state = State.QUEUED

    @precondition(lambda self: any(map(self.followers, self.leased_names())))
    @rule(data=st.data())
    def a_leader_is_dropped_in_mid_answer(self, data: st.DataObject) -> None:
        leaders = [name for name in self.leased_names() if self.followers(name)]
        one = self.tasks[data.draw(st.sampled_from(leaders))]
        assert one.lease is not None
        self.run(self.streams.append([StreamWrite(*held(one.lease), "w", 1)]))
        for follower in self.followers(one.name):
            self.run(self.listen_until_told(follower))
        self.run(self.queue.cancel(TaskId(one.name)))
        error = TaskError("cancelled", "why")
        self.run(self.queue.finish([Outcome(*held(one.lease), error=error)]))
        self.end(one, State.CANCELLED)

    async def listen_until_told(self, one: Known) -> None:
        after = one.heard[-1].stream_id if one.heard else STREAM_START
        async with self.streams.subscribe(TaskId(one.name), after) as entries:
            async for entry in entries:
                one.heard.append(entry)
                if entry.text == "w":
                    return

    def leased_names(self) -> list[str]:
        return [one.name for one in self.having(State.LEASED)]

    @precondition(lambda self: self.tasks)
    @rule()
    def listen(self) -> None:
        """Each task's reader reads what there is from where it was cut off, as a client would."""
        self.run(self.listen_to_all())

    async def listen_to_all(self) -> None:
        readers = [one for one in self.tasks.values() if not self.has_heard_the_end(one)]
        places = [one.heard[-1].stream_id if one.heard else STREAM_START for one in readers]
        names = [one.name for one in readers]
        for one, entries in zip(
            readers, await asyncio.gather(*map(self.heard, names, places)), strict=True
        ):
            one.heard += entries

    def has_heard_the_end(self, one: Known) -> bool:
        return bool(one.heard) and one.heard[-1].kind.terminal

    async def heard(self, name: str, after: StreamId) -> list[StreamEntry]:
        found: list[StreamEntry] = []
        patience_s = 5 if self.tasks[name].state.final else 0.05  # an end is on its way for sure
        async with self.streams.subscribe(TaskId(name), after) as entries:
            try:
                while True:
                    async with asyncio.timeout(patience_s):
                        found.append(await anext(entries))
            except (TimeoutError, StopAsyncIteration):
                return found

    @invariant()
    def every_task_is_where_the_model_has_it(self) -> None:
        for one in self.tasks.values():
            record = self.run(self.queue.get(TaskId(one.name)))
            assert record is not None
            assert (record.state, record.reuse) == (one.state, one.reuse)
            assert record.text == (one.text if one.state is State.FINISHED else None)

    @invariant()
    def the_books_add_up(self) -> None:
        assert self.run(check_integrity(self.redis, self.keys)) == []

    @invariant()
    def only_those_in_line_count(self) -> None:
        assert self.run(self.queue.depth()).waiting == len(self.waiting_in_line())

    @invariant()
    def the_followers_are_those_of_the_model(self) -> None:
        for one in self.tasks.values():
            key = self.keys.prefix + KEY_NAMES["followers"] + one.name
            names = [each.name for each in self.followers(one.name)]
            assert self.run(self.redis.zrange(key, 0, -1)) == names

    @invariant()
    def who_heard_the_end_heard_the_whole_answer_once(self) -> None:
        for one in self.tasks.values():
            ends = [at for at, entry in enumerate(one.heard) if entry.kind.terminal]
            assert ends in ([], [len(one.heard) - 1])
            if ends and one.heard[-1].kind is StreamKind.DONE:
                text = ""
                for entry in one.heard:
                    text = "" if entry.kind is StreamKind.RESTART else text + entry.text
                assert text == one.text


@pytest.mark.timeout(250)
def test_followers_do_what_their_model_does(valkey: EmbeddedValkey) -> None:
    FollowersMachine.url = valkey.url
    machine: Any = FollowersMachine.TestCase()
    machine.settings = settings(
        max_examples=25,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine.runTest()
