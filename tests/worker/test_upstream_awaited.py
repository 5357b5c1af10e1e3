"""The stack before a server that is not there yet: it waits as long as that takes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forebay.config import Settings
from forebay.ops.worker_status import Phase
from forebay.worker import supervisor
from forebay.worker.signals import StopSignal
from forebay.worker.supervisor import Stack
from scripts.running_stack import free_port
from tests.engine.fake_upstream import FakeUpstream

WAIT_S = 60


async def test_a_start_outlasts_an_upstream_that_is_still_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, said = FakeUpstream(port=free_port()), list[str]()
    settings = Settings(data_dir=tmp_path, port=free_port(), upstream_url=server.url)
    async with (
        asyncio.timeout(WAIT_S),
        Stack(settings, stop=StopSignal(), report=said.append) as stack,
    ):
        while [one.phase for one in stack.worker_statuses()] != [Phase.WAITING]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await stack._door_open()
        monkeypatch.setattr(supervisor, "START_LIMIT_S", 3.0)
        ready = asyncio.create_task(stack.wait_ready())
        await asyncio.wait([ready], timeout=4)
        assert not ready.done()
        assert "waiting for the upstream" in said
        async with server.listening():
            await ready
        assert said[-1] == "upstream answers"
