"""One batch, from wherever it stands to its end."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import structlog

from forebay.api.answers import answered, await_end
from forebay.api.batches.callers import caller_of
from forebay.api.batches.desk import BatchDesk, file_id_of
from forebay.api.batches.endpoints import ENDPOINTS
from forebay.api.batches.forms import (
    CANCELLED,
    EXPIRED,
    answer_line,
    refusal_line,
    unanswered_line,
)
from forebay.api.batches.lines import LineLimits, Plan, plan_of
from forebay.api.batches.results import ResultLog
from forebay.api.batches.window import Window
from forebay.api.calls import Render
from forebay.api.disconnect import end
from forebay.api.intake import Ask, submit
from forebay.api.services import Services
from forebay.api.usage import usage_object
from forebay.core.errors import ForebayError, QueueUnavailableError, TaskNotFoundError
from forebay.core.request import Priority, TaskId
from forebay.queue.batches import BatchRecord, BatchStatus, LeaseLostError
from forebay.queue.ports import Idempotency, TaskRecord

log = structlog.get_logger(__name__)

BEAT_S: Final = 1.0
_SHARE: Final = 0.5
"""Of the queue's room: batches leave the rest to those who wait for their answers."""

_READ_AT_ONCE: Final = 2
"""Lines of one batch whose pictures are in memory, on their way into the queue."""

_SHORTEST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0

_ENDS: Final = {BatchStatus.CANCELLED: CANCELLED, BatchStatus.EXPIRED: EXPIRED}


class _StoppedError(Exception):
    """The batch ends before this line has an answer."""


