"""The package's own client before a stack whose processes are killed under it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.client import Client, Delta, Ended, Event, Restart, Task
from tests.integration.stack import WAIT_S, ServeProcess, serving


@pytest.fixture(scope="module")
def stack(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    with serving(model, tmp_path_factory.mktemp("stack")) as stack:
        yield stack


async def followed(
    client: Client, task: Task, at_first_text: Callable[[], None]
) -> tuple[str, list[Event]]:
    """Return the text as a client has it at the end, and all that it heard."""
    text, heard = "", list[Event]()
    async for event in client.events(task):
        if isinstance(event, Restart):
            text = ""
        elif isinstance(event, Delta):
            text += event.text
            if not any(isinstance(one, Delta) for one in heard):
                await asyncio.to_thread(at_first_text)
        heard.append(event)
    return text, heard


@pytest.mark.parametrize("killed", ["api", "worker"])
async def test_a_task_is_followed_to_its_end_whatever_is_killed(stack, killed) -> None:
    async with (
        asyncio.timeout(WAIT_S),
        Client(stack.url, patience_s=WAIT_S) as client,
    ):
        task = await client.create(f"Go on {killed}", max_tokens=400, temperature=0.9, seed=7)
        text, heard = await followed(client, task, lambda: stack.kill_child(killed))
        assert isinstance(heard[-1], Ended)
        assert text == heard[-1].task.text
        assert len(text) > 100
        restarts = sum(isinstance(one, Restart) for one in heard)
        assert restarts == (1 if killed == "worker" else 0)
        assert heard[-1].task.deliveries == 1 + restarts


async def test_what_is_asked_while_the_api_is_away_runs_once(stack) -> None:
    async with (
        asyncio.timeout(WAIT_S),
        Client(stack.url, patience_s=WAIT_S) as client,
    ):
        killing = asyncio.create_task(asyncio.to_thread(stack.kill_child, "api"))
        asked = [client.ask(f"Number {n}", max_tokens=5, cache="no-store") for n in range(8)]
        answers = await asyncio.gather(*asked)
        await killing
    assert all(answers)
