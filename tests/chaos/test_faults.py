"""The faults follow from the seed, and each one bites: on a real server and real processes."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis.exceptions
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.faults import (
    CLOCK_BOUND_S,
    Fault,
    kinds_as_one,
    kinds_in_parts,
    plan,
    strike,
)
from tests.chaos.processes import Process
from tests.chaos.stack import Stack
from tests.chaos.valkey import Valkey, find_faketime
from tests.integration.stack import free_port

KINDS = kinds_in_parts(clock=True)
seeds = st.integers(0, 10**9)


@given(seeds, st.integers(1, 250), st.booleans())
def test_a_plan_is_its_seeds_alone_and_takes_every_kind_in_turn(
    seed: int, count: int, whole: bool
) -> None:
    kinds = kinds_as_one() if whole else KINDS
    faults = plan(seed, count, kinds)
    assert faults == plan(seed, count, kinds)
    assert [one.number for one in faults] == list(range(count))
    assert [one.at for one in faults] == sorted(one.at for one in faults)
    assert all(0 <= one.at < 1 for one in faults)
    pairs = Counter((one.kind, one.target) for one in faults)
    possible = sum(len(kind.targets) for kind in kinds.values())
    assert max(pairs.values()) - (min(pairs.values()) if len(pairs) == possible else 0) <= 1
    for one in faults:
        shortest, longest = kinds[one.kind].seconds
        assert shortest <= one.seconds <= longest
        assert one.target in kinds[one.kind].targets


def test_another_seed_is_another_plan() -> None:
    assert plan(1, 40, KINDS) != plan(2, 40, KINDS)


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[Stack]:
    valkey = Valkey(folder / "valkey", free_port())
    stack = Stack([], "", valkey=valkey, queue_url=f"redis://127.0.0.1:{valkey.port}/0")
    stack.groups["valkey"] = [valkey.process]
    await valkey.process.start()
    try:
        async with asyncio.timeout(60):
            while await stack.tell("PING") is None:
                await asyncio.sleep(0.02)
        yield stack
    finally:
        await valkey.process.end()


def fault(kind: str, target: str = "valkey", seconds: float = 0.0, strength: float = 0.5) -> Fault:
    return Fault(0, 0.0, kind, target, seconds, strength, 0.0)


def quiet(text: str) -> None:
    del text


LIBRARY = """#!lua name=clock
redis.register_function('clock', function() return tonumber(redis.call('TIME')[1]) end)
"""


@pytest.mark.skipif(find_faketime() is None, reason="needs Debian's libfaketime")
async def test_the_clock_that_functions_read_jumps_forwards_and_backwards(tmp_path: Path) -> None:
    async with server(tmp_path) as stack:
        await stack.tell("FUNCTION", "LOAD", LIBRARY)

        async def beside() -> float:
            return int(await stack.tell("FCALL", "clock", "0")) - time.time()

        assert abs(await beside()) < 5
        assert await strike(stack, fault("clock_forward", strength=1.0), KINDS, quiet)
        assert 595 < await beside() < 610
        await strike(stack, fault("clock_forward", strength=1.0), KINDS, quiet)
        assert stack.clock_s == CLOCK_BOUND_S
        for _ in range(2):
            await strike(stack, fault("clock_back", strength=1.0), KINDS, quiet)
        assert -315 < await beside() < -295
        first = await stack.tell("XADD", "s", "*", "a", "1")
        await strike(stack, fault("clock_back", strength=1.0), KINDS, quiet)
        assert str(await stack.tell("XADD", "s", "*", "a", "1")) > str(first)


async def test_full_memory_refuses_what_would_add_and_ends(tmp_path: Path) -> None:
    async with server(tmp_path) as stack, stack.admin() as client:
        striking = asyncio.create_task(
            strike(stack, fault("full_memory", seconds=1.0), KINDS, quiet)
        )
        refused = 0
        while not striking.done():
            try:
                await client.set("a", "b")
            except redis.exceptions.OutOfMemoryError:
                refused += 1
            await asyncio.sleep(0.01)
        assert striking.result()
        assert refused
        await client.set("a", "b")


async def test_a_killed_server_comes_back_with_its_data(tmp_path: Path) -> None:
    async with server(tmp_path) as stack:
        await stack.tell("SET", "kept", "yes")
        pid = stack.victims("valkey")
        assert await strike(stack, fault("kill"), KINDS, quiet)
        async with asyncio.timeout(60):
            while stack.victims("valkey") in ([], pid) or await stack.tell("PING") is None:
                await asyncio.sleep(0.02)
        assert await stack.tell("GET", "kept") == "yes"
        assert stack.groups["valkey"][0].unasked_ends == 0


async def test_a_stopped_process_stands_still_and_goes_on(tmp_path: Path) -> None:
    async with server(tmp_path) as stack:
        (pid,) = stack.victims("valkey")
        striking = asyncio.create_task(strike(stack, fault("stop", seconds=0.5), KINDS, quiet))
        async with asyncio.timeout(30):
            while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
                await asyncio.sleep(0.01)
        assert await striking
        assert await stack.tell("PING")
        assert stack.victims("valkey") == [pid]


async def test_clients_are_killed_and_functions_forgotten(tmp_path: Path) -> None:
    async with server(tmp_path) as stack, stack.admin() as client:
        await client.ping()
        assert await strike(stack, fault("client_kill"), KINDS, quiet)
        with pytest.raises(redis.exceptions.ConnectionError):
            await client.ping()
        await stack.tell("FUNCTION", "LOAD", LIBRARY)
        assert await strike(stack, fault("functions_lost"), KINDS, quiet)
        assert await stack.tell("FUNCTION", "LIST") == []


WRITER = """
import sys, time
while True:
    try:
        with open(sys.argv[1], "wb") as file:
            file.write(bytes(100_000))
        print("written", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
    time.sleep(0.01)
"""


async def test_a_full_disk_is_an_error_of_writing_and_the_voice_is_left(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    writer = Process("api-0", command, tmp_path / "log")
    stack = Stack([], "", groups={"api": [writer]})
    await writer.start()

    async def until_last_line(text: str) -> None:
        async with asyncio.timeout(60):
            while writer.last_lines(1) != text:
                await asyncio.sleep(0.01)

    try:
        await until_last_line("written")
        striking = asyncio.create_task(strike(stack, fault("full_disk", "api", 1.0), KINDS, quiet))
        await until_last_line("27")  # EFBIG
        assert await striking
        await until_last_line("written")
    finally:
        await writer.end(signal.SIGKILL)


async def test_a_process_that_ends_by_itself_is_started_again_and_counted(tmp_path: Path) -> None:
    process = Process("once", [sys.executable, "-c", "print('here')"], tmp_path / "log")
    await process.start()
    async with asyncio.timeout(60):
        while process.lives < 3:
            await asyncio.sleep(0.01)
    await process.end()
    assert process.unasked_ends >= 2
    assert process.last_lines(1) == "here"


def test_a_fault_with_nobody_to_strike_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    none = replace(fault("client_kill"), number=7)
    stack = Stack([], "", queue_url=f"redis://127.0.0.1:{free_port()}/0")
    assert not asyncio.run(strike(stack, none, KINDS, told.append))
    assert told == ["#7 client_kill valkey for 0.0 s (nobody there)"]
