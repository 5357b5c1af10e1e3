"""No order of requests, ends and half-done sweeps loses a picture that somebody needs."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from asyncio import timeout
from collections.abc import AsyncIterator, Awaitable, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from redis.asyncio import Redis
from structlog.testing import capture_logs

from forebay.core.request import TaskId, Tenant
from forebay.queue.blobs import FolderBlobs
from forebay.queue.blobs_redis import RedisClaims
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import AsideName, Idempotency, Lease, Outcome, SameAnswer, TaskError
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import KEY_NAMES, Keys
from forebay.queue.sweep import BlobSweeper, is_our_turn, settle, sweep_blobs
from tests.queue.key_check import find_leaks
from tests.queue.making import PLENTY, held, picture_task, run_out

T = TypeVar("T")
CONTENTS = [b"one", b"two", b"three"]
NAMES = [hashlib.sha256(content).hexdigest() for content in CONTENTS]
TTL_S = 3600.0
FINAL = ("finished", "failed", "cancelled", "expired", "shed")


class SweepMachine(RuleBasedStateMachine):
    """Requests come in three steps: claim, store, enqueue; sweeps too: list, move, settle."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="forebay-sweep-"))
        self.now = 1_000_000.0
        self.keys = Keys(uuid4().hex)
        self.redis = connect(self.url)
        self.queue = RedisQueue(self.redis, self.keys.name, QueueLimits(lease_s=600))
        self.blobs = FolderBlobs(self.folder, clock=lambda: self.now)
        self.claims = RedisClaims(self.redis, self.keys.name)
        self.coming: list[tuple[int, bool]] = []  # picture, whether it is stored
        self.needs: dict[str, tuple[int, ...]] = {}  # tasks that may need pictures
        self.leases: list[Lease] = []
        self.listed: list[str] = []
        self.moved: list[AsideName] = []
        self.count = 0
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
        shutil.rmtree(self.folder)
        assert not leaks

    @rule(seconds=st.sampled_from([1.0, TTL_S / 2, 2 * TTL_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(at=st.integers(0, len(CONTENTS) - 1))
    def a_request_claims(self, at: int) -> None:
        self.run(self.claims.hold([NAMES[at]], Tenant("default")))
        self.coming.append((at, False))

    @precondition(lambda self: self.coming)
    @rule(data=st.data())
    def a_request_stores(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.coming) - 1))
        at, _ = self.coming[index]
        self.run(self.blobs.put(CONTENTS[at]))
        self.coming[index] = at, True

    @precondition(lambda self: any(stored for _, stored in self.coming))
    @rule(data=st.data(), key=st.sampled_from([None, "k1", "k2"]), same=st.booleans())
    def a_request_is_enqueued(self, data: st.DataObject, key: str | None, same: bool) -> None:
        ready = [index for index, (_, stored) in enumerate(self.coming) if stored]
        at, _ = self.coming.pop(data.draw(st.sampled_from(ready)))
        self.count += 1
        new = replace(
            picture_task(f"t{self.count}", NAMES[at], NAMES[at]),
            held=True,
            idempotency=key and Idempotency(f"{key}-{at}", "asked"),
            same=SameAnswer(str(at)) if same else None,
        )
        for _ in range(2):  # the second is a retry after a lost reply
            enqueued = self.run(self.queue.enqueue(new))
        if enqueued.task_id == new.task_id:
            self.needs[new.task_id] = (at,)

    @rule(at=st.integers(0, len(CONTENTS) - 1))
    def an_old_claim_runs_out(self, at: int) -> None:
        if not any(coming == at for coming, _ in self.coming):
            self.run(self.redis.zrem(self.keys.prefix + KEY_NAMES["holds"], NAMES[at]))

    @rule()
    def a_worker_claims(self) -> None:
        self.leases += self.run(self.queue.claim("w", 2, PLENTY))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), error=st.sampled_from(["", "inference_failed", "cancelled"]))
    def a_task_ends(self, data: st.DataObject, error: str) -> None:
        lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        trouble = TaskError(error, "why") if error else None
        outcome = Outcome(*held(lease), "text", error=trouble)
        self.run(self.queue.finish([outcome, outcome]))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def a_lease_runs_out(self, data: st.DataObject) -> None:
        lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        self.run(run_out(self.redis, self.keys, lease.task_id))
        self.run(self.queue.depth())

    @precondition(lambda self: self.needs)
    @rule(data=st.data())
    def a_client_cancels(self, data: st.DataObject) -> None:
        self.run(self.queue.cancel(TaskId(data.draw(st.sampled_from(sorted(self.needs))))))

    @rule()
    def a_worker_reads(self) -> None:
        for lease in self.leases:
            (at,) = self.needs[lease.task_id]
            assert self.run(self.blobs.get(NAMES[at])) == CONTENTS[at]

    @rule()
    def a_sweep(self) -> None:
        self.run(sweep_blobs(self.blobs, self.claims, TTL_S))

    @rule()
    def a_slow_sweep_lists(self) -> None:
        async def old() -> list[str]:
            return [name async for batch in self.blobs.old(TTL_S) for name in batch]

        self.listed += self.run(old())

    @precondition(lambda self: self.listed)
    @rule()
    def a_slow_sweep_moves(self) -> None:
        name = self.run(self.blobs.set_aside(self.listed.pop()))
        if name is not None:
            self.moved.append(name)

    @rule()
    def a_slow_sweep_comes_late(self) -> None:
        """What waits for long is old, and all of it may be set aside at once."""
        self.now += 2 * TTL_S
        self.a_slow_sweep_lists()
        while self.listed:
            self.a_slow_sweep_moves()

    @precondition(lambda self: self.moved)
    @rule()
    def a_slow_sweep_settles(self) -> None:
        self.run(settle(self.blobs, self.claims, [self.moved.pop()]))

    async def states(self) -> dict[str, str]:
        found = {name: await self.queue.get(TaskId(name)) for name in self.needs}
        return {name: str(record.state) for name, record in found.items() if record}

    @invariant()
    def the_counts_are_those_of_the_tasks(self) -> None:
        states = self.run(self.states())
        counts: dict[str, str] = {}
        for name, pictures in self.needs.items():
            for at in pictures if states[name] not in FINAL else ():
                counts[NAMES[at]] = str(int(counts.get(NAMES[at], 0)) + 1)
        assert self.run(self.redis.hgetall(self.keys.prefix + KEY_NAMES["blobs"])) == counts

    @invariant()
    def what_somebody_needs_is_there(self) -> None:
        states = self.run(self.states())
        needed = {at for name, ats in self.needs.items() if states[name] not in FINAL for at in ats}
        needed |= {at for at, stored in self.coming if stored}
        for at in needed:  # not by get(): that would make it young again
            found = list(self.folder.glob(f"{NAMES[at][:2]}/{NAMES[at]}*"))
            assert found, f"{CONTENTS[at]!r} is gone"
            assert found[0].read_bytes() == CONTENTS[at]


@pytest.mark.timeout(200)
def test_a_sweep_never_takes_what_somebody_needs(valkey: EmbeddedValkey) -> None:
    SweepMachine.url = valkey.url
    machine: Any = SweepMachine.TestCase()
    machine.settings = settings(
        max_examples=30,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine.runTest()


async def test_one_process_sweeps_in_each_interval(
    queue: RedisQueue, redis: Any, keys: Keys
) -> None:
    assert [await is_our_turn(redis, keys) for _ in range(3)] == [True, False, False]
    assert await redis.pttl(keys.sweeper) > 0
    await redis.delete(keys.sweeper)
    assert await is_our_turn(redis, keys)


class BrokenFolder(FolderBlobs):
    """A folder of pictures that fails by each of ``faults`` in turn, and then works."""

    def __init__(self, folder: Path, *faults: Exception) -> None:
        super().__init__(folder)
        self.faults = list(faults)

    async def aside(self) -> AsyncIterator[Sequence[AsideName]]:
        if self.faults:
            raise self.faults.pop(0)
        async for names in super().aside():
            yield names


async def sweeps(
    blobs: FolderBlobs, redis: Redis, keys: Keys, until: str
) -> list[MutableMapping[str, Any]]:
    """Sweep, turn after turn, until the log says so; return all that it said."""
    claims = RedisClaims(redis, keys.name)
    with capture_logs() as said:
        async with BlobSweeper(blobs, claims, redis, keys, TTL_S, every_s=0.01), timeout(30):
            while until not in [one["event"] for one in said]:
                await redis.delete(keys.sweeper)  # the next interval
                await asyncio.sleep(0.01)
        assert "sweep" not in {one.get_name() for one in asyncio.all_tasks()}
    return said


async def test_a_sweep_that_the_disk_fails_is_told_and_tried_again(
    queue: RedisQueue, redis: Redis, keys: Keys, tmp_path: Path
) -> None:
    blobs = BrokenFolder(tmp_path, OSError("the disk is away"))
    said = await sweeps(blobs, redis, keys, until="blobs.swept")
    assert [one["event"] for one in said][:2] == ["blobs.not_swept", "blobs.swept"]
    assert (said[0]["log_level"], said[0]["reason"]) == ("warning", "the disk is away")


async def test_a_sweep_that_fails_by_a_fault_of_ours_is_told_with_its_traceback(
    queue: RedisQueue, redis: Redis, keys: Keys, tmp_path: Path
) -> None:
    fault = ValueError("a fault of ours")
    [told] = await sweeps(BrokenFolder(tmp_path, fault), redis, keys, until="blobs.sweep_failed")
    assert (told["log_level"], told["exc_info"]) == ("error", fault)
