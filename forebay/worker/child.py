"""One child process of the stack: started, watched, restarted with a growing pause, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import structlog

from forebay.config import CONFIG_VARIABLE, ENV_PREFIX, Settings
from forebay.worker.signals import LEISURE

log = structlog.get_logger("forebay.supervisor")

LOG_LIMIT_BYTES: Final = 10 * 2**20

STOP_MARGIN_S: Final = 5.0
"""What a child gets beyond the drain's own deadline before it is killed."""

LAST_WORDS_S: Final = 0.5
"""What a process that hangs has to log where."""

TELL_SIGNAL: Final = signal.SIGUSR1
"""Has a worker log the stack of each of its threads. Not SIGABRT, whose core dump of a model may be
as large as memory."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run a child. ``arguments`` follow ``python -m forebay``.

    ``log_file``: where its output goes (one older file is kept); None: this process's own.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path | None = None
    pass_fds: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a dead child is started again. Times in seconds.

    The pause doubles from ``first_s`` to ``longest_s`` and starts over after a life of
    ``healthy_s``. ``tries_to_start``: deaths in a row before the first readiness that are borne.
    """

    first_s: float = 0.1
    longest_s: float = 15.0
    healthy_s: float = 30.0
    tries_to_start: int = 3


def environment_of(settings: Settings) -> dict[str, str]:
    """Return a child's variables: its settings whole, so that no file is read again."""
    others = {key: val for key, val in os.environ.items() if not key.startswith(ENV_PREFIX)}
    return {**others, **settings.to_environment(), CONFIG_VARIABLE: ""}


class ChildFailedError(Exception):
    """A child died again and again before it was ever ready."""


async def _no_one_mourns(child: Child) -> None:
    del child


