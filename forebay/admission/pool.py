"""A few decoder processes, each killed when a picture takes too long, and started again.

The event loop only moves bytes. What may wait is bounded in bytes; what runs, in processes; how
long one job runs, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import structlog

from forebay.admission.wire import LENGTHS, READY, pack, unpack_lengths
from forebay.core.errors import InvalidImageError, QueueFullError

log = structlog.get_logger(__name__)

_START_TIMEOUT_S = 30.0
"""For the interpreter and Pillow to load on a busy machine."""

_END_TIMEOUT_S = 1.0
"""For a process whose pipes are closed to be gone."""

_ATTEMPTS = 2
"""A process may die for a reason that is not the picture's (the kernel's memory killer)."""

_INHERITED: Final = (
    *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"),
)
"""Variables that a decoder gets of the door's. Keys and passwords may be among the others."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of the pool. ``memory_bytes``: address space of one decoder process.

    A job has ``job_cpu_s`` of the processor, which the system counts, and ``job_timeout_s`` in all.
    """

    processes: int = 2
    job_timeout_s: float = 30.0
    job_cpu_s: int = 10
    waiting_bytes: int = 512 * 2**20
    memory_bytes: int = 2 * 2**30


class _ProcessDiedError(Exception):
    """The decoder process ended in the middle of a job; ``status``: as of a subprocess."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__(f"a decoder process ended ({status})")
        self.status = status


class _Slot:
    """The place of one decoder process; empty until first used and after a kill."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._process: Process | None = None

    async def start(self) -> Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-W", "ignore", "-m", "forebay.admission.decoder"),
            *(str(self._limits.memory_bytes), str(self._limits.job_cpu_s)),
            stdin=PIPE,
            stdout=PIPE,
            env={name: os.environ[name] for name in _INHERITED if name in os.environ},
            start_new_session=True,  # a Ctrl-C in the terminal is for the door, which drains
        )
        self._process = process
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await _reader(process).readexactly(len(READY))
        except BaseException as error:
            await self.kill()
            if isinstance(error, TimeoutError | asyncio.IncompleteReadError):
                raise _ProcessDiedError from error
            raise
        return process

    async def run(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        process = await self.start()
        assert process.stdin is not None
        process.stdin.writelines(pack(head, body))
        await process.stdin.drain()
        reader = _reader(process)
        head_bytes, body_bytes = unpack_lengths(await reader.readexactly(LENGTHS.size))
        reply: dict[str, Any] = json.loads(await reader.readexactly(head_bytes))
        return reply, await reader.readexactly(body_bytes)

    async def bury(self) -> int | None:
        """Return the status of a process that is ending by itself; end it if it does not.

        To kill what has just died would fetch its status in passing: asyncio would never learn it.
        """
        if self._process is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _END_TIMEOUT_S)
        return await self.kill()

    async def kill(self) -> int | None:
        """End the process, if there is one; return its status."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.returncode is None:
            process.kill()
        # SIGKILL cannot be refused, so this wait is as long as the kernel takes
        status = await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        return status


class DecoderPool:
    """Runs decode jobs in killable processes. Use as an async context manager."""

    def __init__(self, limits: PoolLimits | None = None) -> None:
        self._limits = limits or PoolLimits()
        self._slots = [_Slot(self._limits) for _ in range(self._limits.processes)]
        self._free: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        for slot in self._slots:
            self._free.put_nowait(slot)
        self._bytes = 0
        self.kills = 0
        """Processes that were killed over time, for the metrics."""

    @property
    def busy(self) -> int:
        """Processes at work."""
        return len(self._slots) - self._free.qsize()

    async def __aenter__(self) -> Self:
        """Start the processes, so that the first picture does not wait for an interpreter."""
        await asyncio.gather(*(slot.start() for slot in self._slots))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Kill the processes."""
        await asyncio.gather(*(slot.kill() for slot in self._slots))

    async def run(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Run one job; return the reply's head and bytes.

        Raises:
            QueueFullError: more bytes wait already than the limit.
            InvalidImageError: the job took too long, or its process died of it, twice.
        """
        if self._bytes and self._bytes + len(body) > self._limits.waiting_bytes:
            raise QueueFullError("too many pictures wait to be decoded", retry_after=1)
        self._bytes += len(body)
        try:
            return await self._attempts(head, body)
        finally:
            self._bytes -= len(body)

    async def _attempts(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        for _ in range(_ATTEMPTS):
            slot = await self._free.get()
            try:
                return await self._once(slot, head, body)
            except _ProcessDiedError as error:
                log.warning(
                    "decoder.died", bytes=len(body), format=head.get("format"), status=error.status
                )
                if error.status == -signal.SIGXCPU:
                    raise self._too_slow(self._limits.job_cpu_s, "of the processor") from error
            finally:
                self._free.put_nowait(slot)
        raise InvalidImageError("the picture cannot be decoded: its decoder died of it")

    async def _once(
        self, slot: _Slot, head: dict[str, Any], body: bytes
    ) -> tuple[dict[str, Any], bytes]:
        timeout_s = self._limits.job_timeout_s
        try:
            await slot.start()  # outside the job's time
            async with asyncio.timeout(timeout_s):
                return await slot.run(head, body)
        except TimeoutError as error:
            await self._kill(slot)
            raise self._too_slow(timeout_s, "in all") from error
        except (asyncio.IncompleteReadError, OSError) as error:
            self.kills += 1
            raise _ProcessDiedError(await slot.bury()) from error
        except ValueError as error:
            raise _ProcessDiedError(await self._kill(slot)) from error
        except asyncio.CancelledError:
            await self._kill(slot)  # its late reply would answer the next job
            raise

    async def _kill(self, slot: _Slot) -> int | None:
        self.kills += 1
        return await slot.kill()

    def _too_slow(self, seconds: float, of_what: str) -> InvalidImageError:
        return InvalidImageError(
            f"the picture takes longer to decode than it may, {seconds:g} s {of_what}"
        )


def _reader(process: Process) -> asyncio.StreamReader:
    assert process.stdout is not None
    return process.stdout