class BatchRun:
    """Answers a batch's lines under a lease that it renews.

    A line goes into the queue under an idempotency key of its own. Whoever goes on with the batch
    after a kill finds the task that is there, so no line runs twice while its answer is kept.
    """

    def __init__(self, services: Services, desk: BatchDesk, batch: BatchRecord, owner: str) -> None:
        self._services = services
        self._desk = desk
        self._batch = batch
        self._owner = owner
        self._caller = caller_of(batch)
        self._window = Window(desk.limits.window)
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._in_queue: set[TaskId] = set()
        self._results: ResultLog | None = None
        self._stopped = asyncio.Event()
        self._end = BatchStatus.COMPLETED

    async def run(self) -> None:
        """Return when the batch has ended.

        Raises:
            LeaseLostError: another process has it in hand now.
            ForebayError, OSError: it could not be gone on with for now.
        """
        working = asyncio.create_task(self._work())
        beating = asyncio.create_task(self._beat())
        try:
            await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
            (working if working.done() else beating).result()
        finally:
            await end(working, beating)
            if self._results is not None:
                self._results.close()

    async def _work(self) -> None:
        batch_id = self._batch.batch_id
        plan = await asyncio.to_thread(
            plan_of,
            self._desk.input_of(batch_id),
            self._batch.endpoint,
            LineLimits(self._desk.limits.lines, self._services.settings.max_body_bytes),
        )
        if plan.faults:
            faults = [fault.to_dict() for fault in plan.faults]
            await self._close(BatchStatus.FAILED, faults=faults)
            return
        results = await asyncio.to_thread(ResultLog, self._desk.folder_of(batch_id))
        self._results = results
        began = self._batch.at.get("in_progress", _now())
        await self._write(
            status=BatchStatus.IN_PROGRESS, in_progress_at=began, total=len(plan.places)
        )
        await self._answer_all(plan, results)
        if not self._stopped.is_set():
            await self._write(status=BatchStatus.FINALIZING, finalizing_at=_now())
        await asyncio.to_thread(results.sync)
        fields = await self._files(results)
        usage = usage_object(results.prompt_tokens, results.answer_tokens)
        await self._close(self._end, **self._progress(), **fields, usage=usage)

    async def _answer_all(self, plan: Plan, results: ResultLog) -> None:
        try:
            await self._feed(plan, results)
        except ExceptionGroup as group:  # one reason is enough to go on later
            raise group.exceptions[0] from group
        if self._stopped.is_set():
            await asyncio.to_thread(self._leave_unanswered, plan, results)

    async def _feed(self, plan: Plan, results: ResultLog) -> None:
        """Put the lines that have no result into the queue, a windowful at a time."""
        async with asyncio.TaskGroup() as group:
            for index in range(len(plan.places)):
                if index in results.places:
                    continue
                await self._window.enter()
                if self._stopped.is_set():
                    await self._window.leave()
                    break
                group.create_task(self._answer(plan, results, index))

    def _leave_unanswered(self, plan: Plan, results: ResultLog) -> None:
        for index in range(len(plan.places)):
            if index not in results.places:
                name = plan.read(index).custom_id
                told = unanswered_line(self._line_id(index), name, _ENDS[self._end])
                results.add(index, told, fine=False)

    async def _answer(self, plan: Plan, results: ResultLog, index: int) -> None:
        try:
            fine, told, tokens = await self._told(plan, index)
        except _StoppedError:
            return
        else:
            await asyncio.to_thread(results.add, index, told, fine=fine, tokens=tokens)
        finally:
            await self._window.leave()

    async def _told(self, plan: Plan, index: int) -> tuple[bool, dict[str, Any], tuple[int, int]]:
        """Return whether a line has an answer, its result, and its tokens.

        Raises _StoppedError.
        """
        line_id = self._line_id(index)
        name = (await asyncio.to_thread(plan.read, index)).custom_id
        try:
            render, ended = await self._ended(plan, index)
            records = [answered(record) for record in ended]
        except ForebayError as error:
            if self._stopped.is_set() and error.code in ("cancelled", "expired"):
                raise _StoppedError from error
            return False, refusal_line(line_id, name, error), (0, 0)
        self._window.answered()
        usages = [record.usage for record in records if record.usage is not None]
        prompt = sum(usage.prompt_tokens for usage in usages)
        tokens = prompt, sum(usage.completion_tokens for usage in usages)
        return True, answer_line(line_id, name, render(records)), tokens

    async def _ended(self, plan: Plan, index: int) -> tuple[Render, list[TaskRecord]]:
        """Return a line's tasks at their ends, however long the queue has no room for them.

        Raises ForebayError where there is no sense in trying again, _StoppedError.
        """
        while not self._stopped.is_set():
            task_ids: list[TaskId] = []
            try:
                if not await self._is_bearable():
                    await self._pause(_SHORTEST_PAUSE_S)
                    continue
                render = await self._submit(plan, index, task_ids)
                return render, [await self._end_of(task_id) for task_id in task_ids]
            except TaskNotFoundError:  # its answer has expired before it was read
                await self._pause(_SHORTEST_PAUSE_S)
            except ForebayError as error:
                if not error.retryable:
                    raise
                self._window.refused()
                await self._pause(error.retry_after or _SHORTEST_PAUSE_S)
            finally:
                self._in_queue.difference_update(task_ids)
        raise _StoppedError

    async def _submit(self, plan: Plan, index: int, task_ids: list[TaskId]) -> Render:
        """Put a line's tasks into the queue, noting their ids; few lines are in memory at once.

        Raises ForebayError.
        """
        async with self._reading:
            line = await asyncio.to_thread(plan.read, index)
            with self._services.held.hold() as hold:
                hold.grow_to(len(line.raw))
                call = await ENDPOINTS[self._batch.endpoint](line.body, self._services.settings)
                digest = hashlib.sha256(line.raw).hexdigest()
                for number, ask in enumerate(call.asks):
                    # no client's key has a blank, so none is in the way
                    key = Idempotency(f"batch {self._batch.batch_id} {index} {number}", digest)
                    task_ids.append(await self._enqueue(replace(ask, idempotency=key)))
            return call.render

    async def _enqueue(self, ask: Ask) -> TaskId:
        left_s = max(1.0, self._batch.expires_s - time.time())
        ask = replace(ask, priority=Priority.BATCH, deadline_s=left_s)
        task_id = (await submit(self._services, ask, self._caller)).task_id
        self._in_queue.add(task_id)
        return task_id

    async def _end_of(self, task_id: TaskId) -> TaskRecord:
        await await_end(self._services, task_id)
        record = await self._services.queue.get(task_id)
        if record is None:
            raise TaskNotFoundError("the result has expired")
        return record

    async def _is_bearable(self) -> bool:
        """Whether the queue has room that nobody who waits for an answer will miss."""
        load, limits = await self._services.load.now(), self._services.limits
        return (
            load.waiting < limits.max_waiting * _SHARE
            and load.waiting_tokens < limits.max_waiting_tokens * _SHARE
        )

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the batch is to end."""
        wait_s = min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, seconds))
        try:
            async with asyncio.timeout(wait_s):
                await self._stopped.wait()
        except TimeoutError:
            return

    async def _beat(self) -> None:
        """Renew the lease, tell the progress, hear of a cancellation, watch the clock."""
        leased_until = time.monotonic() + self._desk.batches.lease_s
        while True:
            try:
                asked = time.monotonic()
                if await self._write(**self._progress()):
                    self._stop(BatchStatus.CANCELLED)
                leased_until = asked + self._desk.batches.lease_s
                if time.time() >= self._batch.expires_s:
                    self._stop(BatchStatus.EXPIRED)
                if self._stopped.is_set():
                    for task_id in tuple(self._in_queue):
                        await self._services.queue.cancel(task_id)
            except QueueUnavailableError as error:
                if time.monotonic() > leased_until:
                    raise LeaseLostError(self._batch.batch_id) from error
            if self._results is not None:
                await asyncio.to_thread(self._results.sync)
            await asyncio.sleep(BEAT_S)

    def _stop(self, status: BatchStatus) -> None:
        if not self._stopped.is_set():
            self._end = status
            self._stopped.set()

    def _progress(self) -> dict[str, int]:
        if self._results is None:
            return {}
        return {"completed": self._results.completed, "failed": self._results.failed}

    async def _files(self, results: ResultLog) -> dict[str, str]:
        """Write the output and the errors, where there are any; return what names them."""
        fields = {}
        if results.completed:
            fields["output_id"] = await self._file("output", results.of(fine=True))
        if results.failed:
            fields["errors_id"] = await self._file("errors", results.of(fine=False))
        return fields

    async def _file(self, what: str, parts: Iterator[bytes]) -> str:
        batch, file_id = self._batch, file_id_of(self._batch.batch_id, what)
        name = f"{batch.batch_id}_{what}.jsonl"
        await self._desk.files.produce(
            file_id, batch.tenant, parts, filename=name, ttl_s=batch.output_ttl_s
        )
        return file_id

    async def _write(self, **fields: Any) -> bool:
        return await self._desk.batches.keep(self._batch.batch_id, self._owner, **fields)

    async def _close(self, status: BatchStatus, **fields: Any) -> None:
        times = {f"{status.value}_at": _now()}
        await self._desk.batches.close(
            self._batch.batch_id, self._owner, status=status, **times, **fields
        )
        await self._desk.forget(self._batch.batch_id)
        log.info("batch.ended", batch=self._batch.batch_id, status=status.value)

    def _line_id(self, index: int) -> str:
        return f"batch_req_{self._batch.batch_id.removeprefix('batch_')}_{index}"


def _now() -> int:
    return int(time.time())
