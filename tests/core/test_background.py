from __future__ import annotations

import asyncio

import pytest

from forebay.core.background import Background


async def test_it_runs_until_it_is_stopped_and_may_begin_anew():
    told: list[BaseException] = []
    background, running = Background("name", told.append), asyncio.Event()

    async def work() -> None:
        running.set()
        await asyncio.sleep(3600)

    await background.stop()  # not begun: nothing to end
    for _ in range(2):
        background.start(work())
        await running.wait()
        running.clear()
        assert "name" in {one.get_name() for one in asyncio.all_tasks()}
        await background.stop()
        assert "name" not in {one.get_name() for one in asyncio.all_tasks()}
    assert told == []


async def test_why_it_failed_is_told_at_once_and_raised_where_it_is_waited_for():
    told: list[BaseException] = []
    background = Background("name", told.append)

    async def work() -> None:
        raise OSError("gone")

    background.start(work())
    with pytest.raises(OSError, match="gone"):
        await background.ended()
    await background.stop()
    assert [str(one) for one in told] == ["gone"]
