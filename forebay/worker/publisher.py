"""What a worker writes to the queue: tokens, results, leases given back."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from forebay.core.errors import QueueUnavailableError
from forebay.core.events import PhaseBegun, Piece, TokenDelta
from forebay.queue.ports import LeaseHolder, Outcome, StreamWrite, StreamWriter
from forebay.worker.journal import Journal
from forebay.worker.leases import HeldLeases, LeaseKey
from forebay.worker.task_times import TaskTimes

log = structlog.get_logger("forebay.worker")
T = TypeVar("T")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


@dataclass(slots=True)
class Tally:
    """What a worker has done since its start. ``news``: tokens, phases and ends, as they came."""

    answered: int = 0
    failed: int = 0
    news: int = 0


@dataclass(slots=True)
class _Growth:
    """What is new of a task: of its answers, by their indexes, and the phases it came to."""

    tokens: int = 0
    pieces: dict[int, Piece] = field(default_factory=dict)
    phases: list[PhaseBegun] = field(default_factory=list)

    def add(self, delta: TokenDelta | PhaseBegun) -> None:
        """Join a piece of news to those before it."""
        if isinstance(delta, PhaseBegun):
            self.phases.append(delta)
            return
        self.tokens += delta.tokens
        before = self.pieces.get(delta.index, _NOTHING)
        text, logprobs = before.text + delta.text, before.logprobs + delta.logprobs
        self.pieces[delta.index] = Piece(delta.index, text, logprobs)

    def write(self, key: LeaseKey) -> StreamWrite:
        """Return all of it as one write."""
        first = self.pieces.pop(0, _NOTHING)
        others = tuple(self.pieces[index] for index in sorted(self.pieces))
        now = time.monotonic()
        phases = tuple((one.phase, now - one.at) for one in self.phases)
        return StreamWrite(*key, first.text, self.tokens, first.logprobs, others, phases)


_NOTHING = Piece(0, "")


class Publisher:
    """Writes under the fence, and keeps ``held`` true to what was written.

    ``abort`` has the engine drop a run. ``retry_s``: how long a write is tried while the queue is
    away; past it the leases are left to expire, and their tasks are delivered again.
    """

    def __init__(
        self,
        queue: LeaseHolder,
        streams: StreamWriter,
        held: HeldLeases,
        *,
        abort: Callable[[LeaseKey], None],
        retry_s: float,
        journal: Journal,
    ) -> None:
        self.tally = Tally()
        self.times = TaskTimes()
        self._queue = queue
        self._streams = streams
        self._held = held
        self._abort = abort
        self._retry_s = retry_s
        self._journal = journal
        self._ending: set[LeaseKey] = set()

    async def append(self, news: Sequence[TokenDelta | PhaseBegun]) -> None:
        """Publish new text and phases, a task's joined, in one round trip.

        A failed append may or may not have been written; it is sent again under its nonce, so the
        text is not doubled. Past ``retry_s`` its leases are left to expire: the next delivery
        begins their streams anew.
        """
        self.tally.news += len(news)
        writes = self._writes(news)
        if not writes:
            return
        nonce = secrets.token_hex(8)
        stale = await self._persist("append", lambda: self._streams.append(writes, nonce=nonce))
        keys = [(one.task_id, one.fence) for one in writes]
        if stale is None:
            self.drop(keys, why="append_failed")
        else:
            self.drop([key for key in keys if key[0] in stale], why="stale_fence")

    async def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Store results. Storing again is safe: the fence makes the second one void."""
        if not outcomes:
            return
        self.tally.news += len(outcomes)
        began = time.monotonic()
        ending = {(outcome.task_id, outcome.fence) for outcome in outcomes}
        self._ending |= ending
        try:
            stored = set(await self._persist("finish", lambda: self._queue.finish(outcomes)) or ())
        finally:
            self._ending -= ending
        wrote_s = time.monotonic() - began
        for outcome in outcomes:
            key = (outcome.task_id, outcome.fence)
            if outcome.task_id in stored:
                self._count(outcome)
                self._journal.ended(outcome, wrote_s)
            else:
                self._journal.dropped(key, why="not_stored")
            self._let_go(key)

    async def release(self, keys: Sequence[LeaseKey], *, why: str) -> None:
        """Stop working on these tasks and give them back to the head of the queue."""
        held = [key for key in keys if self._held.holds(key)]
        if not held:
            return
        for key in held:
            self._abort(key)
        await self._persist("release", lambda: self._queue.release(held))
        self.drop(held, why=why)

    def lost(self, keys: Sequence[LeaseKey]) -> None:
        """Forget deliveries that the queue no longer knows, but those that it is just told to end.

        Whether these were lost or stored, the answer to that says.
        """
        self.drop([key for key in keys if key not in self._ending], why="lost")

    async def redeliver(self, keys: Sequence[LeaseKey], *, why: str) -> None:
        """Give back tasks whose delivery came to nothing; it counts against them."""
        await self._persist("redeliver", lambda: self._queue.redeliver(keys, why))
        self.drop(keys, why=why)

    def drop(self, keys: Sequence[LeaseKey], *, why: str) -> None:
        """Forget deliveries that are no longer this worker's, and stop working on them."""
        for key in keys:
            if not self._held.holds(key):
                continue
            trace_id = self._held.trace_id(key)
            log.info("lease_dropped", task_id=key[0], fence=key[1], trace_id=trace_id, why=why)
            self._journal.dropped(key, why=why)
            if self._let_go(key):
                self._abort(key)

    def _let_go(self, key: LeaseKey) -> bool:
        self.times.dropped(key)
        return self._held.drop(key)

    def _writes(self, news: Sequence[TokenDelta | PhaseBegun]) -> list[StreamWrite]:
        grown: dict[LeaseKey, _Growth] = {}
        for one in news:
            key = self._held.of_run(one.task_id)
            if key is not None:
                if isinstance(one, PhaseBegun):
                    self.times.began(key, one)
                grown.setdefault(key, _Growth()).add(one)
        return [growth.write(key) for key, growth in grown.items()]

    def _count(self, outcome: Outcome) -> None:
        task_id, fence = outcome.task_id, outcome.fence
        trace_id = self._held.trace_id((task_id, fence))
        if outcome.error is not None:
            self.tally.failed += 1
            code = outcome.error.code
            log.warning("task_failed", task_id=task_id, fence=fence, trace_id=trace_id, code=code)
            return
        self.tally.answered += 1
        self.times.answered(outcome)
        tokens = outcome.usage.completion_tokens if outcome.usage else 0
        log.info("task_answered", task_id=task_id, fence=fence, trace_id=trace_id, tokens=tokens)

    async def _persist(self, what: str, call: Callable[[], Awaitable[T]]) -> T | None:
        """Repeat a write until the queue takes it; None after ``retry_s`` without success."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._retry_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await call()
            except QueueUnavailableError as error:
                log.warning("queue_unavailable", during=what, reason=error.message)
            if clock() + pause_s > deadline:
                log.error("left_to_expire", during=what)
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
