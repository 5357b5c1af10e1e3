"""The one thread that steps the engine, and the two bounded ways in and out of it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from forebay.core.engine_load import EngineLoad
from forebay.core.errors import ForebayError
from forebay.core.events import EngineEvent, Failed, StepStats
from forebay.core.request import InferenceRequest, TaskId, Terms
from forebay.engine.errors import EngineBrokenError
from forebay.worker.engine_port import MAX_UNPUBLISHED_STEPS

LONGEST_STEP_S = 10.0
"""A stop waits so long for the present step; a slower one is left behind with the process."""


class StepOutput(Protocol):
    """What one step returns."""

    @property
    def events(self) -> Sequence[EngineEvent]:
        """What happened to the sequences, in order."""
        ...

    @property
    def stats(self) -> StepStats:
        """What the step did, and how long its parts took."""
        ...


class SteppedEngine(Protocol):
    """An engine that this thread drives. ``prepare`` may be called from any thread."""

    def prepare(
        self,
        task_id: TaskId,
        request: InferenceRequest,
        images: Mapping[str, bytes],
        terms: Terms,
    ) -> Any:
        """Do the slow work before the device. Raises ForebayError."""
        ...

    def add(self, prepared: Any) -> None:
        """Take a prepared request among the waiting. Raises ForebayError."""
        ...

    def abort(self, task_id: TaskId) -> Any:
        """Drop a sequence; an unknown one is no error."""
        ...

    def step(self) -> StepOutput:
        """Advance every running sequence."""
        ...

    def close(self) -> None:
        """Leave undone whatever is not begun; no step follows. Called from another thread."""
        ...

    def check_integrity(self) -> None:
        """Raise unless the engine's books add up."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        ...

    @property
    def pulse(self) -> int:
        """Rises within a step, as its parts are done. Read from any thread."""
        ...


@dataclass(frozen=True, slots=True)
class _Add:
    task_id: TaskId
    prepared: Any


@dataclass(frozen=True, slots=True)
class _Abort:
    task_id: TaskId


class EngineThread:
    """An ``EnginePort`` that steps an engine while it has work.

    ``add`` and ``abort`` take effect before the next step. The inbox holds at most an add and an
    abort for each lease. ``prepare`` runs in ``prepare_threads`` threads of its own. ``on_step`` is
    told of every step, on the engine's thread.
    """

    ready = True
    accepting = True

    def __init__(
        self,
        engine: SteppedEngine,
        prepare_threads: int = 2,
        max_running: int | None = None,
        on_step: Callable[[StepStats], None] | None = None,
    ) -> None:
        self._engine = engine
        self._on_step = on_step
        self._preparers = ThreadPoolExecutor(prepare_threads, "prepare")
        self._inbox: deque[_Add | _Abort] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._steps = 0
        self._stepping = False
        self._load = EngineLoad(max_running=max_running)
        self._being_prepared: dict[TaskId, None] = {}  # the oldest first
        self._room = threading.Semaphore(MAX_UNPUBLISHED_STEPS)
        self._outbox: asyncio.Queue[Sequence[EngineEvent] | Exception] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread; events go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> bool:
        """End the thread after its present step; False when that step outlasts the limit."""
        self._preparers.shutdown(wait=False, cancel_futures=True)
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._room.release()
        await asyncio.to_thread(self._thread.join, LONGEST_STEP_S)
        self._engine.close()
        return not self._thread.is_alive()

    @property
    def marks(self) -> tuple[Hashable | None, ...]:
        """The step under way, and the oldest request being prepared.

        A thread that never comes back from preparing one holds its task as surely as a step does.
        """
        step = (self._steps, self._engine.pulse) if self._stepping else None
        return step, next(iter(list(self._being_prepared)), None)

    async def wait_accepting(self, timeout_s: float) -> None:
        """Return at once: what an engine here may hold is known to its worker."""
        del timeout_s

    @property
    def load(self) -> EngineLoad:
        """As the last step left it; what was aborted since does not run any more."""
        return self._load if self._engine.has_work else replace(self._load, running=0, waiting=0)

    async def prepare(
        self, run: TaskId, request: InferenceRequest, images: Mapping[str, bytes], terms: Terms
    ) -> Any:
        """Prepare on a thread; see the engine's own ``prepare``."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._preparers, self._prepare, run, request, images, terms
        )

    def _prepare(
        self, run: TaskId, request: InferenceRequest, images: Mapping[str, bytes], terms: Terms
    ) -> Any:
        self._being_prepared[run] = None
        try:
            return self._engine.prepare(run, request, images, terms)
        finally:
            del self._being_prepared[run]

    def add(self, run: TaskId, prepared: Any) -> None:
        """Hand a prepared request to the engine; a refusal comes back as a ``Failed`` event."""
        self._send(_Add(run, prepared))

    def abort(self, run: TaskId) -> None:
        """Have the engine drop a sequence."""
        self._send(_Abort(run))

    async def next_events(self) -> list[EngineEvent]:
        """Return the events of every step since the last call, waiting for one at least.

        Raises:
            EngineBrokenError: a step raised; no events follow, and those before it were returned.
        """
        batches = [await self._outbox.get()]
        while not self._outbox.empty():
            batches.append(self._outbox.get_nowait())
        events: list[EngineEvent] = []
        for batch in batches:
            if isinstance(batch, Exception):
                if events:
                    self._outbox.put_nowait(batch)  # it was the last one: the next call raises
                    return events
                raise EngineBrokenError(f"{type(batch).__name__}: {batch}") from batch
            self._room.release()
            events.extend(batch)
        return events

    def _send(self, command: _Add | _Abort) -> None:
        with self._changed:
            self._inbox.append(command)
            self._changed.notify()

    def _run(self) -> None:
        try:
            while (commands := self._next_commands()) is not None:
                events = self._advance(commands)
                if events:
                    self._room.acquire()  # the publisher's time is none of the engine's
                    self._hand_over(events)
                if not self._engine.has_work:
                    # an idle moment costs nobody anything; books that do not add up end the process
                    self._engine.check_integrity()
        except Exception as error:  # noqa: BLE001  (the publisher raises it again)
            self._hand_over(error)

    def _advance(self, commands: Sequence[_Add | _Abort]) -> list[EngineEvent]:
        self._steps, self._stepping = self._steps + 1, True
        try:
            refused = [event for command in commands if (event := self._obey(command))]
            return [*refused, *(self._step() if self._engine.has_work else ())]
        finally:
            self._stepping = False

    def _step(self) -> Sequence[EngineEvent]:
        output = self._engine.step()
        self._load = self._load.after(output.stats)
        if self._on_step is not None:
            self._on_step(output.stats)
        return output.events

    def _next_commands(self) -> list[_Add | _Abort] | None:
        """Return what was asked since the last step, waiting while idle; None at the end."""
        with self._changed:
            while not (self._stopping or self._inbox or self._engine.has_work):
                self._changed.wait()
            if self._stopping:
                return None
            commands = list(self._inbox)
            self._inbox.clear()
            return commands

    def _obey(self, command: _Add | _Abort) -> Failed | None:
        if isinstance(command, _Abort):
            self._engine.abort(command.task_id)
            return None
        try:
            self._engine.add(command.prepared)
        except ForebayError as error:
            return Failed(command.task_id, error.code, error.message)
        return None

    def _hand_over(self, batch: Sequence[EngineEvent] | Exception) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, batch)
