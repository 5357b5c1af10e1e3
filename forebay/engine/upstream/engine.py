"""Runs requests on a server elsewhere: one task of the event loop each, events out."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from forebay.core.engine_load import EngineLoad
from forebay.core.errors import TaskExpiredError
from forebay.core.events import (
    Choice,
    EngineEvent,
    Failed,
    Finished,
    FinishReason,
    PhaseBegun,
    Returned,
    TokenDelta,
)
from forebay.core.lifecycle import State
from forebay.core.request import InferenceRequest, SamplingParams, TaskId, Terms
from forebay.core.trace import Trace
from forebay.engine.errors import EngineBrokenError
from forebay.engine.upstream.answer import AnswerReader, Delta
from forebay.engine.upstream.faults import (
    BrokenOffError,
    RefusedError,
    RejectedError,
    UpstreamFaultError,
)
from forebay.engine.upstream.health import Health
from forebay.engine.upstream.rounds import Rounds
from forebay.engine.upstream.transport import Address, Transport
from forebay.engine.upstream.wire import request_body
from forebay.engine.warm_up import warm_up_request

TRIES: Final = 4
"""Of one request that the server is too busy for, before it goes back to the queue."""

FIRST_PAUSE_S: Final = 0.5

TRAILER_S: Final = 5.0
"""How long the count of tokens is waited for once the answer is whole."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request ready to be sent. ``body``: JSON. ``tools``: it offers functions.

    ``deadline``: on the clock of ``time.monotonic``, in seconds. ``trace``: for the server.
    """

    body: bytes
    sampling: SamplingParams
    deadline: float = math.inf
    tools: bool = False
    trace: Trace | None = None


class UpstreamEngine:
    """An ``EnginePort`` over an OpenAI-compatible server.

    ``unpublished``: events that may wait for ``next_events``; then the connections are read no
    further, and the server feels it. ``answer_s``: the longest that one answer may take.
    ``concurrency``: how many requests its worker brings at once, for who watches.
    """

    def __init__(
        self,
        address: Address,
        *,
        unpublished: int,
        answer_s: float,
        concurrency: int | None = None,
    ) -> None:
        self._address = address
        self._answer_s = answer_s
        self._concurrency = concurrency
        self._transport = Transport(address)
        self._health = Health(self.probe, self._transport.check)
        self._rounds = Rounds()
        self._model = address.model
        self._outbox: asyncio.Queue[EngineEvent | None] = asyncio.Queue(unpublished)
        self._runs: dict[TaskId, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._broken: BaseException | None = None

    @property
    def ready(self) -> bool:
        """Whether the server answered the last time that it was asked."""
        return self._health.ready

    @property
    def accepting(self) -> bool:
        """Whether more requests are wanted: the server is neither doubted nor busy."""
        return self._health.accepting

    @property
    def marks(self) -> tuple[()]:
        """None: all its work is on the event loop, and silences there have limits of their own."""
        return ()

    @property
    def load(self) -> EngineLoad:
        """Requests under way; what the server itself has to do is its own to tell."""
        return EngineLoad(running=len(self._runs), max_running=self._concurrency)

    async def wait_accepting(self, timeout_s: float) -> None:
        """Return when more requests are wanted, or after ``timeout_s``."""
        await self._health.wait_accepting(timeout_s)

    def start(self) -> None:
        """Begin to ask the server whether it answers."""
        self._watch = self._spawn(self._health.watch())

    async def stop(self) -> bool:
        """Close every connection; the work upstream ends with it."""
        tasks = [*self._runs.values(), *([self._watch] if self._watch else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()
        return True

    async def prepare(
        self, run: TaskId, request: InferenceRequest, images: Mapping[str, bytes], terms: Terms
    ) -> Call:
        """Write the request's body, on a thread: pictures make it megabytes long.

        Raises:
            TaskFailedError: a picture's bytes are not in ``images``.
        """
        del run
        body = await asyncio.to_thread(request_body, self._model, request, images)
        return Call(body, request.sampling, terms.deadline, request.tools is not None, terms.trace)

    def add(self, run: TaskId, prepared: Call) -> None:
        """Send a request; whatever comes of it is an event."""
        task = self._spawn(self._run(run, prepared))
        self._runs[run] = task
        task.add_done_callback(lambda _: self._runs.pop(run, None))

    def abort(self, run: TaskId) -> None:
        """Close a request's connection, without an event."""
        task = self._runs.pop(run, None)
        if task is not None:
            task.cancel()

    async def next_events(self) -> list[EngineEvent]:
        """Return every event since the last call, waiting for one at least.

        Raises:
            EngineBrokenError: an error that nobody foresaw.
        """
        waiting = [await self._outbox.get()]
        while not self._outbox.empty():
            waiting.append(self._outbox.get_nowait())
        if self._broken is not None:
            raise EngineBrokenError(repr(self._broken)) from self._broken
        return [event for event in waiting if event is not None]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._broken = self._broken or error
        with contextlib.suppress(asyncio.QueueFull):  # then nobody waits for an event
            self._outbox.put_nowait(None)

    async def _run(self, run: TaskId, call: Call) -> None:
        await self._outbox.put(await self._last_event(run, call))

    async def _last_event(self, run: TaskId, call: Call) -> EngineEvent:
        """Have the request answered; return how that ended, by the deadline at the latest."""
        left_s = call.deadline - time.monotonic()
        try:
            async with asyncio.timeout(left_s if math.isfinite(left_s) else None):
                return await self._outcome(run, call)
        except TimeoutError:
            return Failed(run, TaskExpiredError.code, "the deadline passed upstream")

    async def _outcome(self, run: TaskId, call: Call) -> EngineEvent:
        try:
            async with asyncio.timeout(self._answer_s):
                return await self._answer(run, call)
        except UpstreamFaultError as error:
            fault = error
        except TimeoutError:
            fault = BrokenOffError(f"the upstream's answer took over {self._answer_s:g} s")
        return await self._ended_by(run, call, fault)

    async def _ended_by(
        self, run: TaskId, call: Call, fault: UpstreamFaultError
    ) -> Failed | Returned:
        """Return whose fault it was: the request's, the server's, or, undecided, either's."""
        if isinstance(fault, RejectedError):
            return Failed(run, fault.code, fault.why)
        if isinstance(fault, RefusedError) and (not fault.busy or self._rounds.are_over(call.body)):
            # The server may be down, or this one request be more than it can take: ask it.
            return Returned(run, fault.why, counts=await self._health.verdict(fault))
        self._health.doubt(fault)
        return Returned(run, fault.why, counts=isinstance(fault, BrokenOffError))

    async def _answer(self, run: TaskId, call: Call) -> Finished:
        """Send the request; while the server is busy, wait as it says and send it again."""
        pause_s = FIRST_PAUSE_S
        await self._begin(run, State.PREFILL)
        for _ in range(TRIES - 1):
            try:
                return await self._attempt(run, call)
            except RefusedError as fault:
                if not fault.passing:
                    raise
                wait_s = max(pause_s, fault.retry_after or 0.0)
                self._health.hold_off(wait_s)
            await asyncio.sleep(wait_s * random.uniform(1.0, 1.25))  # noqa: S311 - no secret
            pause_s *= 2
        return await self._attempt(run, call)

    async def _attempt(self, run: TaskId, call: Call) -> Finished:
        decoding = False

        async def publish(new: Delta) -> None:
            nonlocal decoding
            if not decoding:
                decoding = True
                await self._begin(run, State.DECODE)
            delta = TokenDelta(run, new.text, new.tokens, new.index, new.logprobs)
            await self._outbox.put(delta)

        reader = AnswerReader(call.sampling, self._address.hidden, tools=call.tools)
        first, *others = await self._read(call, reader, publish)
        self._rounds.end(call.body)
        reason = FinishReason(first.reason)
        return Finished(run, first.text, reason, reader.usage, first.logprobs, tuple(others))

    async def _begin(self, run: TaskId, phase: State) -> None:
        await self._outbox.put(PhaseBegun(run, phase, time.monotonic()))

    async def _read(
        self, call: Call, reader: AnswerReader, publish: Callable[[Delta], Awaitable[None]]
    ) -> list[Choice]:
        """Have the answers streamed into ``reader``; return them once they are whole.

        What goes wrong after that cannot harm them: the count of tokens may be missing.
        """
        until: float | None = None
        try:
            async with aclosing(self._transport.chat(call.body, call.trace)) as chunks:
                while not reader.done:
                    async with asyncio.timeout_at(until):
                        chunk = await anext(chunks, b"")
                    if not chunk:
                        break
                    self._health.heard()
                    for new in reader.feed(chunk):
                        await publish(new)
                    if reader.whole and until is None:
                        until = asyncio.get_running_loop().time() + _trailer_s(call)
        except (UpstreamFaultError, TimeoutError):
            if not reader.whole:
                raise
        return reader.choices()

    async def probe(self) -> str:
        """Ask for one token about a real picture; return the model. Raises UpstreamFaultError."""
        await self._transport.check()
        model = await self._transport.model()
        request, images = warm_up_request()
        call = Call(request_body(model, request, images), request.sampling)
        reader = AnswerReader(call.sampling, self._address.hidden)
        try:
            async with asyncio.timeout(self._answer_s):
                await self._read(call, reader, _unread)
        except TimeoutError as error:
            raise BrokenOffError(f"one token took over {self._answer_s:g} s") from error
        self._model = model
        return model


def _trailer_s(call: Call) -> float:
    """Return how long a whole answer waits for its count: never until it would be expired."""
    return min(TRAILER_S, (call.deadline - time.monotonic()) / 2)


async def _unread(new: Delta) -> None:
    """Nobody reads what a probe is told."""
    del new


async def ask_once(address: Address, answer_s: float) -> str:
    """Ask a server for one token about a picture; return the model that gave it.

    Raises:
        UpstreamFaultError: it did not, and why.
    """
    engine = UpstreamEngine(address, unpublished=1, answer_s=answer_s)
    try:
        return await engine.probe()
    finally:
        await engine.stop()
