"""``forebay top`` in a pseudo terminal, on a real door."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from forebay.access.caller import Allowance, Scope
from forebay.access.opening import open_keys
from forebay.api.app import build
from forebay.config import load_settings
from forebay.core.engine_load import EngineLoad
from forebay.core.request import DEFAULT_TENANT
from forebay.ops.live.members import WorkerCard, WorkerNow, worker_says
from forebay.ops.live.spread import Spread
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.fleet import DRAIN, Fleet
from forebay.top.feed import Feed
from tests.api.door import listening

WAIT_S = 60.0
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()=>][0-9A-B]?)")


OWN_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))  # it is this session's from now on: Ctrl-C comes here
os.execv(sys.executable, [sys.executable, "-m", "forebay", "top", *sys.argv[1:]])
"""


class Screen:
    """A program in a terminal of 80 x 24: what it wrote since the last look, and keys for it."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.own, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.theirs = theirs
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        self.raw = ""
        os.set_blocking(self.own, False)

    def read(self) -> str:
        """Return everything that was written so far, without what moves and colors."""
        try:
            while told := os.read(self.own, 65_536):
                self.raw += told.decode("utf-8", errors="replace")
        except OSError:
            pass
        return ESCAPES.sub("", self.raw)

    async def until(self, look: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + WAIT_S
        while not look(text := self.read()):
            assert time.monotonic() < deadline, text[-3000:]
            await asyncio.sleep(0.05)
        return text

    async def press(self, keys: str) -> None:
        self.raw = ""
        os.write(self.own, keys.encode())

    async def ended(self) -> int:
        code = await asyncio.to_thread(self.process.wait, WAIT_S)
        self.read()
        assert termios.tcgetattr(self.theirs) == self.before, "the terminal is left as it was"
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.own)
        os.close(self.theirs)


class Rig:
    """A door, an administrator's key, and two workers that say they are ready."""

    def __init__(self, url: str, key: str, redis: Redis) -> None:
        self.url, self.key = url, key
        self.fleet = Fleet(redis, "test")

    async def report(self) -> str:
        """Have both workers report; return what is wanted of the first."""
        wanted = [await self.fleet.report(name, _says()) for name in ("worker-a", "worker-b")]
        return wanted[0]

    def screen(self, **environment: str) -> Screen:
        return Screen("--url", self.url, FOREBAY_API_KEY=self.key, **environment)


def _says() -> dict[str, Any]:
    card = WorkerCard("h", 1, 1.0, "m", "0", "cpu", "none")
    times = {name: Spread().counts for name in ("ttft", "tpot", "latency")}
    now = WorkerNow("ready", 2, 7, 0, 9, 2**20, 0.0, EngineLoad(), times)
    return worker_says(card, now, None)


@asynccontextmanager
async def _reporting(rig: Rig) -> AsyncIterator[None]:
    async def for_ever() -> None:
        while True:
            await rig.report()
            await asyncio.sleep(0.5)

    task = asyncio.create_task(for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        settings = load_settings(
            queue_url=server.url, queue_name="test", data_dir=tmp_path, image_processes=1
        )
        redis = connect(server.url)
        keys = await open_keys(settings.pepper_file(tmp_path), redis, "test")
        _, key = await keys.create("k", frozenset({Scope.ADMIN}), DEFAULT_TENANT, Allowance(), 9e3)
        async with build(settings) as app, listening(app) as url:
            rig = Rig(url, key, redis)
            async with _reporting(rig):
                yield rig
        await redis.aclose()


async def test_workers_are_seen_drained_and_left(rig: Rig) -> None:
    screen = rig.screen(LANG="en_US.UTF-8")
    try:
        await screen.until(lambda text: "> worker-a" in text and "worker-b" in text)
        await screen.press("d")
        await screen.until(lambda text: "Drain worker-a?" in text)
        await screen.press("n")
        await screen.until(lambda text: "q quit" in text)
        assert await rig.report() == ""
        await screen.press("d")
        await screen.until(lambda text: "Drain worker-a?" in text)
        await screen.press("y")
        await screen.until(lambda text: "worker-a drains." in text)
        assert await rig.report() == DRAIN
        await screen.press("\x1b[B")
        await screen.until(lambda text: "> worker-b" in text)
        await screen.press("q")
        assert await screen.ended() == 0
        assert "\x1b[?1049l" in screen.raw, "the screen from before is back"
    finally:
        screen.close()


async def test_a_workers_name_is_one_part_of_the_address_whatever_is_in_it(rig: Rig) -> None:
    name = "rack 7?x=1#%41"
    await rig.fleet.report(name, _says())
    async with Feed(rig.url, rig.key) as feed:
        assert await feed.act(name, "drain") is None
    assert await rig.fleet.report(name, _says()) == DRAIN
    assert await rig.report() == "", "no other is meant"


async def test_it_speaks_chinese_and_ends_at_an_interrupt(rig: Rig) -> None:
    screen = rig.screen(LANG="zh_CN.UTF-8")
    try:
        await screen.until(lambda text: "工作进程" in text and "worker-a" in text)
        await screen.press("\x03")
        assert await screen.ended() == 0
    finally:
        screen.close()


class Relay:
    """A way to a server that can be broken and mended."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._there = (host, int(port))
        self._ends: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._there)
        self._ends += (writer, back)
        ways = (_pass(reader, back), _pass(there, writer))
        await asyncio.gather(*ways, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while told := await reader.read(65_536):
            writer.write(told)
            await writer.drain()
    finally:
        writer.close()


async def test_a_server_that_goes_away_is_told_and_found_again(rig: Rig) -> None:
    relay = Relay(rig.url)
    await relay.open()
    url = f"http://127.0.0.1:{relay.port}"
    screen = Screen("--url", url, FOREBAY_API_KEY=rig.key, LANG="C.UTF-8")
    try:
        await screen.until(lambda text: "worker-a" in text)
        relay.cut()
        await screen.press("")
        await screen.until(lambda text: "No answer from" in text)
        await relay.open()
        await screen.press("")
        await screen.until(lambda text: "worker-a" in text and "No answer" not in text[-1500:])
        await screen.press("q")
        assert await screen.ended() == 0
    finally:
        relay.cut()
        screen.close()


async def once(rig: Rig, *arguments: str, key: str | None = None) -> tuple[int, str, str]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "forebay", "top", "--url", rig.url, *arguments],
            capture_output=True, text=True, timeout=WAIT_S, check=False,
            env={**os.environ, "FOREBAY_API_KEY": key or rig.key, "LANG": "en_US.UTF-8"},
        )  # fmt: skip

    done = await asyncio.to_thread(run)
    return done.returncode, done.stdout, done.stderr


async def test_scripts_get_one_frame_or_json_and_a_status(rig: Rig) -> None:
    code, frame, _ = await once(rig, "--once")
    assert "worker-b" in frame
    assert "\x1b" not in frame
    as_json = await once(rig, "--json")
    found = json.loads(as_json[1])
    assert [one["id"] for one in found["workers"]] == ["worker-a", "worker-b"]
    red = found["now"]["light"]["color"] == "red"
    assert as_json[0] == int(red)
    assert code in (0, 1)
    refused = await once(rig, "--once", key="fb_0_x")
    assert refused[0] == 1
    assert "forebay keys create" in refused[2]
    no_terminal = await once(rig)
    assert no_terminal[0] == 2
    assert "--once" in no_terminal[2]
