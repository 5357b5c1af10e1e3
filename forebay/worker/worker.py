"""The worker: leases tasks, has the engine answer them, publishes tokens, stores the results.

Three tasks on the event loop (claim, publish, heartbeat), and the engine behind ``EnginePort``.
What each may assume:

- A lease is in ``HeldLeases`` from claim to end; whatever arrives for another one is ignored.
- The fence is compared by the queue at every write, so a lost lease can do no harm here.
- Tokens of a task are published before its result, both by the same loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from forebay.core.errors import (
    ForebayError,
    QueueUnavailableError,
    TaskCancelledError,
    TaskFailedError,
)
from forebay.core.events import EngineEvent, Failed, Finished, PhaseBegun, Returned, TokenDelta
from forebay.engine.errors import EngineBrokenError
from forebay.ops.worker_metrics import WorkerMetrics
from forebay.ops.worker_status import Phase
from forebay.queue.groups import Group
from forebay.queue.ports import BlobStore, Lease, LeaseHolder, Outcome, StreamWriter, TaskError
from forebay.worker.engine_port import EnginePort
from forebay.worker.journal import Journal, Told
from forebay.worker.leases import HeldLeases, LeaseKey, key_of, run_id
from forebay.worker.publisher import Publisher

log = structlog.get_logger("forebay.worker")

NEWS = (TokenDelta, PhaseBegun)
"""What the engine says of a task that goes on."""

PUBLISH_EVERY_S = 0.03
"""Tokens that come within so long of the last ones are published together, to be read by people
at the same ease for a fraction of the cost. An end is published at once.
"""

_ASIDE_TICK_S = 0.2


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """How much a worker takes on. Times in seconds.

    ``max_leases``: tasks held at once, a few more than the engine runs so that the next ones are
    prepared meanwhile. ``max_tokens``: their costs together. ``retry_s``: how long a write is
    tried while the queue is away. ``group``: a canary gets its share, and no more.
    """

    max_leases: int = 20
    max_tokens: int = 16_384
    heartbeat_s: float = 1.0
    idle_wait_s: float = 1.0
    drain_s: float = 20.0
    retry_s: float = 30.0
    group: Group = Group.STABLE


class Worker:
    """One engine's hands. ``name`` stays the same over restarts of the process."""

    def __init__(
        self,
        name: str,
        *,
        queue: LeaseHolder,
        streams: StreamWriter,
        blobs: BlobStore,
        engine: EnginePort,
        limits: WorkerLimits,
        on_life: Callable[[Worker], None] = lambda _: None,
        told: Told | None = None,
    ) -> None:
        self.name = name
        told = told or Told(WorkerMetrics(worker=name))
        self.metrics = told.metrics
        self.group = limits.group
        self.held = HeldLeases(limits.max_leases, limits.max_tokens)
        self._queue = queue
        self._blobs = blobs
        self._engine = engine
        self._limits = limits
        self._on_life = on_life
        self._draining = False
        self._wanted = asyncio.Event()  # clear: it stands aside until it is wanted again
        self._wanted.set()
        self._preparing: set[asyncio.Task[None]] = set()
        self._journal = Journal(name, self.held, told)
        self.publisher = Publisher(
            queue,
            streams,
            self.held,
            abort=lambda key: engine.abort(run_id(key)),
            retry_s=limits.retry_s,
            journal=self._journal,
        )

    @property
    def phase(self) -> Phase:
        """Where the worker is in its life."""
        if self._draining:
            return Phase.DRAINING
        if not self._wanted.is_set():
            return Phase.DRAINING if len(self.held) else Phase.DRAINED
        return Phase.READY if self._engine.ready else Phase.WAITING

    def stand_aside(self) -> None:
        """Take nothing more; end what the engine has, and give back the rest."""
        self._wanted.clear()

    def step_up(self) -> None:
        """Take tasks again."""
        self._wanted.set()

    async def run(
        self,
        stop: asyncio.Event,
        hurry: asyncio.Event | None = None,
        drain_s: Callable[[], float] | None = None,
    ) -> None:
        """Work until ``stop``, then drain; ``hurry`` ends the drain at once.

        ``drain_s``: how long the drain may take, asked while it lasts; None: as the limits say.

        Raises:
            EngineBrokenError (in a group): the engine cannot go on. The leases are left behind,
                and the queue delivers those tasks again.
        """
        self._engine.start()
        try:
            async with asyncio.TaskGroup() as group:
                heartbeat = group.create_task(self._heartbeat_loop())
                life = group.create_task(self._life_loop())
                publish = group.create_task(self._publish_loop())
                await self._claim_loop(stop, group)
                await self._drain(
                    hurry or asyncio.Event(), drain_s or (lambda: self._limits.drain_s)
                )
                for task in (heartbeat, life, publish, *self._preparing):
                    task.cancel()
        finally:
            if not await self._engine.stop():
                log.error("engine_stuck")

    async def _claim_loop(self, stop: asyncio.Event, group: asyncio.TaskGroup) -> None:
        while not stop.is_set():
            if not self._wanted.is_set():
                await self._aside(stop)
                continue
            if not self._engine.accepting:
                await self._engine.wait_accepting(self._limits.idle_wait_s)
                continue
            if self.held.room < 1:
                await self.held.wait_for_drop(self._limits.idle_wait_s)
                continue
            for lease in await self._claim():
                # The queue took the task from us and gave it to us again before a heartbeat told.
                older = self.held.keys_of([lease.task_id])
                self.publisher.drop(older, why="delivered_again")
                self.held.take(lease)
                self.publisher.times.took(lease)
                self._journal.leased(lease)
                preparing = group.create_task(self._prepare(lease))
                self._preparing.add(preparing)
                preparing.add_done_callback(self._preparing.discard)

    async def _aside(self, stop: asyncio.Event) -> None:
        """Empty the hands within the time of a drain; return when work is wanted, or the end."""
        log.info("standing_aside", held=len(self.held))
        self._on_life(self)
        await self._heartbeat()  # that it serves no more is known before anybody counts on it
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._limits.drain_s
        await self.publisher.release(self.held.keys_outside_engine(), why="drain")
        while not (self._wanted.is_set() or stop.is_set()):
            if len(self.held) and clock() > deadline:
                await self.publisher.release(self.held.keys(), why="drain_deadline")
            await _within(_ASIDE_TICK_S, self._wanted.wait())
        log.info("stood_aside", answered=self.publisher.tally.answered)

    async def _claim(self) -> list[Lease]:
        """Claim what there is room for; when there is nothing, wait a little for a turn."""
        drops = self.held.drops
        try:
            leases = await self._queue.claim(
                self.name,
                self.held.room,
                self.held.free_tokens,
                self.held.task_ids(),
                group=self.group,
            )
            if not leases:
                await self._wait_for_turn(drops)
        except QueueUnavailableError as error:
            log.warning("queue_unavailable", during="claim", reason=error.message)
            await asyncio.sleep(self._limits.idle_wait_s)
            return []
        return leases

    async def _wait_for_turn(self, drops: int) -> None:
        """Return when work has arrived or a lease was dropped since ``drops``, or after a while.

        Either may let the next claim through: the head of the queue may wait for this worker's
        tokens, and a suspect waits for it to run empty.
        """
        limit_s = self._limits.idle_wait_s
        waits = [
            asyncio.ensure_future(self._queue.wait_for_work(limit_s)),
            asyncio.ensure_future(self.held.wait_for_drop(limit_s, since=drops)),
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        for wait in done:
            wait.result()

    async def _prepare(self, lease: Lease) -> None:
        """Bring a leased task into the engine, or end it with the reason why that cannot be."""
        key = key_of(lease)
        names = dict.fromkeys(image.sha256 for image in lease.request.images)
        try:
            images = {sha256: await self._blobs.get(sha256) for sha256 in names}
        except KeyError:
            await self._refuse(key, TaskFailedError("a picture of this task is gone"))
        except OSError as error:  # out of files, a disk that stumbles: it may pass
            trace_id = self.held.trace_id(key)
            log.warning(
                "picture_unread", task_id=lease.task_id, trace_id=trace_id, reason=str(error)
            )
            await self.publisher.redeliver([key], why="a picture could not be read")
        else:
            await self._prepare_with(lease, images)

    async def _prepare_with(self, lease: Lease, images: Mapping[str, bytes]) -> None:
        key = key_of(lease)
        try:
            prepared = await self._engine.prepare(run_id(key), lease.request, images, lease.terms)
        except ForebayError as error:
            await self._refuse(key, error)
        except Exception:
            trace_id = self.held.trace_id(key)
            log.exception("prepare_failed", task_id=lease.task_id, trace_id=trace_id)
            await self._refuse(key, TaskFailedError("the request could not be prepared"))
        else:
            if self.held.enter_engine(key):
                self._engine.add(run_id(key), prepared)

    async def _refuse(self, key: LeaseKey, error: ForebayError) -> None:
        if self.held.holds(key):
            outcome = Outcome(*key, error=TaskError(error.code, error.message))
            await self.publisher.finish([outcome])

    async def _publish_loop(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            events = await self._next_events()
            broken = await self._gather(events, due - clock())
            due = clock() + PUBLISH_EVERY_S
            await self.publisher.append([one for one in events if isinstance(one, NEWS)])
            await self.publisher.finish(self._outcomes(events))
            await self._give_back([one for one in events if isinstance(one, Returned)])
            if broken is not None:
                raise broken

    async def _next_events(self) -> list[EngineEvent]:
        events = list(await self._engine.next_events())
        self._journal.heard(events)
        return events

    async def _gather(self, events: list[EngineEvent], limit_s: float) -> EngineBrokenError | None:
        """Add what comes within ``limit_s`` to the news that have come; an end goes at once.

        Returns:
            The error after which no events come.
        """
        if limit_s <= 0:
            return None
        try:
            async with asyncio.timeout(limit_s):
                while all(isinstance(one, NEWS) for one in events):
                    events.extend(await self._next_events())
        except TimeoutError:
            return None
        except EngineBrokenError as error:
            return error
        return None

    async def _give_back(self, events: Sequence[Returned]) -> None:
        """Return tasks to the queue, those with the same reason in one round trip."""
        alike: dict[tuple[str, bool], list[LeaseKey]] = {}
        for event in events:
            if (key := self.held.of_run(event.task_id)) is not None:
                alike.setdefault((event.why, event.counts), []).append(key)
        for (why, counts), keys in alike.items():
            give_back = self.publisher.redeliver if counts else self.publisher.release
            await give_back(keys, why=why)

    def _outcomes(self, events: Sequence[EngineEvent]) -> list[Outcome]:
        outcomes = []
        for event in events:
            key = self.held.of_run(event.task_id)
            if key is None:
                continue
            match event:
                case Finished(_, text, reason, usage, logprobs, others):
                    outcomes.append(
                        Outcome(*key, text, reason.value, usage, logprobs=logprobs, others=others)
                    )
                case Failed(_, code, message):
                    outcomes.append(Outcome(*key, error=TaskError(code, message)))
        return outcomes

    async def _heartbeat_loop(self) -> None:
        while True:
            await self._heartbeat()
            await asyncio.sleep(self._limits.heartbeat_s)

    async def _life_loop(self) -> None:
        """Give signs of life on this machine, however long the queue's server takes to answer."""
        while True:
            self._on_life(self)
            await asyncio.sleep(self._limits.heartbeat_s)

    async def _heartbeat(self) -> None:
        """Renew every lease; drop what is lost, end what was cancelled."""
        keys = self.held.keys()
        try:
            reply = await self._queue.heartbeat(
                self.name, keys, serving=self.phase is Phase.READY, group=self.group
            )
        except QueueUnavailableError as error:
            log.warning("queue_unavailable", during="heartbeat", reason=error.message)
            return
        self.publisher.lost([key for key in keys if key[0] in reply.lost])
        for key in keys:
            if key[0] in reply.cancelled and self.held.holds(key):
                self._engine.abort(run_id(key))
                await self._refuse(key, TaskCancelledError("cancelled by its client"))

    async def _drain(self, hurry: asyncio.Event, drain_s: Callable[[], float]) -> None:
        """Give back what the engine does not have, wait for the rest, then give that back too."""
        self._draining = True
        self._on_life(self)
        await self._heartbeat()  # that it serves no more is known before anybody counts on it
        log.info("draining", held=len(self.held))
        await self.publisher.release(self.held.keys_outside_engine(), why="drain")
        clock = asyncio.get_running_loop().time
        began = clock()
        while len(self.held) and not hurry.is_set() and clock() - began < drain_s():
            await self.held.wait_for_drop(0.2)
        await self.publisher.release(self.held.keys(), why="drain_deadline")
        self._on_life(self)  # the last sign: it holds nothing
        log.info("drained", answered=self.publisher.tally.answered)


async def _within(seconds: float, what: Awaitable[object]) -> None:
    """Return when ``what`` has come, or after ``seconds``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await what