class Child:
    """A process kept alive until ``stop``.

    It gets a session of its own, so a terminal's Ctrl-C reaches the supervisor alone and the stop
    keeps its order; its standard input is the leash (see ``forebay.worker.leash``). ``on_death``
    runs after each unasked end, before the restart.
    """

    def __init__(
        self,
        spec: ChildSpec,
        policy: RestartPolicy | None = None,
        on_death: Callable[[Child], Awaitable[None]] = _no_one_mourns,
    ) -> None:
        self.spec = spec
        self.ready = False
        self.starts = 0
        self.exit_code: int | None = None  # of the last life
        self.ended_for: str | None = None  # why the supervisor ended that life, None: it did not
        self._policy = policy or RestartPolicy()
        self._on_death = on_death
        self._process: asyncio.subprocess.Process | None = None
        self._beside: asyncio.subprocess.Process | None = None  # an heir, or what it took over from
        self._placing = asyncio.Lock()
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Process id of the present life, None between two lives."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for: no further life begins."""
        return self._stopping.is_set()

    async def start(self) -> None:
        """Start the process."""
        async with self._placing:
            if self.pid is None:
                self._process = await self._spawn(self.spec)

    async def _spawn(self, spec: ChildSpec) -> asyncio.subprocess.Process:
        with _output(spec.log_file) as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "forebay", *spec.arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(spec.environment),
                pass_fds=spec.pass_fds,
                start_new_session=True,
            )
        self.starts += 1
        log.info("started", child=spec.name, pid=process.pid, life=self.starts)
        return process

    async def keep_alive(self) -> None:
        """Restart the process whenever it ends, until ``stop``.

        Raises:
            ChildFailedError: it ended ``tries_to_start`` times and was never ready.
        """
        pause_s = self._policy.first_s
        clock = asyncio.get_running_loop().time
        while self._process is not None:
            began, process = clock(), self._process
            code = await process.wait()
            if self._stopping.is_set():
                return
            if process is not self._process:
                continue  # an heir has taken its place
            lived_s = clock() - began
            self.exit_code = code
            log.warning("ended", child=self.spec.name, code=code, after_s=round(lived_s, 1))
            await self._on_death(self)
            self.ended_for = None
            if not self.ready and self.starts >= self._policy.tries_to_start:
                raise ChildFailedError(
                    f"{self.spec.name} ended {self.starts} times and was never ready "
                    f"(exit code {code}).{self.log_tail()}"
                )
            if lived_s > self._policy.healthy_s:
                pause_s = self._policy.first_s
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._policy.longest_s)
            await self._start_again()

    async def _start_again(self) -> None:
        """Start the process; a machine short of memory or files is asked again and again."""
        while not self._stopping.is_set():
            try:
                await self.start()
            except OSError as error:
                log.warning("not_started", child=self.spec.name, reason=str(error))
                await asyncio.sleep(self._policy.longest_s)
                continue
            if self._stopping.is_set() and self._process is not None:
                self._process.kill()  # the stop saw no process, as this start was under way
            return

    async def retire(self, reason: str, grace_s: float) -> None:
        """Have this life end at leisure, by force after ``grace_s``; the next one follows.

        ``reason`` is kept for ``on_death``.
        """
        process = self._process
        if process is None or process.returncode is not None or self._stopping.is_set():
            return
        self.ended_for = reason
        await self._end_at_leisure(process, grace_s)

    async def hand_over(
        self, heir: ChildSpec, warm: Callable[[int], Awaitable[None]], grace_s: float
    ) -> bool:
        """Start an heir beside this life; once it is ``warm``, have this one end at leisure.

        ``heir``: of another name, for two live at once. ``warm`` returns when the process with that
        id can take over, or raises TimeoutError. False: it ended or was not warm in time, and all
        is as before. ``on_death`` is not told.
        """
        process = self._beside = await self._spawn(heir)
        if not await self._is_warm(process, warm):
            _kill(process)  # where a stop came meanwhile, it has nothing to finish either
            await process.wait()
            self._beside = None
            return False
        async with self._placing:
            self._beside, self._process, self.spec = self._process, process, heir
        if self._beside is not None:
            await self._end_at_leisure(self._beside, grace_s)
        if not self.stopping:
            self._beside = None
        return True

    async def _is_warm(
        self, process: asyncio.subprocess.Process, warm: Callable[[int], Awaitable[None]]
    ) -> bool:
        warming = asyncio.ensure_future(warm(process.pid))
        ends = [asyncio.ensure_future(one) for one in (process.wait(), self._stopping.wait())]
        try:
            await asyncio.wait([warming, *ends], return_when=asyncio.FIRST_COMPLETED)
            if process.returncode is not None or self.stopping:
                return False
            await warming
        except TimeoutError:
            return False
        finally:
            for one in (warming, *ends):
                one.cancel()
            await asyncio.gather(warming, *ends, return_exceptions=True)
        return True

    async def _end_at_leisure(self, process: asyncio.subprocess.Process, grace_s: float) -> None:
        """Ask a process to end when it has finished; SIGKILL after ``grace_s``.

        A stop that comes meanwhile has the last word.
        """
        if await _ends(process, LEISURE, grace_s, self._stopping) or self.stopping:
            return
        log.warning("killed", child=self.spec.name, pid=process.pid)
        _kill(process)
        await process.wait()

    async def abort(self, reason: str) -> None:
        """End a life that does not answer: ``TELL_SIGNAL``, then SIGKILL.

        ``keep_alive`` starts the next one. ``reason`` is kept for ``on_death``.
        """
        process = self._process
        if process is None or process.returncode is not None or self._stopping.is_set():
            return
        self.ended_for = reason
        for end in (TELL_SIGNAL, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(end)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), LAST_WORDS_S)
                return

    async def stop(self, grace_s: float, hurry: asyncio.Event) -> None:
        """End the process: SIGTERM, then SIGKILL after ``grace_s`` or at ``hurry``."""
        self._stopping.set()
        living = [one for one in (self._process, self._beside) if one is not None]
        await asyncio.gather(*(self._end(one, grace_s, hurry) for one in living))

    async def _end(
        self, process: asyncio.subprocess.Process, grace_s: float, hurry: asyncio.Event
    ) -> None:
        if process.returncode is None and not await _ends(process, signal.SIGTERM, grace_s, hurry):
            log.warning("killed", child=self.spec.name, pid=process.pid)
            _kill(process)
        await process.wait()

    def log_tail(self, lines: int = 20) -> str:
        """Return the end of the log file to show with a failure; empty without a file."""
        path = self.spec.log_file
        if path is None or not path.is_file():
            return ""
        tail = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        return "\n".join([f" The end of {path}:", *tail])


async def _ends(
    process: asyncio.subprocess.Process,
    how: signal.Signals,
    grace_s: float,
    hurry: asyncio.Event,
) -> bool:
    """Send a signal; whether the process ends within ``grace_s`` and before ``hurry``."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(how)
    waits = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(hurry.wait())]
    await asyncio.wait(waits, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
    for one in waits:
        one.cancel()
    return process.returncode is not None


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _output(path: Path | None) -> contextlib.AbstractContextManager[IO[bytes] | None]:
    if path is None:
        return contextlib.nullcontext(None)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")
