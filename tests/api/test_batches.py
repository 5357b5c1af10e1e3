"""``/v1/batches`` by the unmodified ``openai`` client, from the upload to the output's lines."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import Sequence

import openai
import pytest

from forebay.admission.held import HeldBytes
from forebay.admission.policy import Limits
from forebay.api.batches.desk import BatchLimits
from forebay.core.request import DEFAULT_TENANT, Priority
from forebay.queue.batches import BatchStatus
from forebay.queue.ports import Outcome, TaskError
from tests.admission.pictures import picture
from tests.api.door import (
    MODEL,
    PROFILE,
    USAGE,
    Door,
    data_url,
    eventually,
    open_door,
    working,
)
from tests.api.openai_rig import talking

CHAT = "/v1/chat/completions"


def chat_line(name: str, text: str, **more) -> dict:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": body}


def jsonl(lines: Sequence[dict]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def begin(client: openai.AsyncOpenAI, content: bytes, endpoint: str = CHAT, **more):
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more
    )


async def ended(client: openai.AsyncOpenAI, batch_id: str):
    async with asyncio.timeout(60):
        while True:
            batch = await client.batches.retrieve(batch_id)
            if BatchStatus(batch.status).final:
                return batch
            await asyncio.sleep(0.1)


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict]:
    if file_id is None:
        return []
    return [json.loads(line) for line in (await client.files.content(file_id)).text.splitlines()]


def echo(request):
    return (f"re: {request.messages[0].parts[-1].text}",)


async def test_every_line_has_its_answer_in_the_inputs_order(door):
    lines = [chat_line(f"n{at}", f"question {at}", max_tokens=5) for at in range(30)]
    async with working(door, echo), talking(door) as client:
        batch = await begin(client, jsonl(lines), metadata={"of": "me"})
        assert batch.status == "validating"
        batch = await ended(client, batch.id)
        answers = await lines_of(client, batch.output_file_id)
        output = await client.files.retrieve(batch.output_file_id)
    assert batch.status == "completed"
    assert batch.metadata == {"of": "me"}
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (30, 30, 0)
    assert batch.error_file_id is None
    assert batch.usage.input_tokens == 30 * 40
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert [line["custom_id"] for line in answers] == [line["custom_id"] for line in lines]
    for at, line in enumerate(answers):
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        answer = line["response"]["body"]
        assert answer["object"] == "chat.completion"
        assert answer["choices"][0]["message"]["content"] == f"re: question {at}"
    assert output.purpose == "batch_output"


async def test_lines_wait_behind_everyone_who_waits_for_an_answer(door):
    async with talking(door) as client:
        await begin(client, jsonl([chat_line("a", "slow", metadata={"k": "v"})]))
        await eventually(lambda: _waits(door, 1))
        [lease] = await door.queue.claim("w", 1, 10**9)
    record = await door.queue.get(lease.task_id)
    assert record.priority == Priority.BATCH
    assert lease.terms.deadline < float("inf"), "what is not asked in time is not asked"


async def _waits(door: Door, count: int) -> bool:
    return await door.waiting() == count


async def test_pictures_and_the_other_contracts_go_through_batches_too(door):
    image = {"type": "image_url", "image_url": {"url": data_url(picture())}}
    parts = [image, {"type": "text", "text": "look"}]
    chat = chat_line("p", "")
    chat["body"]["messages"][0]["content"] = parts
    cases = {
        CHAT: (chat["body"], "chat.completion"),
        "/v1/completions": ({"model": MODEL, "prompt": ["a", "b"]}, "text_completion"),
        "/v1/responses": ({"model": MODEL, "input": "hi"}, "response"),
    }
    async with working(door) as worker, talking(door) as client:
        for endpoint, (body, kind) in cases.items():
            line = {"custom_id": "x", "method": "POST", "url": endpoint, "body": body}
            batch = await ended(client, (await begin(client, jsonl([line]), endpoint)).id)
            [answer] = await lines_of(client, batch.output_file_id)
            assert answer["response"]["body"]["object"] == kind
    assert any(request.images for request in worker.seen)


async def test_a_lines_own_error_is_a_line_of_the_error_file(door):
    lines = [
        chat_line("good", "fine"),
        chat_line("bad field", "x", tools=[{"type": "function"}]),
        chat_line("streams", "x", stream=True),
        chat_line("too long", "long"),
        chat_line("other model", "x") | {"body": {"model": "gpt-4o", "messages": []}},
    ]

    def reply(request):
        if request.messages[0].parts[0].text == "long":
            return TaskError("prompt_too_long", "9000 tokens exceed the context of 8192")
        return echo(request)

    async with working(door, reply), talking(door) as client:
        batch = await ended(client, (await begin(client, jsonl(lines))).id)
        answers = await lines_of(client, batch.output_file_id)
        errors = await lines_of(client, batch.error_file_id)
    assert batch.status == "completed"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 4)
    assert [line["custom_id"] for line in answers] == ["good"]
    told = {line["custom_id"]: line["response"] for line in errors}
    assert told["bad field"]["status_code"] == 400
    assert told["bad field"]["body"]["error"]["param"] == "tools.0.function"
    assert told["streams"]["body"]["error"]["param"] == "stream"
    assert told["too long"]["status_code"] == 422
    assert told["too long"]["body"]["error"]["code"] == "prompt_too_long"
    assert told["other model"]["status_code"] in (400, 404)


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b"\n\n", "empty_file", None),
        (b"not json\n", "invalid_json_line", 1),
        (b"[1]\n", "invalid_json_line", 1),
        (jsonl([chat_line("a", "x"), chat_line("a", "y")]), "duplicate_custom_id", 2),
        (jsonl([{**chat_line("a", "x"), "url": "/v1/completions"}]), "mismatched_endpoint", 1),
        (jsonl([{**chat_line("a", "x"), "method": "GET"}]), "invalid_method", 1),
        (jsonl([{**chat_line("a", "x"), "surprise": 1}]), "invalid_request", 1),
        (jsonl([{**chat_line("a", "x"), "custom_id": ""}]), "invalid_custom_id", 1),
        (jsonl([chat_line(str(at), "x") for at in range(5)]), "too_many_lines", 5),
        (b'{"custom_id": "a", "method": "POST", "body"', "invalid_json_line", 1),
    ],
)
async def test_an_input_that_cannot_be_read_fails_the_batch_and_says_where(
    redis, tmp_path, decoders, content, code, line
):
    limits = BatchLimits(lines=4)
    async with (
        open_door(redis, tmp_path / "blobs", decoders, batch_limits=limits) as door,
        talking(door) as client,
    ):
        batch = await ended(client, (await begin(client, content)).id)
        assert batch.status == "failed"
        [fault] = batch.errors.data
        assert (fault.code, fault.line) == (code, line)
        assert await door.waiting() == 0


async def test_what_a_batch_cannot_be_is_refused(door):
    async with talking(door) as client:
        file = await client.files.create(file=("a", b"x"), purpose="batch")
        for endpoint in ("/v1/embeddings", "/v1/moderations"):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.batches.create(
                    input_file_id=file.id, endpoint=endpoint, completion_window="24h"
                )
            assert refused.value.param == "endpoint"
        with pytest.raises(openai.NotFoundError):
            await client.batches.create(
                input_file_id="file-none", endpoint=CHAT, completion_window="24h"
            )
        for call in (client.batches.retrieve, client.batches.cancel):
            with pytest.raises(openai.NotFoundError) as refused:
                await call("batch_none")
            assert refused.value.code == "batch_not_found"


async def test_an_output_is_no_input(door):
    async with working(door), talking(door) as client:
        batch = await ended(client, (await begin(client, jsonl([chat_line("a", "x")]))).id)
        with pytest.raises(openai.BadRequestError) as refused:
            await client.batches.create(
                input_file_id=batch.output_file_id, endpoint=CHAT, completion_window="24h"
            )
    assert refused.value.param == "input_file_id"


async def test_a_cancelled_batch_keeps_its_answers_and_names_the_rest(door):
    lines = [chat_line(f"n{at}", f"q{at}") for at in range(20)]
    async with talking(door) as client:
        batch = await begin(client, jsonl(lines))
        await eventually(lambda: _some_wait(door))
        [lease] = await door.queue.claim("w", 1, 10**9)
        await _answer_one(door, lease)
        await eventually(lambda: _completed(client, batch.id, 1))
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        batch = await ended(client, batch.id)
        answers = await lines_of(client, batch.output_file_id)
        errors = await lines_of(client, batch.error_file_id)
        with pytest.raises(openai.ConflictError):
            await client.batches.cancel(batch.id)
        await eventually(lambda: _waits(door, 0))
    assert batch.status == "cancelled"
    assert batch.cancelled_at is not None
    assert len(answers) + len(errors) == 20
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    names = [line["custom_id"] for line in (*answers, *errors)]
    assert sorted(names) == sorted(line["custom_id"] for line in lines)


async def _answer_one(door: Door, lease) -> None:
    await door.queue.finish([Outcome(lease.task_id, lease.fence, text="42", usage=USAGE)])


async def _some_wait(door: Door) -> bool:
    return await door.waiting() > 0


async def _completed(client: openai.AsyncOpenAI, batch_id: str, least: int) -> bool:
    return (await client.batches.retrieve(batch_id)).request_counts.completed >= least


async def test_a_batch_is_listed_and_its_place_is_told_while_it_runs(door):
    async with working(door, echo), talking(door) as client:
        made = [(await begin(client, jsonl([chat_line("a", "x")]))).id for _ in range(3)]
        for batch_id in made:
            await ended(client, batch_id)
        listed = [batch.id async for batch in client.batches.list(limit=2)]
    assert listed == made[::-1]


async def test_at_most_a_windowful_of_a_batch_is_in_the_queue(redis, tmp_path, decoders):
    lines = [chat_line(f"n{at}", f"q{at}") for at in range(40)]
    limits = BatchLimits(window=3)
    seen: list[int] = []
    async with (
        open_door(redis, tmp_path / "blobs", decoders, batch_limits=limits) as door,
        talking(door) as client,
    ):
        batch = await begin(client, jsonl(lines))
        await eventually(lambda: _waits(door, 3))
        async with working(door, echo):

            async def watch() -> None:
                while True:
                    seen.append(await door.waiting())
                    await asyncio.sleep(0.01)

            watching = asyncio.create_task(watch())
            batch = await ended(client, batch.id)
            watching.cancel()
    assert batch.request_counts.completed == 40
    assert max(seen) <= 3


async def test_few_lines_of_a_batch_are_in_memory_at_once(redis, tmp_path, decoders):
    """A window of large lines waits in the queue; what they show is on disk and in the store."""
    image = {"type": "image_url", "image_url": {"url": data_url(picture("PNG", size=(400, 300)))}}
    lines = [chat_line(f"n{at}", "") for at in range(12)]
    for at, line in enumerate(lines):
        line["body"]["messages"][0]["content"] = [image, {"type": "text", "text": f"q{at}"}]
    size = len(jsonl(lines[:1]))
    held = HeldBytes(most=int(2.5 * size))
    async with (
        open_door(redis, tmp_path / "blobs", decoders, held=held) as door,
        talking(door) as client,
    ):
        file = await door.services.files.upload(
            DEFAULT_TENANT, io.BytesIO(jsonl(lines)), filename="in", purpose="batch", ttl_s=3600
        )
        batch = await client.batches.create(
            input_file_id=file.file_id, endpoint=CHAT, completion_window="24h"
        )
        async with working(door, echo):
            done = await ended(client, batch.id)
    assert (done.request_counts.completed, done.request_counts.failed) == (12, 0)
    assert held.now == 0


async def test_a_batch_leaves_half_of_the_queues_room_to_others(redis, tmp_path, decoders):
    lines = [chat_line(f"n{at}", f"q{at}") for at in range(12)]
    limits = Limits(context_tokens=PROFILE.context_tokens, max_waiting=8)
    async with (
        open_door(redis, tmp_path / "blobs", decoders, limits=limits) as door,
        talking(door) as client,
    ):
        batch = await begin(client, jsonl(lines))
        await eventually(lambda: _some_wait(door))
        await asyncio.sleep(1)
        assert await door.waiting() <= 4
        async with working(door, echo):
            assert (await ended(client, batch.id)).request_counts.completed == 12


async def test_another_process_goes_on_where_one_stopped(redis, tmp_path, decoders):
    """The first is stopped with lines answered and lines in the queue; none runs twice."""
    lines = [chat_line(f"n{at}", f"q{at}") for at in range(25)]
    ran: Counter[str] = Counter()
    async with (
        open_door(redis, tmp_path / "blobs", decoders) as first,
        talking(first) as client,
    ):
        batch = await begin(client, jsonl(lines))
        await eventually(lambda: _some_wait(first))
        for lease in await first.queue.claim("w", 2, 10**9):
            ran[lease.request.messages[0].parts[0].text] += 1
            await _answer_one(first, lease)
        await eventually(lambda: _completed(client, batch.id, 1))
        await eventually(lambda: _some_wait(first))
    async with (
        open_door(redis, tmp_path / "blobs", decoders) as second,
        talking(second) as client,
        working(second, echo) as worker,
    ):
        done = await ended(client, batch.id)
        answers = await lines_of(client, done.output_file_id)
    ran.update(request.messages[0].parts[0].text for request in worker.seen)
    assert done.status == "completed"
    assert [line["custom_id"] for line in answers] == [line["custom_id"] for line in lines]
    assert ran == Counter(f"q{at}" for at in range(25))


async def test_a_batch_whose_time_ran_out_keeps_what_it_has(redis, tmp_path, decoders):
    lines = [chat_line(f"n{at}", f"q{at}") for at in range(6)]
    async with (
        open_door(redis, tmp_path / "blobs", decoders) as door,
        talking(door) as client,
    ):
        batch = await begin(client, jsonl(lines))
        await eventually(lambda: _some_wait(door))
        key = next(iter(await redis.keys(f"*batch:{batch.id}")))
        await redis.hset(key, "expires_s", "1")
        # whoever takes it up next reads its record anew
    async with (
        open_door(redis, tmp_path / "blobs", decoders) as door,
        talking(door) as client,
    ):
        done = await ended(client, batch.id)
        errors = await lines_of(client, done.error_file_id)
    assert done.status == "expired"
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}
    assert len(errors) == 6
