"""Replaces workers that are due by fresh ones: one at a time, drained first, nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import structlog

from forebay.access.audit import AuditTrail, Deed
from forebay.config import Settings
from forebay.core.errors import QueueUnavailableError
from forebay.engine.host_memory import available_bytes
from forebay.ops.worker_status import Phase, WorkerStatus, read_status, status_path
from forebay.queue.errors import QueueSetupError
from forebay.queue.opening import OpenQueue
from forebay.queue.replacements import RedisReplacements
from forebay.worker.care import Bound, CareRules, Cause, Life, cause_to_recycle
from forebay.worker.child import Child, ChildSpec

log = structlog.get_logger("forebay.supervisor")

LOOK_EVERY_S: Final = 5.0
SOONEST_AGAIN_S: Final = 300.0
"""After a recycling that came to nothing: a model that does not load will not a moment later."""

ROOM_FOR_TWO: Final = 1.5
"""Memory that must be free for a second worker, as a share of the most that the first one took."""

TWIN: Final = "b"
"""What a worker's name ends with in every other life, where two live at once for a while."""

OpenTheQueue = Callable[[], AbstractAsyncContextManager[OpenQueue]]
Overlap = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class RecyclingTerms:
    """How workers are recycled. Times in seconds.

    ``stack``: a name of this supervisor's own, which spreads the turns of several. ``grace_s``:
    what a worker has to end at leisure. ``load_s``: what a new one has to be warm.
    """

    rules: CareRules
    stack: str
    queue_name: str
    max_waiting: int
    overlap: Overlap
    grace_s: float
    load_s: float


def recycling_terms(
    settings: Settings, stack: str, *, margin_s: float, load_s: float
) -> RecyclingTerms:
    """Return when and how workers are recycled; ``margin_s``: beyond their own time to drain."""
    rules = CareRules(
        settings.recycle_settle_s,
        settings.quiet_window(),
        Bound(settings.recycle_memory_bytes, settings.recycle_memory_growth),
        Bound(settings.recycle_gpu_memory_bytes, settings.recycle_gpu_memory_growth),
        settings.recycle_age_s,
        settings.recycle_tasks,
    )
    return RecyclingTerms(
        rules,
        stack,
        settings.queue_name,
        settings.recycle_max_waiting,
        settings.recycle_overlap,
        grace_s=settings.recycle_drain_s + margin_s,
        load_s=load_s,
    )


@dataclass(slots=True)
class _Seen:
    """What was seen of one life of a worker's process."""

    pid: int
    since_s: float
    level: int = 0
    gpu_level: int = 0


class Recycler:
    """Looks after the workers of a supervisor, for ever."""

    def __init__(
        self,
        workers: Callable[[], list[Child]],
        run_dir: Path,
        open_queue: OpenTheQueue,
        terms: RecyclingTerms,
        *,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._workers = workers
        self._run_dir = run_dir
        self._open_queue = open_queue
        self._terms = terms
        self._every_s = every_s
        self._seen: dict[Child, _Seen] = {}
        self._not_before_s = 0.0
        self._put_off = False

    async def run(self) -> None:
        """Look at every worker, and replace one that is due; again and again."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._every_s)
            lives = self._look(clock())
            due = self._first_due(lives) if clock() >= self._not_before_s else None
            if due is not None and not await self._recycle(*due):
                self._not_before_s = clock() + SOONEST_AGAIN_S

    def _look(self, now_s: float) -> dict[Child, Life]:
        """Return the lives that are ready; the level of each is noted when it settles."""
        self._seen = {one: seen for one, seen in self._seen.items() if one in self._workers()}
        lives = {}
        for worker in self._workers():
            status = self._status(worker)
            if status is None or status.phase is not Phase.READY:
                continue
            seen = self._seen.get(worker)
            if seen is None or seen.pid != status.pid:
                seen = self._seen[worker] = _Seen(status.pid, now_s)
            age_s = now_s - seen.since_s
            if not seen.level and age_s >= self._terms.rules.settle_s:
                seen.level, seen.gpu_level = status.memory_bytes, status.gpu_memory_bytes
            lives[worker] = Life(
                age_s,
                status.answered + status.failed,
                status.memory_bytes,
                status.gpu_memory_bytes,
                seen.level,
                seen.gpu_level,
            )
        return lives

    def _first_due(self, lives: dict[Child, Life]) -> tuple[Child, Cause] | None:
        if len(lives) < len(self._workers()):
            return None  # one is down or begins anew already: the others are needed
        now = datetime.now(UTC)
        for worker, life in lives.items():
            cause = cause_to_recycle(self._terms.rules, life, now, self._terms.stack)
            if cause is not None:
                return worker, cause
        return None

    async def _recycle(self, worker: Child, cause: Cause) -> bool:
        """Replace a worker; False where that must wait or failed. What happened is recorded."""
        name, status = worker.spec.name, self._status(worker)
        if status is None or not await self._is_quiet(cause):
            return cause is Cause.SCHEDULE  # looked at again soon: the queue may be short then
        log.info("recycling", worker=name, reason=cause.value, held=status.held)
        if self._overlaps(status):
            done = await self._hand_over(worker, cause)
        else:
            await worker.retire(cause.value, self._terms.grace_s)
            done = await self._is_back(worker)
        if not worker.stopping:
            await self._note(name, cause, "done" if done else "not_warm")
        return done

    async def _is_quiet(self, cause: Cause) -> bool:
        """Whether so few tasks wait that a worker may be missed for a while."""
        if cause is not Cause.SCHEDULE:
            return True
        try:
            async with self._open_queue() as opened:
                depth = await opened.queue.depth()
        except (QueueUnavailableError, QueueSetupError) as error:
            log.debug("recycling_put_off", reason=str(error))
            return False
        quiet = depth.waiting - depth.delayed <= self._terms.max_waiting
        if quiet == self._put_off:  # said once, however often it is looked at
            self._put_off = not quiet
            if not quiet:
                log.info("recycling_put_off", reason="queue", tasks=depth.waiting)
        return quiet

    def _overlaps(self, status: WorkerStatus) -> bool:
        """Whether the next worker is to be warm before this one goes.

        Two engines do not share a GPU well: the first has taken ``memory_share`` of it, and the
        next would have to do with what is left for the length of its life.
        """
        if self._terms.overlap != "auto":
            return self._terms.overlap == "always"
        free = available_bytes()
        roomy = free is None or free > ROOM_FOR_TWO * status.peak_bytes
        return len(self._workers()) == 1 and status.gpu_memory_bytes == 0 and roomy

    async def _hand_over(self, worker: Child, cause: Cause) -> bool:
        old = worker.spec.name
        heir = _of_name(worker.spec, _twin(old))
        try:
            done = await worker.hand_over(
                heir, lambda pid: self._warm(heir.name, pid), self._terms.grace_s
            )
        except OSError as error:
            log.warning("not_started", child=heir.name, reason=str(error))
            return False
        if done and not worker.stopping:
            await self._forget(old, cause)
        return done

    async def _is_back(self, worker: Child) -> bool:
        """Whether the worker's next life is ready within the time that it has for that."""
        try:
            async with asyncio.timeout(self._terms.load_s):
                while not worker.stopping:
                    status = self._status(worker)
                    if status is not None and status.phase is Phase.READY:
                        return True
                    await asyncio.sleep(0.2)
        except TimeoutError:
            log.error("recycled_not_ready", worker=worker.spec.name)
        return False

    async def _warm(self, name: str, pid: int) -> None:
        """Return when that process is ready. Raises TimeoutError."""
        async with asyncio.timeout(self._terms.load_s):
            while True:
                status = read_status(self._run_dir, name)
                if status is not None and (status.pid, status.phase) == (pid, Phase.READY):
                    return
                await asyncio.sleep(0.2)

    async def _forget(self, old: str, cause: Cause) -> None:
        """Give back what a worker left behind that had to be killed, and count its end."""
        with contextlib.suppress(OSError):  # it says nothing that would be believed
            status_path(self._run_dir, old).unlink()
        try:
            async with self._open_queue() as opened:
                reaped = await opened.queue.reap(old)
                first = opened.places[0]
                await RedisReplacements(first.redis, first.name).note(cause.value)
            log.info("replaced", worker=old, reason=cause.value, tasks=len(reaped))
        except (QueueUnavailableError, QueueSetupError) as error:
            log.warning("replaced_unreaped", worker=old, reason=cause.value, detail=str(error))

    async def _note(self, name: str, cause: Cause, outcome: str) -> None:
        deed = Deed(
            f"supervisor:{platform.node()}",
            "worker.recycle",
            f"{name} ({cause.value})",
            "local",
            outcome,
        )
        try:
            async with self._open_queue() as opened:
                await AuditTrail(opened.access, self._terms.queue_name).note(deed)
        except (QueueUnavailableError, QueueSetupError) as error:
            log.warning("audit.not_kept", **deed.fields(), reason=str(error))

    def _status(self, worker: Child) -> WorkerStatus | None:
        """Return the sign of life of the worker's present process, None where it gave none."""
        status = read_status(self._run_dir, worker.spec.name)
        return status if status is not None and status.pid == worker.pid else None


def _twin(name: str) -> str:
    return name.removesuffix(TWIN) if name.endswith(TWIN) else name + TWIN


def _of_name(spec: ChildSpec, name: str) -> ChildSpec:
    """Return the same worker under another name."""
    arguments = [name if part == spec.name else part for part in spec.arguments]
    file = spec.log_file
    return replace(
        spec, name=name, arguments=arguments, log_file=file and file.with_name(f"{name}.log")
    )
