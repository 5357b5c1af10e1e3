"""Real processes that are killed, stopped and started again, and none left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PAUSE_S = 0.1
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def adopt_orphans() -> None:
    """Make what our children leave behind ours, so that it can be found, and ended."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_with_us() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


async def _at_once() -> None:
    """Most processes wait for nothing."""


@dataclass(slots=True)
class Process:
    """A process kept alive: ``command`` anew whenever it ends, until ``end``.

    Its output goes to ``log`` by way of us, so that a limit on its own files leaves it its voice.
    ``lame_until``: not started again before that time, by ``time.monotonic``.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    before_start: Callable[[], Awaitable[None]] = _at_once
    lives: int = 0
    unasked_ends: int = 0
    lame_until: float = 0.0
    _process: asyncio.subprocess.Process | None = None
    _keeper: asyncio.Task[None] | None = None
    _voices: list[asyncio.Task[None]] = field(default_factory=list)
    _struck: bool = False
    _ending: bool = False

    @property
    def pid(self) -> int | None:
        """The process id, None between two lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        await self._launch()
        self._keeper = asyncio.create_task(self._keep())

    async def _launch(self) -> None:
        await self.before_start()
        process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
            start_new_session=True,
            preexec_fn=_end_with_us,
        )
        self._process = process
        self._struck = False
        self.lives += 1
        # not awaited with the process: its own children may hold the pipe for longer
        self._voices = [one for one in self._voices if not one.done()]
        self._voices.append(asyncio.create_task(self._listen(process)))

    async def _keep(self) -> None:
        while not self._ending:
            process = self._process
            assert process is not None
            await process.wait()
            if self._ending:
                return
            self.unasked_ends += not self._struck
            await asyncio.sleep(max(PAUSE_S, self.lame_until - time.monotonic()))
            await self._launch()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with self.log.open("ab", buffering=0) as log:
            while line := await process.stdout.read(65_536):
                log.write(line)

    def send(self, number: signal.Signals, lame_s: float = 0.0) -> bool:
        """Send a signal; return whether there was anyone to send it to."""
        if self.pid is None:
            return False
        if number is signal.SIGKILL:
            self._struck = True
            self.lame_until = time.monotonic() + lame_s
        os.kill(self.pid, number)
        return True

    def limit_files(self, size: int | None) -> None:
        """Let the process write no file beyond ``size`` bytes, as a full disk would; None: any."""
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            soft = hard if size is None else size
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (soft, hard))

    async def end(self, how: signal.Signals = signal.SIGTERM, grace_s: float = 10.0) -> None:
        """End it for good: by ``how``, and by force after ``grace_s``."""
        self._ending = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
                os.kill(process.pid, how)
            try:
                async with asyncio.timeout(grace_s):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        tasks = [*self._voices, *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def last_lines(self, count: int = 15) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


def offspring(but: Iterable[psutil.Process] = ()) -> list[psutil.Process]:
    """Return every living process that descends from this one, zombies left out.

    ``but``: those that somebody else has started, with what descends from them.
    """
    others = set(but)
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if one.status() != psutil.STATUS_ZOMBIE and others.isdisjoint([one, *one.parents()]):
                found.append(one)
    return found


def end_all(left: Sequence[psutil.Process]) -> None:
    """End processes by force, and wait until they are gone."""
    for one in left:
        with contextlib.suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(left, timeout=5)
