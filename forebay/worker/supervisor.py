"""The process tree of ``forebay serve``: queue server, API processes, workers.

Started in that order, each restarted when it dies, stopped from the door inwards: the API first,
so that nothing new is accepted; then the workers, which finish or give back what they hold; the
queue server last, because everything is written to it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self, TypeVar

import structlog

from forebay.config import Settings, SettingsError
from forebay.core.errors import QueueUnavailableError
from forebay.ops.supervisor_status import BEAT_S, LOCK, give_sign
from forebay.ops.worker_status import Phase, WorkerStatus, read_status
from forebay.queue.errors import QueueSetupError
from forebay.queue.fleet import Fleet
from forebay.queue.opening import OpenQueue, open_queue
from forebay.queue.replacements import RedisReplacements
from forebay.worker import ports
from forebay.worker.canary_child import canary_child
from forebay.worker.child import STOP_MARGIN_S, Child, ChildSpec, environment_of
from forebay.worker.crew import Crew
from forebay.worker.doors import Doors
from forebay.worker.fleet_stack import FleetStack
from forebay.worker.queue_server import QueueServer
from forebay.worker.recycling import Recycler, recycling_terms
from forebay.worker.replacing import end_when_silent, reason_of
from forebay.worker.signals import StopSignal

log = structlog.get_logger("forebay.supervisor")
T = TypeVar("T")

START_LIMIT_S: Final = 900.0
"""A large checkpoint on a slow disk takes minutes; longer than this is a failure."""


class StackError(Exception):
    """The stack cannot be started, or cannot go on."""


class StopRequestedError(Exception):
    """A signal asked for the stop while something else was awaited."""


class Stack:
    """The running processes of one machine; an async context manager.

    ``report`` is told of each step of the start. ``log_dir``: where the children's output goes;
    None: to this process's own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        stop: StopSignal,
        report: Callable[[str], None],
        log_dir: Path | None = None,
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._report = report
        self._log_dir = log_dir
        self._queue = QueueServer(settings)
        self._listeners: list[socket.socket] = []
        self._lock: int | None = None
        self._monitors: list[asyncio.Task[None]] = []
        self.port = settings.port
        self._page_ports: dict[str, int] = {}
        self._doors: Doors | None = None
        self.canary: Child | None = None
        self._crew: Crew | None = None

    @property
    def url(self) -> str:
        """Where clients on this machine reach the API."""
        return ports.local_url(self._settings.host, self.port)

    def page_urls(self) -> dict[str, str]:
        """Return where pages have ports of their own: page -> URL."""
        found = self._page_ports.items()
        return {
            name.removesuffix("_port"): ports.local_url(self._settings.host, port)
            for name, port in found
        }

    @property
    def workers(self) -> list[Child]:
        """The workers that are to live."""
        return self._crew.members if self._crew else []

    def worker_statuses(self) -> list[WorkerStatus]:
        """Return the last sign of life of every worker that has given one."""
        found = [read_status(self._settings.run_dir, worker.spec.name) for worker in self.workers]
        return [status for status in found if status is not None]

    async def __aenter__(self) -> Self:
        try:
            self._lock = _lock(self._settings.run_dir)
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._end()

    async def wait_ready(self) -> None:
        """Return when the door is open and every worker can answer.

        An upstream that is not there yet is waited for as long as it takes: the door takes tasks
        meanwhile.

        Raises:
            StackError: the processes themselves took too long.
        """
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self._door_open()
                for worker in self.workers:
                    self._tell_loaded(await self._loaded(worker))
        except TimeoutError as error:
            raise StackError(f"not ready after {START_LIMIT_S:.0f} s") from error
        for worker in self.workers:
            await self._in_phase(worker, Phase.READY)
        if self._settings.upstream_url is not None:
            self._report("upstream answers")

    async def guard(self, work: Awaitable[T]) -> T:
        """Await ``work`` while the stack is watched.

        Raises:
            StopRequestedError: a signal asked for the stop.
            StackError: a process cannot be kept alive.
        """
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._stop.asked.wait())
        try:
            await asyncio.wait([task, asked, *self._monitors], return_when=asyncio.FIRST_COMPLETED)
            self._raise_failures()
            if not task.done():
                raise StopRequestedError
            return task.result()
        finally:
            task.cancel()
            asked.cancel()
            await asyncio.gather(task, asked, return_exceptions=True)

    def _raise_failures(self) -> None:
        for monitor in self._monitors:
            if monitor.done() and (error := monitor.exception()) is not None:
                raise StackError(str(error)) from error

    async def _start(self) -> None:
        settings = self._settings
        self.port = self._listen(settings.port)
        for name in settings.page_ports():
            self._page_ports[name] = self._listen(getattr(settings, name))
        await self._queue.start()
        self._monitors.append(asyncio.create_task(self._queue.keep_alive()))
        self._monitors.append(asyncio.create_task(_give_signs(settings.run_dir)))
        self._report("queue ready")
        environment = environment_of(self._settings_of_children())
        await self._start_workers(environment)
        if settings.canary_model:
            await self._start_canary()
        terms = recycling_terms(
            settings, _stack_id(settings), margin_s=STOP_MARGIN_S, load_s=START_LIMIT_S
        )
        if terms.rules.any:
            care = Recycler(lambda: self.workers, settings.run_dir, self._open_queue, terms)
            self._monitors.append(asyncio.create_task(care.run()))
        self._doors = Doors(
            settings.api_processes, self._listeners, self.url, environment, self._log_file
        )
        await self._doors.start()
        self._monitors.extend(self._doors.keeping())

    def _listen(self, wanted: int) -> int:
        """Take a port, or the next free one, for the API; return which."""
        self._listeners.append(ports.listen(self._settings.host, wanted))
        port = ports.port_of(self._listeners[-1])
        if port != wanted:
            self._report(f"port {wanted} is taken: using {port}")
        return port

    async def _start_workers(self, environment: dict[str, str]) -> None:
        settings, stack = self._settings, _stack_id(self._settings)

        def make(number: int) -> Child:
            name = f"worker-{stack}-{number}"
            command = ("worker", "--supervised", "--name", name)
            spec = ChildSpec(name, command, environment, self._log_file(name))
            return Child(spec, on_death=self._replace)

        crew = self._crew = Crew(make, self._watch)
        await crew.muster(settings.workers)
        self._monitors.append(asyncio.create_task(crew.watching()))
        of_fleet = FleetStack(f"stack-{stack}", crew, self._dismiss, settings.worker_group)
        reporting = of_fleet.report_for_ever(self._open_fleet)
        self._monitors.append(asyncio.create_task(reporting))

    async def _start_canary(self) -> None:
        settings, stack = self._settings_of_children(), _stack_id(self._settings)
        self.canary = canary_child(settings, stack, self._log_file, self._replace)
        await self._run(self.canary)
        self._monitors.append(asyncio.create_task(self._watch(self.canary)))
        self._report("canary started: it gets a share once one is set")

    async def _watch(self, worker: Child) -> None:
        """See that a worker comes to life, and end every life of it that falls silent."""
        settings = self._settings
        living = asyncio.create_task(self._loaded(worker))
        try:
            await end_when_silent(worker, settings.run_dir, settings.stall_s, START_LIMIT_S)
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)

    @asynccontextmanager
    async def _open_fleet(self) -> AsyncIterator[Fleet]:
        async with self._open_queue() as opened:
            yield Fleet(opened.access, self._settings.queue_name)

    async def _dismiss(self, worker: Child) -> None:
        """End a worker: it drains first."""
        await worker.stop(self._settings.drain_s + STOP_MARGIN_S, self._stop.hurried)

    async def _run(self, child: Child) -> None:
        await child.start()
        self._monitors.append(asyncio.create_task(child.keep_alive()))

    def _settings_of_children(self) -> Settings:
        found = {"queue_url": self._queue.url, "port": self.port, **self._page_ports}
        return self._settings.model_copy(update=found)

    def _log_file(self, name: str) -> Path | None:
        return self._log_dir / f"{name}.log" if self._log_dir else None

    async def _replace(self, worker: Child) -> None:
        """Give a dead worker's tasks back at once, and note for alerts why it is replaced."""
        reason = reason_of(worker)
        try:
            async with self._open_queue() as opened:
                reaped = await opened.queue.reap(worker.spec.name)
                first = opened.places[0]
                await RedisReplacements(first.redis, first.name).note(reason)
            log.warning("replaced", worker=worker.spec.name, reason=reason, tasks=len(reaped))
        except (QueueUnavailableError, QueueSetupError) as error:
            log.warning(
                "replaced_unreaped", worker=worker.spec.name, reason=reason, detail=str(error)
            )

    @asynccontextmanager
    async def _open_queue(self) -> AsyncIterator[OpenQueue]:
        """Open the queue for the block, as the children do.

        Raises QueueUnavailableError, QueueSetupError.
        """
        try:
            address = self._settings_of_children().queue_address()
        except SettingsError as error:  # a secret's file that is gone
            raise QueueSetupError(str(error), mend="Put that file back.") from error
        async with open_queue(
            address,
            self._settings.queue_name,
            self._settings.queue_limits(),
            partitions=self._settings.queue_partitions,
        ) as opened:
            yield opened

    async def _door_open(self) -> None:
        assert self._doors is not None
        await self._doors.opened()
        self._report("door open")

    async def _loaded(self, worker: Child) -> Phase:
        phase = await self._in_phase(worker, Phase.READY, Phase.WAITING, Phase.DRAINED)
        worker.ready = True
        return phase

    def _tell_loaded(self, phase: Phase) -> None:
        if self._settings.upstream_url is None:
            self._report("model warm")
        elif phase is Phase.WAITING:
            self._report("waiting for the upstream")

    async def _in_phase(self, worker: Child, *phases: Phase) -> Phase:
        """Return the worker's phase once it is one of these."""
        while True:
            status = read_status(self._settings.run_dir, worker.spec.name)
            if status and status.pid == worker.pid and status.phase in phases:
                return status.phase
            await asyncio.sleep(0.1)

    async def _end(self) -> None:
        """Stop in order; see the module's text. A second signal hurries every step."""
        hurry = self._stop.hurried
        grace_s = self._settings.drain_s + STOP_MARGIN_S
        for listener in self._listeners:
            listener.close()
        if self._doors is not None:
            await self._doors.stop(grace_s, hurry)
            self._report("door closed")
        if self._crew is not None:
            ends = [self._crew.close(self._dismiss)]
            ends += [self._dismiss(self.canary)] if self.canary is not None else []
            await asyncio.gather(*ends)
            self._report("workers stopped")
        for monitor in self._monitors:
            monitor.cancel()
        await asyncio.gather(*self._monitors, return_exceptions=True)
        await self._queue.stop()
        self._report("queue stopped")
        if self._lock is not None:
            os.close(self._lock)


async def _give_signs(folder: Path) -> None:
    """Say for ever that this supervisor is there to mend what breaks."""
    while True:
        give_sign(folder)
        await asyncio.sleep(BEAT_S)


def _stack_id(settings: Settings) -> str:
    """Return what stays the same over restarts and is no other stack's."""
    identity = settings.run_dir / "stack-id"
    if not identity.is_file():
        identity.write_text(secrets.token_hex(3), encoding="ascii")
    return identity.read_text(encoding="ascii").strip()


def _lock(folder: Path) -> int:
    """Take the data folder for this supervisor; the lock goes with the process."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # it holds clients' pictures
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 20, 0).decode() or "unknown"
        os.close(lock)
        raise StackError(
            f"{folder.parent} is in use by another Forebay (process {owner}). "
            "Stop that one first, or give this one a --data-dir of its own."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock
