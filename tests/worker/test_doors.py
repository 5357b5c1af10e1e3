"""Two API processes at one port: one is killed, one hangs, and the other goes on meanwhile."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from forebay.config import load_settings
from forebay.queue.embedded import EmbeddedValkey
from forebay.worker import ports
from forebay.worker.child import environment_of
from forebay.worker.doors import Doors

pytestmark = pytest.mark.slow
CLIENTS = 8


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.05)
    del what


class Port:
    """The port of two API processes, and clients that take a cut connection for no answer."""

    def __init__(self, doors: Doors, url: str) -> None:
        self.doors = doors
        self.url = url
        self.accepted: list[str] = []
        self.cut = 0
        self.enough = asyncio.Event()

    async def send_until_enough(self, client_number: int) -> None:
        """Send question after question, each on a connection of its own."""
        number = 0
        while not self.enough.is_set():
            number += 1
            async with httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False) as http:
                try:
                    reply = await http.post(
                        "/predict",
                        files={"image": ("a.png", PICTURE, "image/png")},
                        data={"prompt": f"what is it? {client_number} {number}"},
                    )
                except httpx.TransportError:
                    self.cut += 1
                    continue
            assert reply.status_code == 200, reply.text
            self.accepted.append(reply.json()["task_id"])

    async def more(self, count: int) -> None:
        """Return when so many more tasks were accepted."""
        wanted = len(self.accepted) + count
        await until(lambda: len(self.accepted) >= wanted, f"{count} more tasks")

    async def states(self) -> set[str]:
        """Return what became of all accepted tasks."""
        found = set()
        async with httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False) as http:
            for task_id in self.accepted:
                reply = await http.get("/result", params={"task_id": task_id})
                found.add(reply.json().get("status", reply.text))
        return found

    async def processes(self) -> set[str]:
        """Return the API processes that ``/metrics`` tells of."""
        async with httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False) as http:
            return set(re.findall(r'process="([^"]*)"', (await http.get("/metrics")).text))


def _picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (80, 60), "teal").save(content, "PNG")
    return content.getvalue()


PICTURE = _picture()


@asynccontextmanager
async def two_doors(
    valkey: EmbeddedValkey, folder: Path, deaf_s: float = 60.0
) -> AsyncIterator[Port]:
    with ports.listen("127.0.0.1", 0, tries=1) as listener:
        port = ports.port_of(listener)
        url = ports.local_url("127.0.0.1", port)
        settings = load_settings(
            queue_url=valkey.url,
            queue_name=folder.name.replace("_", "-")[:32],
            data_dir=folder / "data",
            port=port,
            api_processes=2,
            workers_gone_s=0,
            anonymous_rate_per_s=1e6,
            anonymous_burst=10**6,
            drain_s=5,
        )
        doors = Doors(
            2, [listener], url, environment_of(settings), lambda name: folder / name, deaf_s=deaf_s
        )
        await doors.start()
        keeping = doors.keeping()
        try:
            async with asyncio.timeout(150):
                await doors.opened()
            yield Port(doors, url)
        finally:
            await doors.stop(30, asyncio.Event())
            for one in keeping:
                one.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)


@asynccontextmanager
async def under_load(port: Port) -> AsyncIterator[None]:
    sending = [asyncio.create_task(port.send_until_enough(one)) for one in range(CLIENTS)]
    try:
        await port.more(2 * CLIENTS)
        yield
    finally:
        port.enough.set()
        await asyncio.gather(*sending)


async def test_of_two_one_is_killed_under_load_and_nothing_accepted_is_lost(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with two_doors(valkey, tmp_path) as port:
        first, second = port.doors.children
        assert [first.spec.name, second.spec.name] == ["api", "api-2"]
        async with under_load(port):
            decoders = psutil.Process(second.pid).children() + psutil.Process(first.pid).children()
            assert decoders
            assert [one.net_connections() for one in decoders] == [[]] * len(decoders)
            struck, other = first.pid, second.pid
            assert struck is not None
            os.kill(struck, signal.SIGKILL)
            await until(lambda: first.pid != struck, "end of the first")
            await port.more(2 * CLIENTS)  # by the other: the next life takes seconds to begin
            assert port.cut <= CLIENTS
            await until(lambda: first.pid not in (None, struck), "the next life")
            assert second.pid == other
        assert await port.states() == {"pending"}
        async with asyncio.timeout(60):
            while len(await port.processes()) < 2:  # noqa: ASYNC110 - each says so by the clock
                await asyncio.sleep(0.1)
        assert {one.rsplit("-", 1)[1] for one in await port.processes()} == {
            port.url.rsplit(":", 1)[1]
        }
    assert [one.pid for one in port.doors.children] == [None, None]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port.url.rsplit(":", 1)[1])), timeout=5)


async def test_of_two_one_that_hangs_is_replaced_and_the_other_left_alone(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with two_doors(valkey, tmp_path, deaf_s=3.0) as port:
        first, second = port.doors.children
        hung, other = second.pid, first.pid
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        async with under_load(port):  # whoever comes now is served by the one that runs
            await until(lambda: second.pid not in (None, hung), "a life after the hung one")
        assert port.cut == 0
        assert first.pid == other
        assert second.exit_code == -signal.SIGKILL
        assert await port.states() == {"pending"}


async def test_the_command_of_the_api_alone_runs_two_and_ends_them_in_order(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    with ports.listen("127.0.0.1", 0, tries=1) as listener:
        port = ports.port_of(listener)
    command = [sys.executable, "-m", "forebay", "api", "--port", str(port), "--api-processes", "2"]
    sets = {
        "FOREBAY_QUEUE_URL": valkey.url,
        "FOREBAY_DATA_DIR": str(tmp_path / "data"),
        "FOREBAY_DRAIN_S": "2",
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stderr=output,
            env={**os.environ, **sets},
        )
    try:
        await until(lambda: log.read_text().count("api_listening") == 2, "two that listen")
        doors = psutil.Process(process.pid).children()
        second = await asyncio.create_subprocess_exec(
            *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, **sets}
        )
        _, said = await second.communicate()
        assert second.returncode == 1
        assert f"port {port}" in said.decode().replace("ports", "port")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
        assert not any(one.is_running() for one in doors)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
