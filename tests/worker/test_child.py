"""A child process of the stack: restarted, given up, stopped, on its leash."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from forebay.worker.child import Child, ChildFailedError, ChildSpec, RestartPolicy

QUICK = RestartPolicy(first_s=0.01, longest_s=0.05)


def spec(tmp_path: Path, *arguments: str, name: str = "child") -> ChildSpec:
    return ChildSpec(name, arguments, dict(os.environ), tmp_path / "child.log")


async def test_a_child_that_is_never_ready_is_given_up_with_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    child = Child(spec(tmp_path, "worker", "--set", "prot=1"), QUICK)
    await child.start()
    with pytest.raises(ChildFailedError) as raised:
        await asyncio.wait_for(child.keep_alive(), 60)
    assert child.starts == QUICK.tries_to_start
    assert "did you mean port?" in str(raised.value)


async def test_deaths_are_told_and_a_child_that_was_ready_is_restarted_on_and_on(
    tmp_path: Path,
) -> None:
    mourned: list[int] = []

    async def mourn(child: Child) -> None:
        mourned.append(child.starts)

    child = Child(spec(tmp_path, "version"), QUICK, mourn)
    child.ready = True
    await child.start()
    keeper = asyncio.create_task(child.keep_alive())
    async with asyncio.timeout(60):
        while len(mourned) < QUICK.tries_to_start + 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await child.stop(5, asyncio.Event())
    await asyncio.wait_for(keeper, 10)
    assert mourned[:4] == [1, 2, 3, 4]
    assert child.pid is None


async def test_a_start_that_the_system_refuses_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(spec(tmp_path, "version"), QUICK)
    child.ready = True
    await child.start()
    spawn, refusals = asyncio.create_subprocess_exec, [BlockingIOError("no processes left")] * 3

    async def refuse_at_first(*args: Any, **kwargs: Any) -> asyncio.subprocess.Process:
        if refusals:
            raise refusals.pop()
        return await spawn(*args, **kwargs)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_at_first)
    keeper = asyncio.create_task(child.keep_alive())
    async with asyncio.timeout(60):
        while child.starts < 2 and not keeper.done():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await child.stop(5, asyncio.Event())
    await asyncio.wait_for(keeper, 10)
    assert child.starts >= 2


SLEEPER = """
import signal, sys, time
from pathlib import Path
from forebay.worker.leash import end_with_parent
if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
end_with_parent(0.3)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("deaf", [False, True], ids=["obeys", "ignores SIGTERM"])
def test_a_child_ends_with_its_parent_even_when_the_parent_is_killed(deaf: bool) -> None:
    parent = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import subprocess, sys; child = subprocess.Popen("
            "[sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE); "
            "print(child.pid, flush=True); child.wait()",
            *("-c", SLEEPER, *(["--deaf"] if deaf else [])),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert parent.stdout.readline() == "ready\n"
        parent.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.02)
