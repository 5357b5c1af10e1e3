"""The client before a real door on a real socket."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from forebay.access.caller import Scope
from forebay.api.task_form import TaskForm
from forebay.client import (
    BlockingClient,
    Client,
    ConflictError,
    Delta,
    Ended,
    InvalidError,
    NoAnswerError,
    NotAllowedError,
    NotFoundError,
    Options,
    Queued,
    Restart,
    Started,
)
from forebay.core.errors import InvalidImageError
from forebay.core.events import Piece
from forebay.core.lifecycle import State
from forebay.core.request import ImagePart
from forebay.queue.ports import StreamWrite, TaskError
from tests.access.doors import guarded, make_key
from tests.admission.pictures import picture
from tests.api.door import MODEL, data_url, say, working
from tests.api.test_task_events import finish, leased
from tests.api.test_task_events import say as utter

EVERY_OPTION: dict[str, Any] = {
    "model": MODEL,
    "priority": "vip",
    "deadline_s": 600.5,
    "delay_s": 0.0,
    "metadata": {"order": "7"},
    "image_lossless": True,
    "max_tokens": 20,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "seed": 7,
    "stop": ["END", "中"],
    "stop_token_ids": [1, 2],
    "n": 1,
    "logprobs": True,
    "top_logprobs": 2,
    "response_format": {"type": "json_object"},
}
ALONE: dict[str, Any] = {
    "min_tokens": 1,
    "ignore_eos": True,
    "max_completion_tokens": 9,
    "guided_json": {"type": "object"},
    "guided_regex": "[ab]+",
    "guided_choice": ["yes", "no"],
    "structured_outputs": {"choice": ["a", "b"]},
    "stop": "END",
}
"""Those that do not go with others."""


def test_it_needs_nothing_of_the_server() -> None:
    told = (
        "import sys, forebay.client; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), "
        "*sorted(name for name in sys.modules if name.startswith('forebay.')))"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"torch", "numpy", "fastapi", "starlette", "pydantic", "redis", "structlog", "PIL"}
    assert not loaded & heavy
    ours = {name for name in loaded if name.startswith("forebay.")}
    assert all(name.startswith(("forebay.client", "forebay.core")) for name in ours), ours


def test_its_options_are_the_fields_of_a_task() -> None:
    named = {"messages", "image", "prompt"}
    assert set(Options.__annotations__) | named == set(TaskForm.model_fields)
    assert {*EVERY_OPTION, *ALONE, "webhook_url"} == set(Options.__annotations__)


async def test_a_question_about_a_file_is_answered(door, client, tmp_path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(picture(size=(80, 60)))
    async with working(door, say("42 €\u2028\x85 ", "or so")) as worker:
        assert await client.ask("What is the price?", image=file) == "42 €\u2028\x85 or so"
    (seen,) = worker.seen
    (shown, text) = seen.messages[0].parts
    assert isinstance(shown, ImagePart)
    assert text.text == "What is the price?"


@pytest.mark.parametrize("how", ["bytes", "url", "mixed", "several"])
async def test_pictures_come_in_every_form(door, client, tmp_path, how) -> None:
    one, other = picture(size=(80, 60)), picture(size=(60, 80))
    (tmp_path / "b.jpg").write_bytes(other)
    given = {
        "bytes": one,
        "url": data_url(one),
        "mixed": [data_url(one), tmp_path / "b.jpg"],
        "several": [one, tmp_path / "b.jpg"],
    }[how]
    async with working(door) as worker:
        await client.ask(f"{how}?", image=given)
    sizes = [(part.width, part.height) for part in worker.seen[0].images]
    assert sizes == [(80, 60), (60, 80)][: len(sizes)]
    assert len(sizes) == (2 if isinstance(given, list) else 1)


@pytest.mark.parametrize("image", [None, "picture"])
async def test_every_option_arrives_in_either_form(door, client, image) -> None:
    content = picture(size=(40, 40)) if image else None
    task = await client.create("All of it?", image=content, **EVERY_OPTION)
    assert (task.priority, task.metadata) == ("vip", {"order": "7"})
    lease = await leased(door)
    sampling = lease.request.sampling
    assert (sampling.seed, sampling.temperature, sampling.max_tokens) == (7, 0.5, 20)
    assert sampling.stop == ("END", "中")
    assert sampling.stop_token_ids == (1, 2)
    assert sampling.logprobs == 2
    assert sampling.constraint is not None
    await finish(door, lease, "x")  # nor may its lease end on a slow machine
    for name, value in ALONE.items():
        await client.create(f"Only {name}?", image=content, **{name: value})
        lease = await leased(door)
        assert lease.request.sampling.max_tokens == (9 if "max_c" in name else 256), name
        await finish(door, lease, "x")
    assert lease.request.sampling.stop == ("END",)


async def test_messages_are_a_conversation(door, client) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    async with working(door) as worker:
        task = await client.create(messages=messages, wait_s=20)
    assert task.ended
    assert [message.role for message in worker.seen[0].messages] == ["system", "user"]


async def test_waiting_returns_the_answer_or_the_task_as_it_is(door, client) -> None:
    task = await client.create("Soon?", wait_s=0)
    assert (task.status, task.position) == (State.QUEUED, 1)
    with pytest.raises(NoAnswerError) as caught:
        _ = task.text
    assert caught.value.code == "not_ended"
    async with working(door):
        assert (await client.result(task.id)).text == "The price is 12."
        done = await client.create("Now?", wait_s=20)
    assert done.text == "The price is 12."
    assert done.usage["completion_tokens"] == 3
    assert (await client.get(task)).finished_at >= task.created_at


async def test_a_key_makes_it_one_task_and_another_request_a_conflict(door, client) -> None:
    one = await client.create("Once", idempotency_key="k")
    again = await client.create("Once", idempotency_key="k")
    assert one.id == again.id
    with pytest.raises(ConflictError) as caught:
        await client.create("Twice", idempotency_key="k")
    assert caught.value.code == "idempotency_conflict"
    assert "new key" in caught.value.mend
    assert (await client.create("Once")).id != one.id


async def test_the_events_are_the_life_of_a_task(door, client) -> None:
    task = await client.create("Go on", n=2)
    heard = []
    async with asyncio.timeout(20), aclosing(client.events(task)) as events:
        heard.append(await anext(events))
        lease = await leased(door)
        both = StreamWrite(lease.task_id, lease.fence, "a", 2, others=(Piece(1, "b"),))
        await door.streams.append([both])
        while not (isinstance(heard[-1], Delta) and heard[-1].index == 1):
            heard.append(await anext(events))
        await finish(door, lease, "a")
        heard += [event async for event in events]
    assert isinstance(heard[0], Queued)
    assert heard[0].position == 1
    deltas = [one for one in heard if isinstance(one, Delta)]
    assert [(one.index, one.text, bool(one.place)) for one in deltas] == [
        (0, "a", False),
        (1, "b", True),
    ]
    assert Started("decode") in heard
    assert isinstance(heard[-1], Ended)
    assert heard[-1].task.text == "a"
    after = [event async for event in client.events(task.id, after=deltas[-1].place)]
    assert [type(one) for one in after] == [Ended]
    gone = [event async for event in client.events(task.id, after="9999999999999-0")]
    assert gone == after, "nothing follows there: the task itself is the end"


async def test_a_restart_is_told(door, client) -> None:
    task = await client.create("Over again")
    first = await leased(door)
    await utter(door, first, "wrong ")
    await door.queue.release([(first.task_id, first.fence)])
    second = await leased(door)
    await utter(door, second, "right")
    await finish(door, second, "right")
    text = ""
    async for event in client.events(task):
        if isinstance(event, Restart):
            text = ""
        elif isinstance(event, Delta):
            text += event.text
    assert text == "right"


async def test_cancelling_ends_it_once(door, client) -> None:
    task = await client.create("Never mind")
    assert (await client.cancel(task)).status is State.CANCELLED
    assert (await client.cancel(task.id)).status is State.CANCELLED
    with pytest.raises(NoAnswerError) as caught:
        await client.result(task)
    assert caught.value.code == "cancelled"
    assert caught.value.task.id == task.id
    async with working(door):
        done = await client.create("Done", wait_s=20)
    with pytest.raises(ConflictError) as ended:
        await client.cancel(done)
    assert ended.value.code == "task_ended"


async def test_who_asks_and_goes_leaves_nothing_behind(door, client) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await client.ask("Too slow")
    assert await door.waiting() == 0


async def test_a_list_is_read_page_by_page(door, client) -> None:
    made = [(await client.create(f"Number {n}", delay_s=50 + n)).id for n in range(5)]
    async with aclosing(client.list("delayed", page=2)) as tasks:
        assert [task.id async for task in tasks] == made
    assert [task async for task in client.list("running")] == []


async def test_a_failed_task_says_why(door, client) -> None:
    fault = TaskError("inference_failed", "the engine could not")
    async with working(door, lambda _request: fault):
        with pytest.raises(NoAnswerError) as caught:
            await client.ask("Fail")
    error = caught.value
    assert (error.code, error.message, error.retryable) == (*fault_words(fault), False)
    assert error.mend
    assert error.task.status is State.FAILED


def fault_words(fault: TaskError) -> tuple[str, str]:
    return fault.code, fault.message


async def test_refusals_have_their_kind_their_code_and_their_mend(client) -> None:
    with pytest.raises(InvalidError) as caught:
        await client.create("What?", image=b"no picture at all")
    assert (caught.value.status, caught.value.code) == (422, "invalid_image")
    assert caught.value.mend == InvalidImageError.mend
    assert caught.value.request_id
    with pytest.raises(InvalidError) as field:
        await client.create("What?", temperature=9)
    assert field.value.param == "temperature"
    for call in (client.get("a/../b?c"), client.cancel("none"), client.result("none")):
        with pytest.raises(NotFoundError):
            await call


async def test_a_key_is_sent_and_a_missing_one_is_told(redis, tmp_path, decoders) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        async with Client(door.url) as stranger:
            with pytest.raises(NotAllowedError) as caught:
                await stranger.create("Hi")
        assert caught.value.code == "unauthorized"
        infers_only = await make_key(access, Scope.INFER)
        async with Client(door.url, api_key=infers_only) as client:
            task = await client.create("Hi")
            with pytest.raises(NotAllowedError) as lacking:
                await client.get(task)
        assert lacking.value.code == "forbidden"
        async with Client(door.url, api_key=await make_key(access)) as client:
            assert (await client.get(task)).id == task.id
            assert infers_only not in repr(vars(lacking.value))


async def test_what_cannot_be_sent_is_told_before_anything_is(client, tmp_path) -> None:
    for wrong in (
        {"prompt": None},
        {"prompt": "a", "messages": [{"role": "user", "content": "b"}]},
        {"messages": [{"role": "user", "content": "b"}], "image": b"x", "prompt": None},
        {"prompt": "a", "image": str(tmp_path / "file.jpg")},
        {"prompt": "a", "idempotency_key": "two words"},
        {"prompt": "a", "idempotency_key": "x" * 256},
    ):
        with pytest.raises(ValueError, match=r".+"):
            await client.create(**wrong)
    with pytest.raises(OSError, match=r"nothing\.jpg"):
        await client.create("a", image=tmp_path / "nothing.jpg")
    for url in ("", "ftp://a", "127.0.0.1:8080"):
        with pytest.raises(ValueError, match="http"):
            Client(url)
    with pytest.raises(ValueError, match="api_key"):
        Client(api_key="two\nlines")


async def test_a_client_of_ones_own_is_not_closed(door) -> None:
    async with httpx.AsyncClient(trust_env=False) as own:
        async with Client(door.url + "/", http=own) as client:
            await client.create("Hi")
        assert not own.is_closed


async def test_without_an_event_loop_it_is_the_same(door) -> None:
    def plainly() -> tuple[str, list[str], int]:
        with BlockingClient(door.url) as client:
            text = client.ask("What is it?", image=picture(size=(40, 40)))
            task = client.create("And this?")
            heard = [type(event).__name__ for event in client.events(task)]
            waiting = len(list(client.list("delayed")))
            assert client.result(task).text == client.get(task).text
            with pytest.raises(ConflictError):
                client.cancel(task)
        return text, heard, waiting

    async with working(door):
        text, heard, waiting = await asyncio.to_thread(plainly)
    assert text == "The price is 12."
    assert heard[-1] == "Ended"
    assert waiting == 0
