"""The API processes of one port: one listening socket for all, each watched and replaced by itself.

All accept from the same socket, which their parent holds: while one of them dies, hangs or starts
anew, what it has not accepted waits for the others and for nobody in particular.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx

from forebay.config import Settings
from forebay.core.neighbours import shared_counts
from forebay.worker import ports
from forebay.worker.child import STOP_MARGIN_S, Child, ChildSpec, environment_of
from forebay.worker.door_watch import DEAF_S, end_when_deaf
from forebay.worker.signals import StopSignal

POLL_S: Final = 0.1
ANSWER_S: Final = 2.0
_HERE: Final = "127.0.0.1"
"""Where a process among several is asked for a sign of life of its own."""


def door_name(number: int) -> str:
    """Return the name of an API process among those of its port; the first is 1."""
    return "api" if number == 1 else f"api-{number}"


class Doors:
    """``count`` API processes behind ``listeners``, which their parent keeps open longer.

    ``environment``: their variables. ``log_file``: where the output of a name goes. ``deaf_s``:
    how long one may answer nobody.
    """

    def __init__(
        self,
        count: int,
        listeners: Sequence[socket.socket],
        url: str,
        environment: Mapping[str, str],
        log_file: Callable[[str], Path | None],
        *,
        deaf_s: float = DEAF_S,
    ) -> None:
        self._deaf_s = deaf_s
        self._asked_at: list[str] = []
        self._own: list[socket.socket] = []
        self._counts = shared_counts(count)
        self.children: list[Child] = []
        for row in range(count):
            own = []
            if count > 1:  # at the port that all share, who answers is anybody's guess
                own.append(ports.listen(_HERE, 0, tries=1))
                url = ports.local_url(_HERE, ports.port_of(own[0]))
            self._own += own
            name = door_name(row + 1)
            command, fds = _command(name, row, self._counts.fileno(), [*listeners, *own])
            spec = ChildSpec(name, command, environment, log_file(name), pass_fds=fds)
            self._asked_at.append(url)
            self.children.append(Child(spec))

    async def start(self) -> None:
        """Start every process."""
        await asyncio.gather(*(one.start() for one in self.children))

    def keeping(self) -> list[asyncio.Task[None]]:
        """Begin to restart what ends and to end what answers nobody, each process for itself.

        The tasks never end before ``stop`` but by a ChildFailedError.
        """
        watches = map(self._watch, self.children, self._asked_at)
        lives = (one.keep_alive() for one in self.children)
        return [asyncio.create_task(one) for one in (*lives, *watches)]

    async def opened(self) -> None:
        """Return when every process has answered; ``keeping`` has begun."""
        while not all(one.ready for one in self.children):  # noqa: ASYNC110 - each is asked by poll
            await asyncio.sleep(POLL_S)

    async def _watch(self, child: Child, url: str) -> None:
        await _answering(url)
        child.ready = True
        await end_when_deaf(child, url, deaf_s=self._deaf_s)

    async def stop(self, grace_s: float, hurry: asyncio.Event) -> None:
        """End all of them at once, each by force after ``grace_s`` or at ``hurry``."""
        for one in self._own:
            one.close()
        await asyncio.gather(*(one.stop(grace_s, hurry) for one in self.children))
        self._counts.close()


def _command(
    name: str, row: int, counts: int, listeners: Sequence[socket.socket]
) -> tuple[list[str], list[int]]:
    """Return the arguments of an API process, and the descriptors that they tell of."""
    command = ["api", "--supervised", "--name", name]
    command += ["--counts-fd", str(counts), "--row", str(row)]
    fds = [one.fileno() for one in listeners]
    for fd in fds:
        command += ["--listen-fd", str(fd)]
    return command, [counts, *fds]


async def _answering(url: str) -> None:
    """Return once the process there answers and finds nothing wrong."""
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_S, trust_env=False) as client:
        while not await _answers(client):  # noqa: ASYNC110 - as above
            await asyncio.sleep(POLL_S)


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


async def run_doors(settings: Settings, stop: StopSignal) -> None:
    """Run the API processes of ``settings`` alone until a stop is asked for.

    Raises:
        ChildFailedError: one of them ended again and again before it was ever ready.
        NoPortError: the port is taken, or the address is not this machine's.
    """
    with ExitStack() as stack:
        wanted = [settings.port, *(getattr(settings, name) for name in settings.page_ports())]
        listeners = [
            stack.enter_context(ports.listen(settings.host, one, tries=1)) for one in wanted
        ]
        url = ports.local_url(settings.host, settings.port)
        count, environment = settings.api_processes, environment_of(settings)
        doors = Doors(count, listeners, url, environment, lambda _name: None)
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(stop.asked.wait())]
        try:
            await doors.start()
            tasks += doors.keeping()
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                one.result()
        finally:
            stack.close()
            await doors.stop(settings.drain_s + STOP_MARGIN_S, stop.hurried)
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
