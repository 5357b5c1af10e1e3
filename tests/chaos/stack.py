"""The stack under test: Forebay's own processes, a real queue server, a server that answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis.asyncio

from forebay.core.request import TaskId
from forebay.queue.connection import connect
from forebay.queue.ports import QueueDepth
from forebay.queue.redis_queue import RedisQueue
from forebay.queue.schema import Keys
from tests.chaos.chat_face import MODEL_NAME
from tests.chaos.processes import Process
from tests.chaos.proxy import Proxy
from tests.chaos.valkey import Valkey
from tests.integration.stack import free_port
from tests.queue.integrity import check_integrity

ROOT = Path(__file__).parents[2]
START_S = 120.0
"""Bounds every start; far above what one takes, because test machines are shared."""

SETTINGS = {
    "CONFIG": "",
    "LEASE_S": "3",
    "DRAIN_S": "2",
    "IMAGE_PROCESSES": "1",
    "UPSTREAM_CONCURRENCY": "8",
    "UPSTREAM_IDLE_S": "20",
    "RESULT_TTL_S": "14400",  # clocks jump by minutes, and a result must be there at the end
    "LOG_FORMAT": "json",
    "MODEL_NAME": MODEL_NAME,
}


def environment(**settings: str) -> dict[str, str]:
    """Return the variables by which every process of the stack is set."""
    named = {f"FOREBAY_{name.upper()}": text for name, text in (SETTINGS | settings).items()}
    return {"PYTHONPATH": str(ROOT), **named}


@dataclass(slots=True)
class Stack:
    """What faults can strike, and where clients knock.

    ``groups``: processes by the name of their part. ``proxies``: the ways to the queue's server, by
    who goes them. ``valkey``: the server, where it is ours and on TCP.
    """

    doors: list[str]
    upstream_url: str
    groups: dict[str, list[Process]] = field(default_factory=dict)
    proxies: dict[str, Proxy] = field(default_factory=dict)
    valkey: Valkey | None = None
    queue_url: str = ""
    clock_s: int = 0
    upstream: Process | None = None

    @property
    def every_process(self) -> list[Process]:
        """What we started, the server that answers included."""
        return [*([self.upstream] if self.upstream else []), *self.processes]

    @property
    def processes(self) -> list[Process]:
        return [process for group in self.groups.values() for process in group]

    def answering(self) -> dict[str, str]:
        """Return the setting that says who answers."""
        return {"UPSTREAM_URL": self.upstream_url} if self.upstream_url else {}

    def victims(self, part: str) -> list[int]:
        """Return the processes of a part that live now."""
        return [one.pid for one in self.groups.get(part, []) if one.pid is not None]

    def send(self, part: str, which: int, number: signal.Signals, lame_s: float) -> int | None:
        """Send a signal to one process of a part; return its pid, None if none lives."""
        living = [one for one in self.groups.get(part, []) if one.pid is not None]
        if not living:
            return None
        process = living[which % len(living)]
        pid = process.pid
        process.send(number, lame_s)
        return pid

    def admin(self) -> redis.asyncio.Redis:
        """Return a client of the queue's server that goes past the proxies."""
        return redis.asyncio.Redis.from_url(
            self.queue_url, socket_timeout=5.0, decode_responses=True
        )

    def signal_pid(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process of ours. Raises ProcessLookupError."""
        os.kill(pid, number)

    async def tell(self, *command: str) -> Any:
        """Run a command on the queue's server if it is there; None if it is not."""
        async with self.admin() as client:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                return await client.execute_command(*command)
        return None

    async def insist(self, *command: str) -> None:
        """Run a command as soon as the server is there. Raises TimeoutError."""
        async with asyncio.timeout(START_S):
            while await self.tell(*command) is None:
                await asyncio.sleep(0.1)

    async def depth(self) -> QueueDepth:
        client = connect(self.queue_url)
        try:
            return await RedisQueue(client).depth()
        finally:
            await client.aclose()

    async def faults_of_the_books(self) -> list[str]:
        """Return what does not agree in what the queue's server keeps."""
        async with self.admin() as client:
            return await check_integrity(client, Keys())

    async def lose(self, task: str) -> None:
        """Break the promise on purpose, for tests of those who check: forget a task's record."""
        async with self.admin() as client:
            await client.delete(f"{{fb:main}}:t:{TaskId(task)}")

    async def runs(self) -> dict[str, int] | None:
        """Return how often each prompt was run; None where a model here answers."""
        if self.upstream is None:
            return None
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            return dict((await client.get(f"{self.upstream_url}/runs")).json())

    async def ready(self) -> None:
        """Return when every door says that it is ready. Raises TimeoutError."""
        async with (
            asyncio.timeout(START_S),
            httpx.AsyncClient(trust_env=False, timeout=5) as client,
        ):
            for door in self.doors:
                while not await _says_ready(client, door):
                    await asyncio.sleep(0.1)

    def logs(self) -> str:
        return "\n\n".join(f"--- {one.log}\n{one.last_lines()}" for one in self.every_process)


async def _says_ready(client: httpx.AsyncClient, door: str) -> bool:
    try:
        return (await client.get(f"{door}/ready")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@asynccontextmanager
async def in_parts(
    folder: Path, *, seed: int, settings: Mapping[str, str], garble: int, demo: bool
) -> AsyncIterator[Stack]:
    """Run each process by itself, its way to the queue's server through a proxy.

    Two doors, and two workers in front of the server that answers; with ``demo`` one worker with
    the demo model.
    """
    valkey = Valkey(folder / "valkey", free_port())
    stack = Stack([], "", valkey=valkey, queue_url=f"redis://127.0.0.1:{valkey.port}/0")
    stack.groups["valkey"] = [valkey.process]
    async with AsyncExitStack() as open_ends:
        for name in ("api", "worker"):
            proxy = Proxy(valkey.port, seed)
            stack.proxies[name] = await open_ends.enter_async_context(proxy.listening())
        if not demo:
            _add_upstream(folder, stack, garble)
        for name, count in (("api", 2), ("worker", 1 if demo else 2)):
            make = _api if name == "api" else _worker
            stack.groups[name] = [make(folder, stack, at, settings) for at in range(count)]
        async with _running(stack):
            yield stack


def _add_upstream(folder: Path, stack: Stack, garble: int) -> None:
    port = free_port()
    stack.upstream_url = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "tests.chaos.upstream", "--port", str(port))
    stack.upstream = Process(
        "upstream", [*command, "--garble", str(garble)], folder / "upstream.log", environment()
    )


def _api(folder: Path, stack: Stack, at: int, settings: Mapping[str, str]) -> Process:
    port = free_port()
    stack.doors.append(f"http://127.0.0.1:{port}")
    return _part(f"api-{at}", folder, stack, ("api", "--port", str(port)), settings)


def _worker(folder: Path, stack: Stack, at: int, settings: Mapping[str, str]) -> Process:
    name = f"worker-{at}"
    return _part(name, folder, stack, ("worker", "--name", name), settings)


def _part(
    name: str, folder: Path, stack: Stack, arguments: tuple[str, ...], settings: Mapping[str, str]
) -> Process:
    port = stack.proxies[arguments[0]].port
    own = {"QUEUE_URL": f"redis://127.0.0.1:{port}/0", "DATA_DIR": str(folder / "data")}
    command = [sys.executable, "-m", "forebay", *arguments, "--supervised"]
    set_by = environment(**stack.answering(), **own, **settings)
    return Process(name, command, folder / f"{name}.log", set_by)


@asynccontextmanager
async def as_one(
    folder: Path, *, settings: Mapping[str, str], garble: int, demo: bool
) -> AsyncIterator[Stack]:
    """Run ``forebay serve``: its supervisor, its private queue server, API and worker."""
    port = free_port()
    stack = Whole([f"http://127.0.0.1:{port}"], "")
    if not demo:
        _add_upstream(folder, stack, garble)
    stack.queue_url = f"unix://{folder}/data/queue/valkey.sock"
    serve = Process(
        "supervisor",
        [sys.executable, "-m", "forebay", "serve", "--port", str(port)],
        folder / "serve.log",
        environment(**stack.answering(), DATA_DIR=str(folder / "data"), **settings),
        before_start=stack.until_the_port_is_free,
    )
    stack.groups["supervisor"] = [serve]
    async with _running(stack):
        yield stack


class Whole(Stack):
    """``forebay serve``: its parts are found among the supervisor's children."""

    async def until_the_port_is_free(self) -> None:
        """Wait until a killed supervisor's children are gone: the port is theirs until then."""
        port = int(self.doors[0].rpartition(":")[2])
        async with asyncio.timeout(START_S):
            while not _can_listen(port):
                await asyncio.sleep(0.1)

    def victims(self, part: str) -> list[int]:
        if part == "supervisor":
            return Stack.victims(self, part)
        (supervisor,) = self.groups["supervisor"]
        if supervisor.pid is None:
            return []
        return [one.pid for one in _children(supervisor.pid) if _part_of(one) == part]

    def send(self, part: str, which: int, number: signal.Signals, lame_s: float) -> int | None:
        if part == "supervisor":
            return Stack.send(self, part, which, number, lame_s)
        victims = self.victims(part)
        if not victims:
            return None
        pid = victims[which % len(victims)]
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).send_signal(number)
        return pid


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children()
    return []


def _part_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        if "valkey" in process.name() or "redis" in process.name():
            return "valkey"
        words = process.cmdline()
        return next((part for part in ("api", "worker") if part in words), "")
    return ""


@asynccontextmanager
async def _running(stack: Stack) -> AsyncIterator[None]:
    started: list[Process] = []
    try:
        for process in stack.every_process:
            await process.start()
            started.append(process)
        try:
            await stack.ready()
        except TimeoutError as error:
            raise RuntimeError(f"the stack was not ready in time\n{stack.logs()}") from error
        yield
    finally:
        # workers first: what they hold goes back while the server is there
        for group in ("worker", "api", "supervisor", "valkey", "upstream"):
            await asyncio.gather(*(one.end() for one in started if one.name.startswith(group)))
